"""docs/changes.md, line by line: what a resume does when the code has changed and the version has not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import CodecError, Diverged, StepFailed, step, workflow

PAGE = Path(__file__).parents[2] / "docs" / "changes.md"

executed: list[str] = []
failing = [True]


@dataclass
class Page:
    text: str


@dataclass
class Longer:
    text: str
    number: int


Longer.__qualname__ = "Page"  # what the same class is after an edit


def named(name: str, **options: Any) -> Any:
    @step(name=name, **options)
    async def noted(x: int = 0) -> int:
        executed.append(f"{name}{x}")
        return x

    return noted


a, b, c = named("a"), named("b"), named("c")
renamed, kept, newer = named("z"), named("a"), named("a", version="2")


@step(name="a", attempts=3, timeout=60, backoff=0.5)
async def with_parameter(x: int = 0, gift: bool = False) -> int:
    executed.append("another body")
    return x + 1


@step
async def last() -> None:
    if failing:
        raise ConnectionError("not yet")


async def recorded() -> None:
    await a(1)
    await b(1)
    await a(2)


async def reformatted() -> None:
    one: int = await a(1)  # a comment
    await b(one)
    await a(2)


async def other_body() -> None:
    await with_parameter(1)
    await b(1)
    await with_parameter(2, gift=False)


async def added() -> None:
    await c(9)
    await a(1)
    await c(8)
    await b(1)
    await a(2)


async def removed() -> None:
    await a(1)
    await a(2)


async def reordered() -> None:
    await a(2)
    await a(1)
    await b(1)


async def together() -> None:
    await asyncio.gather(a(1), b(1))
    await a(2)


async def in_a_helper() -> None:
    async def helper() -> None:
        await a(1)

    await asyncio.gather(helper(), b(1))
    await a(2)


async def further() -> None:
    await recorded()
    await a(3)


async def further_before() -> None:
    await a(0)
    await recorded()


async def other_inputs() -> None:
    await a(1)
    await b(7)
    await a(2)


async def with_renamed() -> None:
    await renamed(1)
    await b(1)
    await renamed(2)


async def with_kept_name() -> None:
    await kept(1)
    await b(1)
    await kept(2)


async def with_newer_step() -> None:
    await newer(1)


Does = list[str] | type[Exception]


@pytest.mark.parametrize(
    ("line", "body", "does"),
    [
        ("formatting, comments", reformatted, []),
        ("the body of a step", other_body, []),
        ("a new parameter with a default", other_body, []),
        ("a call of another step, added", added, ["c9", "c8"]),
        ("a call removed", removed, []),
        ("calls reordered", reordered, []),
        ("calls one after another, now", together, []),
        ("a call moved into a helper", in_a_helper, ["a1"]),
        ("a further call of the same step, after", further, ["a3"]),
        ("a further call of the same step, before", further_before, Diverged),
        ("a call with other inputs", other_inputs, Diverged),
        ("a step renamed", with_renamed, ["z1", "z2"]),
        ("a step renamed", with_kept_name, []),
        ("`@step(version=", with_newer_step, Diverged),
    ],
)
def test_a_line_of_the_page(line: str, body: Callable[[], Awaitable[None]], does: Does, tmp_path: Path) -> None:
    assert f"\n| {line}" in PAGE.read_text(encoding="utf-8")
    assert resumed(recorded, body, tmp_path) == does


def test_a_field_added_to_a_dataclass(tmp_path: Path) -> None:
    assert "| a field added to a dataclass that is recorded | raises `CodecError`, and parks" in PAGE.read_text()

    def parsing(kind: type) -> Callable[[], Awaitable[None]]:
        @step(name="parse", returns=kind)
        async def parse() -> Any:
            return Page("a")

        async def body() -> None:
            await parse()

        return body

    assert resumed(parsing(Page), parsing(Longer), tmp_path) is CodecError


def test_keys_let_calls_be_inserted_anywhere(tmp_path: Path) -> None:
    keyed = named("k", key=str)

    async def before() -> None:
        await keyed(1)
        await keyed(2)

    async def after() -> None:
        await keyed(0)
        await before()

    assert resumed(before, after, tmp_path) == ["k0"]


def resumed(before: Callable[[], Awaitable[None]], after: Callable[[], Awaitable[None]], folder: Path) -> Does:
    """What is executed when a run that failed behind ``before`` is resumed with ``after`` in its place."""

    def job(body: Callable[[], Awaitable[None]]) -> Any:
        @workflow(name="job", version="1")
        async def run() -> None:
            await body()
            await last()

        return run()

    async def program() -> Does:
        async with holdfast.open(folder / "jobs.db") as hf:
            failing[:] = [True]
            with pytest.raises(StepFailed):
                await hf.run(job(before), id="a")
            failing.clear()
            executed.clear()
            try:
                await hf.run(job(after), id="a")
            except (Diverged, CodecError) as error:
                assert (await hf.get("a")).status == "parked"
                return type(error)
            return list(executed)

    return asyncio.run(program())
