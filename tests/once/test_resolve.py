"""What a person says of a step that is in doubt, and what becomes of the run then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.worker.inside import serving

import holdfast
from holdfast import Busy, Cancelled, CodecError, Holdfast, HoldfastError, InDoubt, NotFound, StepFailed, step, workflow
from holdfast.store import Batch, Finish, open_store

sent: list[str] = []
broken = [True]


@dataclass
class Receipt:
    number: int


@pytest.fixture(autouse=True)
def _fresh() -> None:
    sent.clear()
    broken[0] = True


@step(once=True)
async def send(what: str) -> str:
    sent.append(what)
    if broken[0]:
        raise ConnectionError(what)
    return f"sent {what}"


@step(once=True)
async def buy(what: str) -> Receipt:
    sent.append(what)
    raise ConnectionError(what)


@workflow(version="1")
async def letters(*whom: str) -> list[str]:
    return list(await asyncio.gather(*map(send, whom)))


@workflow(version="1")
async def purchase() -> int:
    return (await buy("it")).number


def scene(run: Callable[[Holdfast], Coroutine[Any, Any, None]], url: Any = "memory://") -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await run(hf)

    asyncio.run(main())


async def doubted(hf: Holdfast, id: str = "x", *whom: str) -> InDoubt:
    with pytest.raises(InDoubt) as raised:
        await hf.run(letters(*(whom or ("Ada",))), id=id)
    return raised.value


def test_it_took_effect() -> None:
    async def run(hf: Holdfast) -> None:
        doubt = await doubted(hf)
        await hf.resolve("x", doubt.seq, result="sent by hand")
        assert (await hf.get("x")).status == "running"
        assert await hf.run(letters("Ada"), id="x") == ["sent by hand"] and sent == ["Ada"]
        (only,) = await hf.history("x")
        assert (only.status, only.result, only.name) == ("done", "sent by hand", "send")

    scene(run)


def test_it_did_not() -> None:
    async def run(hf: Holdfast) -> None:
        doubt = await doubted(hf)
        await hf.resolve("x", doubt.seq, retry=True)
        broken[0] = False
        assert await hf.run(letters("Ada"), id="x") == ["sent Ada"] and sent == ["Ada", "Ada"]

    scene(run)


def test_several_one_after_the_other() -> None:
    async def run(hf: Holdfast) -> None:
        await doubted(hf, "x", "Ada", "Bob")
        doubts = [each for each in await hf.history("x") if each.status == "intent"]
        assert [each.name for each in doubts] == ["send", "send"] and doubts[0].result is None
        await hf.resolve("x", doubts[0].seq, result="a")
        assert (await doubted(hf, "x", "Ada", "Bob")).inputs == {"what": "Bob"}
        await hf.resolve("x", doubts[1].seq, result="b")
        assert await hf.run(letters("Ada", "Bob"), id="x") == ["a", "b"] and sent == ["Ada", "Bob"]

    scene(run)


@pytest.mark.parametrize("given", [Receipt(7), {"number": 7}])
def test_a_result_has_the_type_of_the_step(given: Any, tmp_path: Path) -> None:
    async def run(hf: Holdfast) -> None:
        with pytest.raises(InDoubt) as raised:
            await hf.run(purchase(), id="x")
        before = hf._store.get("x")
        for wrong in (7, {"number": "seven"}, None):
            with pytest.raises(CodecError, match=r"is a Receipt.*Nothing was changed"):
                await hf.resolve("x", raised.value.seq, result=wrong)
        assert hf._store.get("x") == before
        await hf.resolve("x", raised.value.seq, result=given)
        assert await hf.run(purchase(), id="x") == 7

    scene(run)


def test_what_is_refused_changes_nothing() -> None:
    async def run(hf: Holdfast) -> None:
        doubt = await doubted(hf)
        before = hf._store.get("x"), hf._store.load(1)
        for error, given in (
            (TypeError, {}),
            (TypeError, {"result": "a", "retry": True}),
            (NotFound, {"id": "nobody", "retry": True}),
            (NotFound, {"seq": 99, "retry": True}),
            (TypeError, {"seq": 0, "retry": True}),
            (CodecError, {"result": 5}),
        ):
            with pytest.raises(error):
                await hf.resolve(**{"id": "x", "seq": doubt.seq, **given})  # type: ignore[arg-type]
        assert (hf._store.get("x"), hf._store.load(1)) == before
        await hf.resolve("x", doubt.seq, result="by hand")
        with pytest.raises(HoldfastError, match=r"not in doubt. Nothing of it is in doubt. Nothing was changed"):
            await hf.resolve("x", doubt.seq, result="by hand")
        await hf.run(letters("Ada"), id="x")
        with pytest.raises(HoldfastError, match="is done"):
            await hf.resolve("x", doubt.seq, retry=True)
        await doubted(hf, "y")
        await hf.cancel("y")
        with pytest.raises(Cancelled):
            await hf.resolve("y", doubt.seq, retry=True)
        async with hf.session("s") as session:
            await session.save()
        with pytest.raises(HoldfastError, match="session"):
            await hf.resolve("s", 1, retry=True)

    scene(run)


def test_a_run_that_is_owned(tmp_path: Path) -> None:
    async def run(hf: Holdfast) -> None:
        doubt = await doubted(hf)
        store = open_store(tmp_path / "a.db")
        row = store.get("x")
        assert row is not None
        store.claim(row.no, row.epoch, owner="elsewhere|1|1.0|x", ttl_ms=60_000, lost=None)
        with pytest.raises(Busy, match="Nothing was changed"):
            await hf.resolve("x", doubt.seq, retry=True)
        store.close()

    scene(run, tmp_path / "a.db")


def test_somebody_goes_on_with_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the row that settles it and the handing back of the lease, in the same process."""

    async def run(hf: Holdfast) -> None:
        doubt = await doubted(hf)
        committed, others = hf._journal.committed, []

        async def slowly(what: Any, loop: Any) -> Any:
            if isinstance(what, Finish) and not others:
                others.append(asyncio.create_task(hf.run(letters("Ada"), id="x")))
                await asyncio.wait(others)
            return await committed(what, loop)

        monkeypatch.setattr(hf._journal, "committed", slowly)
        await hf.resolve("x", doubt.seq, result="sent by hand")
        assert await others[0] == ["sent by hand"] and sent == ["Ada"]

    scene(run)


def test_another_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has settled it, and let go of the run, between this one's look and its claim."""

    async def run(hf: Holdfast) -> None:
        doubt = await doubted(hf)
        claim = hf._store.claim

        def late(run_no: int, epoch: int, **more: Any) -> Any:
            row = other._store.claim(run_no, epoch, **{**more, "owner": other.owner})
            assert row is not None
            other._store.commit(Batch(finishes=[Finish(run_no=run_no, epoch=row.epoch, status="running")]))
            return claim(run_no, epoch, **more)

        async with holdfast.open(tmp_path / "a.db") as other:
            monkeypatch.setattr(hf._store, "claim", late)
            with pytest.raises(Busy, match=r"somebody else.*Nothing was changed"):
                await hf.resolve("x", doubt.seq, retry=True)

    scene(run, tmp_path / "a.db")


def test_who_waits_for_it_elsewhere(tmp_path: Path) -> None:
    async def run(hf: Holdfast) -> None:
        doubt = await doubted(hf)
        with pytest.raises(InDoubt) as raised:
            await (await hf.get("x")).wait()
        told = raised.value
        assert (str(told), told.step, told.inputs, told.key, told.seq) == (
            str(doubt),
            doubt.step,
            doubt.inputs,
            doubt.key,
            doubt.seq,
        )
        assert [each.id for each in await hf.runs(status="in_doubt")] == ["x"]
        events = [event async for event in hf.watch("x")]  # it ends
        assert [event.status for event in events if isinstance(event, holdfast.Checkpoint)] == ["intent"]

    scene(run, tmp_path / "a.db")


async def status_of(hf: Holdfast, id: str, status: str) -> None:
    async with asyncio.timeout(20):
        while all(run.id != id for run in await hf.runs(status=status)):
            await asyncio.sleep(0.01)


def test_workers_leave_it_alone_and_go_on_once_it_is_resolved(tmp_path: Path) -> None:
    async def run(hf: Holdfast) -> None:
        await hf.submit(letters("Ada"), id="x")
        async with serving(hf._store):
            await status_of(hf, "x", "in_doubt")
            await hf.submit(letters(), id="another")
            await status_of(hf, "another", "done")
            await asyncio.sleep(0.2)
            assert sent == ["Ada"] and (await hf.get("x")).status == "in_doubt"
            async with holdfast.open(tmp_path / "a.db") as person:
                (intent,) = await person.history("x")
                await person.resolve("x", intent.seq, result="by hand")
            await status_of(hf, "x", "done")
            assert (await hf.get("x")).result == ["by hand"] and sent == ["Ada"]

    scene(run, tmp_path / "a.db")


def test_the_parent_of_a_child_in_doubt_sleeps_on(tmp_path: Path) -> None:
    async def run(hf: Holdfast) -> None:
        await hf.submit(parent(), id="p")
        async with serving(hf._store):
            await status_of(hf, "child", "in_doubt")
            await status_of(hf, "p", "waiting")
            (intent,) = await hf.history("child")
            await hf.resolve("child", intent.seq, result="by hand")
            await status_of(hf, "p", "done")
            assert (await hf.get("p")).result == "['by hand']" and sent == ["Ada"]

    scene(run, tmp_path / "a.db")


@workflow(version="1")
async def parent() -> str:
    try:
        return str(await holdfast.current().run(letters("Ada"), id="child"))
    except StepFailed as error:
        return f"swallowed {error}"


def test_the_parent_of_a_child_in_doubt_waits_on() -> None:
    async def run(hf: Holdfast) -> None:
        running = asyncio.create_task(hf._run(parent(), "p", None, True))
        await status_of(hf, "child", "in_doubt")
        await asyncio.sleep(0.3)
        assert not running.done() and sent == ["Ada"]
        (intent,) = await hf.history("child")
        await hf.resolve("child", intent.seq, result="by hand")
        assert await running == "['by hand']" and sent == ["Ada"]

    scene(run)
