"""Programs that a user may write, with the types both checkers must see in them. Read, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, assert_type
from uuid import UUID

import holdfast
from holdfast import (
    Call,
    Checkpoint,
    Emitted,
    Event,
    Holdfast,
    Progress,
    Run,
    Session,
    Skipped,
    StepCall,
    Waiting,
    step,
    workflow,
)

T = TypeVar("T")


@dataclass
class Page:
    text: str


@step
async def parse_documents(app_id: str) -> list[str]:
    return [app_id]


@step(attempts=3, timeout=60)
async def check_credit(app_id: str) -> int:
    return len(app_id)


def place_of(path: str, client: object = None) -> str:
    return path


@step(name="read", version=2, key=place_of, ignore=("client", "path"), returns=Page, backoff=0.5)
async def read(path: str, client: object = None) -> Page:
    return Page(path)


@step(retry_on=(ConnectionError, TimeoutError), ignore="retries")
async def fetch(url: str, *, retries: int = 0) -> bytes:
    return url.encode()


@step
def count(text: str) -> int:
    return len(text.split())


async def is_paid(cents: int) -> str | holdfast.NotDone:
    return holdfast.NOT_DONE if cents else assert_type(holdfast.idempotency_key(), str)


@step(once=True, verify=is_paid, not_done=(OSError, ValueError), attempts=2)
async def pay(cents: int) -> str:
    return str(cents)


async def many(hf: Holdfast) -> None:
    assert_type(await holdfast.map(check_credit, ["a"]), list[int])
    assert_type(await holdfast.map(count, ["a"], key=str, concurrency=2), list[int])
    assert_type(await holdfast.map(check_credit, ["a"], failures="collect"), list[int | holdfast.StepFailed])
    async for item in holdfast.each([1], key=str):
        assert_type(item, int)
    for letter in holdfast.each("ab"):
        assert_type(letter, str)
    assert_type(hf.wait(holdfast.map(count, ["a"])), list[int])


async def paying(hf: Holdfast) -> None:
    assert_type(await pay(1), str)
    assert_type(await hf.resolve("x", 3, result="T-1"), None)
    await hf.resolve("x", 3, retry=True)


@step(attempts=2, retry_on=OSError)
def load(path: str, *, binary: bool = False) -> dict[str, Page]:
    return {}


@step()
async def nothing() -> None: ...


@step
async def first(values: list[T]) -> T:
    return values[0]


@workflow(version="1")
async def review_loan(app_id: str) -> str:
    docs, score = await asyncio.gather(parse_documents(app_id), check_credit(app_id))
    assert_type(docs, list[str])
    assert_type(score, int)
    holdfast.state["pages"] = len(docs)
    return f"{app_id}: {score}"


@workflow
async def bare(limit: int, /, *names: str, deep: bool = False) -> Page:
    return Page("")


@workflow
def report(text: str) -> str:
    return f"{count(text)} words"


@workflow(name="plain", version=3)
def named_report(text: str) -> Page:
    return Page(text)


class Agent:
    @step
    async def think(self, prompt: str) -> str:
        return prompt

    @step(attempts=2)
    async def act(self, prompt: str, *, force: bool = False) -> Page:
        return Page(prompt)

    @step
    def note(self, prompt: str) -> int:
        return len(prompt)

    @staticmethod
    @step
    async def still(prompt: str) -> bool:
        return bool(prompt)

    @workflow
    async def answer(self, prompt: str) -> bytes:
        assert_type(await self.think(prompt), str)
        assert_type(await self.act(prompt, force=True), Page)
        return b""

    @workflow
    def answer_plainly(self, prompt: str) -> bytes:
        assert_type(self.note(prompt), int)
        return b""


async def calls() -> None:
    assert_type(parse_documents("a"), StepCall[list[str]])
    assert_type(check_credit(app_id="a"), StepCall[int])
    assert_type(read("a"), StepCall[Page])
    assert_type(fetch("a", retries=1), StepCall[bytes])
    assert_type(nothing(), StepCall[None])
    assert_type(review_loan("a"), Call[str])
    assert_type(bare(1, "a", "b", deep=True), Call[Page])
    assert_type(review_loan.bind("a"), Call[str])
    assert_type(report.bind("a"), Call[str])
    assert_type(named_report.bind(text="a"), Call[Page])
    assert_type(await parse_documents("a"), list[str])
    assert_type(await check_credit("a"), int)
    assert_type(await review_loan("a"), str)
    assert_type(await bare(1), Page)


def plain_calls() -> None:
    assert_type(count("a"), int)
    assert_type(load("a", binary=True), dict[str, Page])
    assert_type(report("a"), str)
    assert_type(named_report("a"), Page)


async def methods(agent: Agent) -> None:
    assert_type(agent.think("a"), StepCall[str])
    assert_type(agent.act("a", force=True), StepCall[Page])
    assert_type(Agent.think(agent, "a"), StepCall[str])
    assert_type(agent.note("a"), int)
    assert_type(Agent.still("a"), StepCall[bool])
    assert_type(agent.answer("a"), Call[bytes])
    assert_type(agent.answer.bind("a"), Call[bytes])
    assert_type(agent.answer_plainly("a"), bytes)
    assert_type(agent.answer_plainly.bind("a"), Call[bytes])


async def through_asyncio() -> None:
    task = asyncio.create_task(parse_documents("a"))
    assert_type(task, asyncio.Task[list[str]])
    assert_type(await task, list[str])
    async with asyncio.TaskGroup() as group:
        first_task = group.create_task(check_credit("a"), name="credit")
        second_task = group.create_task(review_loan("a"))
    assert_type(first_task.result(), int)
    assert_type(second_task.result(), str)
    assert_type(await asyncio.wait_for(check_credit("a"), 1), int)
    assert_type(await asyncio.wait_for(review_loan("a"), timeout=None), str)
    assert_type(await asyncio.shield(check_credit("a")), int)
    assert_type(await asyncio.ensure_future(check_credit("a")), int)
    assert_type(await asyncio.gather(*(check_credit(name) for name in "ab")), list[int])
    both = await asyncio.gather(check_credit("a"), parse_documents("b"), return_exceptions=True)
    assert_type(both, tuple[int | BaseException, list[str] | BaseException])
    for finished in asyncio.as_completed([check_credit("a"), check_credit("b")]):
        assert_type(await finished, int)
    assert_type(await asyncio.to_thread(count, "a"), int)
    assert_type(await asyncio.to_thread(load, "a", binary=True), dict[str, Page])


def as_coroutine(call: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(call)


def without_a_loop() -> None:
    assert_type(asyncio.run(review_loan("a")), str)
    assert_type(asyncio.run(check_credit("a")), int)
    assert_type(as_coroutine(check_credit("a")), int)
    assert_type(as_coroutine(review_loan("a")), str)
    with holdfast.open("jobs.db") as hf:
        assert_type(hf.wait(hf.run(report.bind("a"), id="a")), str)
        assert_type(hf.wait(hf.run(review_loan("a"), id="b")), str)
        assert_type(hf.wait(hf.get("a")), Run)


async def watching(hf: Holdfast) -> str:
    async for event in hf.watch("a", after=3):
        assert_type(event, Checkpoint | Progress | Emitted | Skipped)
        match event:
            case Checkpoint():
                assert_type(event.seq, int)
                assert_type(event.place, str)
            case Progress(done=done, total=total):
                assert_type((done, total), tuple[float, float])
            case Emitted(chunk=chunk):
                assert_type(chunk, Any)
            case Skipped():
                assert_type(event.count, int)
    async with aclosing(hf.watch("a")) as events:
        return describe(await anext(events))


def describe(event: Event) -> str:
    return "" if isinstance(event, Skipped) else event.place


def tell() -> None:
    holdfast.emit({"token": "a"})
    holdfast.progress(1, 2.5)


@workflow(version="1")
async def waits() -> Page:
    assert_type(await holdfast.wait_for("approval", bool, timeout=3.5, ask="pay?"), bool)
    texts, page = await asyncio.gather(holdfast.wait_for("a", list[str]), holdfast.wait_for("b", Page))
    assert_type(texts, list[str])
    assert_type(await holdfast.sleep(3), None)
    task = asyncio.create_task(holdfast.wait_for("c", Page))
    assert_type(await task, Page)
    child, _ = await asyncio.gather(holdfast.current().run(report.bind("a"), id="b"), holdfast.sleep(1))
    assert_type(child, str)
    holdfast.current().wait(holdfast.sleep(3))
    assert_type(holdfast.current().wait(holdfast.wait_for("d", int)), int)
    return assert_type(page, Page)


async def durably(agent: Agent) -> None:
    async with holdfast.open("jobs.db") as hf:
        assert_type(hf, Holdfast)
        assert_type(await hf.run(review_loan("a"), id="a"), str)
        assert_type(await hf.run(review_loan("a"), id="a", state={"pages": []}, wait=False), str)
        assert_type(await hf.run(report.bind("a"), id="b"), str)
        assert_type(await hf.run(agent.answer("a"), id="c"), bytes)
        assert_type(await hf.run(agent.answer_plainly.bind("a"), id="d"), bytes)
        one, other = await asyncio.gather(hf.run(review_loan("a"), id="a"), hf.run(bare(1), id="e"))
        assert_type(one, str)
        assert_type(other, Page)
        assert_type(await hf.start(review_loan("a")), Run)
        await hf.send("a", "approval", {"ok": True}, key="k")
        assert_type((await hf.get("a")).waits, tuple[Waiting, ...])
        run = await hf.start(report.bind("a"), id="b")
        assert_type(run.id, str)
        assert_type(run.spent.usd, float)
        assert_type(run.created_at, datetime)
        assert_type(await hf.get("a"), Run)
        assert_type(await hf.runs(status="done", workflow="report", limit=10, after="a"), list[Run])
        assert_type(await hf.history("a"), list[Checkpoint])
        assert_type(await hf.cancel("a"), None)
        async with hf.session("s", initial={"docs": []}) as session:
            assert_type(session, Session)
            assert_type(session.state, MutableMapping[str, Any])
            assert_type(await session.save(), None)


async def inside() -> None:
    assert_type(holdfast.current(), Holdfast)
    assert_type(holdfast.run_id(), str)
    assert_type(holdfast.now(), datetime)
    assert_type(holdfast.uuid4(), UUID)
    assert_type(holdfast.random(), float)
    assert_type(holdfast.spend(tokens=3, usd=0.1), None)
    assert_type(await holdfast.current().run(review_loan("a"), id="own"), str)
    assert_type(await first([1, 2]), int)
