"""The store fails: everybody who waits is told, nothing later counts, and the same line goes on from what stands."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import Failing, Gated, on

import holdfast
from holdfast import Holdfast, StoreError, step, workflow
from holdfast.journal import _END, Journal, Standing
from holdfast.lease import Lease
from holdfast.store import Batch, RunRow, open_store

executed: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    executed.clear()


class Nobody:
    """Whom a journal tells of its leases where there are none."""

    def renewed(self, *_: object) -> None: ...

    def standing(self) -> Standing:
        return Standing({}, {})


def test_what_is_queued_while_the_journal_ends_is_told(tmp_path: Path) -> None:
    """Another thread closes it, or opens another journal behind a failed commit, while a loop hands over a row."""

    async def program() -> None:
        nobody = Nobody()
        journal = Journal(open_store(tmp_path / "a.db"), "owner", Lease(), nobody.renewed, nobody.standing)
        loop, told = asyncio.get_running_loop(), threading.Event()
        blank = RunRow(
            id="a", workflow="w", version="1", python="", module="", file="", inputs=b"", fingerprint=b"", state=None,
            seed=b"",
        )  # fmt: skip
        assert await journal.committed(blank, loop) is not None
        thread = journal._thread
        assert thread is not None
        journal._queue.put(_END)
        await asyncio.to_thread(thread.join)
        waiting = asyncio.create_task(journal.committed(blank, loop))
        await asyncio.sleep(0)
        journal.renew_now(told.set)
        await asyncio.to_thread(journal.close)
        with pytest.raises(StoreError, match="closed"):
            await asyncio.wait_for(waiting, 5)
        assert told.is_set()
        told.clear()
        journal.renew_now(told.set)
        assert told.is_set()
        journal.store.close()

    asyncio.run(program())


@step
async def work(name: str) -> str:
    executed.append(name)
    return name


@workflow(version="1")
async def line(names: list[str]) -> list[str]:
    return [await work(name) for name in names]


@workflow(version="1")
async def fan(names: list[str]) -> list[str]:
    return list(await asyncio.gather(*(work(name) for name in names)))


@workflow(version="1")
async def stubborn(names: list[str]) -> list[str]:
    """Catches what it can and calls on."""
    out = []
    for name in names:
        try:
            out.append(await work(name))
        except BaseException as error:
            executed.append(f"met {type(error).__name__}")
    return out


def nth_append(n: int) -> Callable[[Batch], bool]:
    """The n-th batch with rows in it, and no other."""
    seen = 0

    def when(batch: Batch) -> bool:
        nonlocal seen
        seen += bool(batch.appends)
        return bool(batch.appends) and seen == n

    return when


ERRORS = [StoreError("the disk is full"), OSError(5, "Input/output error")]


@pytest.mark.parametrize("error", ERRORS, ids=["StoreError", "OSError"])
@pytest.mark.parametrize("late", [False, True], ids=["not written", "written"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_failed_commit_stops_the_run_and_the_same_line_resumes(
    tmp_path: Path, n: int, late: bool, error: Exception
) -> None:
    async def main() -> None:
        store = Failing(open_store(tmp_path / "a.db"), nth_append(n), error, late=late)
        async with on(store) as hf:
            with pytest.raises(StoreError) as caught:
                await hf.run(line(["a", "b", "c"]), id="x")
            assert str(error) in str(caught.value)
            assert executed == ["a", "b", "c"][:n]
            assert await hf.run(line(["a", "b", "c"]), id="x") == ["a", "b", "c"]
            again = [] if late else [["a", "b", "c"][n - 1]]
            assert sorted(executed) == sorted(["a", "b", "c", *again]), "what was written is recalled"
            history = await hf.history("x")
            assert [each.seq for each in history] == list(range(1, len(history) + 1))
            assert (await hf.get("x")).deaths == 0

    asyncio.run(main())


def test_every_caller_of_the_batch_is_told(tmp_path: Path) -> None:
    """Three runs and a session share the transaction that fails."""

    async def main() -> None:
        gated = Gated(open_store(tmp_path / "a.db"))
        store = Failing(gated, lambda batch: len(batch.appends) > 1, StoreError("lost"))
        hf = on(store)
        ids = ["x", "y", "z"]
        hold = asyncio.Event()

        @step
        async def wait_for_all(name: str) -> str:
            await hold.wait()
            return name

        @workflow(version="1")
        async def one(name: str) -> str:
            await wait_for_all(name)
            executed.append(f"{name} went on")
            return name

        async with hf.session("s") as session:
            runs = [asyncio.create_task(hf.run(one(id), id=id)) for id in ids]
            while len(hf._live) < 3 or any(each.run is None for each in hf._live.values()):
                await asyncio.sleep(0.001)
            # A first commit waits at the gate, so that all the others meet in the next one.
            gated.gate.clear()
            session.state["first"] = 1
            saving = asyncio.create_task(session.save())
            while not gated.at_gate.is_set():
                await asyncio.sleep(0.001)
            hold.set()
            for _ in range(50):
                await asyncio.sleep(0)
            gated.gate.set()
            await saving
            session.state["second"] = 2
            outcomes = await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), 10)
            assert [type(each) for each in outcomes] == [StoreError] * 3, outcomes
            assert executed == []
            with pytest.raises(StoreError):
                await session.save()  # behind a lost commit nothing is acknowledged
        store.when = lambda batch: False
        assert await asyncio.gather(*(hf.run(one(id), id=id) for id in ids)) == ids
        async with hf.session("s") as session:
            assert session.state == {"first": 1}
        await hf.aclose()

    asyncio.run(main())


def test_nothing_is_written_behind_a_lost_commit(tmp_path: Path) -> None:
    """The transaction that failed may be on the disk or not: a row behind it would leave a gap."""

    async def main() -> None:
        gated = Gated(open_store(tmp_path / "a.db"))
        store = Failing(gated, nth_append(1), StoreError("lost"))
        hf = on(store)
        hold, began = asyncio.Event(), asyncio.Event()

        @step
        async def quick() -> str:
            return "quick"

        @step
        async def slow() -> str:
            began.set()
            try:
                await hold.wait()
            except BaseException:
                pass  # a step that cannot be stopped
            executed.append("slow ended")
            return "slow"

        @workflow(version="1")
        async def both() -> list[str]:
            return list(await asyncio.gather(slow(), quick()))

        with pytest.raises(StoreError):
            await asyncio.wait_for(hf.run(both(), id="x"), 10)
        hold.set()
        await asyncio.sleep(0)
        assert executed == ["slow ended"]
        assert store.seqs == gated.seqs == []
        assert sum(bool(batch.appends) for batch in store.asked) == 1
        await hf.aclose()

    asyncio.run(main())


def test_a_program_that_catches_everything_gets_no_further(tmp_path: Path) -> None:
    async def main() -> None:
        async with on(Failing(open_store(tmp_path / "a.db"), nth_append(2), OSError("gone"))) as hf:
            with pytest.raises(StoreError):
                await hf.run(stubborn(["a", "b", "c", "d"]), id="x")
            assert executed == ["a", "b", "met Stop", "met Stop", "met Stop"]
            executed.clear()
            assert await hf.run(stubborn(["a", "b", "c", "d"]), id="x") == ["a", "b", "c", "d"]
            assert executed == ["b", "c", "d"]

    asyncio.run(main())


@pytest.mark.parametrize("late", [False, True], ids=["not written", "written"])
def test_the_end_of_a_run_is_lost(tmp_path: Path, late: bool) -> None:
    async def main() -> None:
        failing = Failing(open_store(tmp_path / "a.db"), lambda batch: bool(batch.finishes), OSError("gone"), late=late)
        hf: Holdfast = on(failing)
        with pytest.raises(StoreError):
            await hf.run(fan(["a", "b"]), id="x")
        failing.when = lambda batch: False
        assert await hf.run(fan(["a", "b"]), id="x") == ["a", "b"]
        assert executed == ["a", "b"]
        await hf.aclose()

    asyncio.run(main())


def test_a_run_that_cannot_be_created(tmp_path: Path) -> None:
    async def main() -> None:
        store = Failing(open_store(tmp_path / "a.db"), lambda batch: bool(batch.creates), StoreError("no room"))
        async with on(store) as hf:
            with pytest.raises(StoreError, match="no room"):
                await hf.run(line(["a"]), id="x")
            with pytest.raises(holdfast.NotFound):
                await hf.get("x")
            store.when = lambda batch: False
            assert await hf.run(line(["a"]), id="x") == executed == ["a"]

    asyncio.run(main())


@pytest.mark.parametrize("behind", ["while it fails", "once it has failed"])
def test_a_row_behind_a_lost_commit_is_not_written(tmp_path: Path, behind: str) -> None:
    """It is queued while the commit before it fails, or after, before the run was told: it would leave a gap in seq."""

    async def main() -> None:
        store = Failing(open_store(tmp_path / "a.db"), lambda batch: False, StoreError("lost"))
        hf = on(store)
        gate = asyncio.Event()
        loop, at_first = asyncio.get_running_loop(), threading.Event()

        @step
        async def first() -> str:
            executed.append("first")
            await gate.wait()
            return "first"

        @step
        async def second() -> str:
            executed.append("second")
            await gate.wait()
            journal = hf._journal_now
            until = time.monotonic() + 10
            # The loop is kept busy, so that the run cannot have been told yet.
            while not (at_first.is_set() if behind == "while it fails" else journal is None or journal.failed):
                assert time.monotonic() < until
                time.sleep(0.001)
            return "second"

        @workflow(version="1")
        async def both() -> list[str]:
            return list(await asyncio.gather(first(), second()))

        def when(batch: Batch) -> bool:
            if not batch.appends or at_first.is_set():
                return False
            at_first.set()
            if behind == "while it fails":
                asyncio.run_coroutine_threadsafe(settled(), loop).result(10)
            return True

        async def settled() -> None:
            """By then the second row is queued."""
            for _ in range(50):
                await asyncio.sleep(0)

        store.when = when
        running = asyncio.create_task(hf.run(both(), id="x"))
        while len(executed) < 2:
            await asyncio.sleep(0.001)
        gate.set()
        with pytest.raises(StoreError, match="lost"):
            await asyncio.wait_for(running, 10)
        await asyncio.to_thread(hf._journal.close)  # with what may be queued still
        row = store.get("x")
        assert row is not None and store.load(row.no) == []

    asyncio.run(main())
    executed.clear()


def test_a_run_whose_journal_was_closed_is_told(tmp_path: Path) -> None:
    """Nobody answers behind a closed journal, so nobody may wait for it."""

    async def main() -> None:
        hf = on(open_store(tmp_path / "a.db"))
        gate = asyncio.Event()

        @step
        async def gated() -> str:
            executed.append("gated")
            await gate.wait()
            return "gated"

        @workflow(version="1")
        async def one() -> str:
            return await gated()

        running = asyncio.create_task(hf.run(one(), id="x"))
        while not executed:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(hf._journal.close)
        gate.set()
        with pytest.raises(StoreError, match="closed"):
            await asyncio.wait_for(running, 10)
        await asyncio.wait_for(hf.aclose(), 10)

    asyncio.run(main())
