"""What a crash rests on, each promise alone and in one process: the tests that planted bugs must make fail."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from stores import Gated, Wrapped, on

import holdfast
from holdfast import CodecError, Fenced, Holdfast, StepFailed, journal, lease, step, workflow
from holdfast.store import RunRow, Store, open_store
from holdfast.store.memory import MemoryStore
from holdfast.testing import FakeClock

executed: list[Any] = []
gates: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    executed.clear()
    yield
    gates.clear()


@step
async def work(name: str) -> str:
    executed.append(name)
    if name in gates:
        await gates[name].wait()
    return name


@step
async def refuse(name: str) -> str:
    executed.append(name)
    raise ValueError(name)


@workflow(version="1")
async def line(names: list[str]) -> list[str]:
    return [await work(name) for name in names]


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {"memory": lambda: "memory://", "sqlite": lambda: tmp_path / "a.db"}
    made = open_store(urls.get(request.param, lambda: request.getfixturevalue("postgres_url"))())
    yield made
    made.close()


def stolen(store: Store, id: str) -> RunRow:
    """Somebody else takes the run over."""
    row = store.get(id)
    assert row is not None
    claimed = store.claim(row.no, row.epoch, owner="elsewhere|1|1.0|x", ttl_ms=lease.Lease().ttl_ms, lost="died")
    assert claimed is not None
    return claimed


# -- durable before the next line ----------------------------------------------------------------------------


def test_a_step_returns_when_it_is_committed_and_not_before(tmp_path: Path) -> None:
    async def main() -> None:
        store = Gated(open_store(tmp_path / "a.db"))
        async with on(store) as hf:
            gates["a"] = asyncio.Event()
            running = asyncio.create_task(hf.run(line(["a", "b"]), id="x"))
            await until(lambda: executed == ["a"])
            store.gate.clear()
            gates["a"].set()
            await until(store.at_gate.is_set)
            try:
                for _ in range(200):
                    await asyncio.sleep(0)
                assert executed == ["a"] and not running.done(), "the row is not in the store, so b must not begin"
            finally:
                store.gate.set()
            assert await running == ["a", "b"]

    asyncio.run(main())


def test_rows_are_written_in_the_order_of_seq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a transaction: with another order a crash would leave a gap."""
    monkeypatch.setattr(journal, "BATCH_MAX", 1)

    @workflow(version="1")
    async def fan() -> list[str]:
        return list(await asyncio.gather(*(work(str(n)) for n in range(12))))

    async def main() -> None:
        store = Gated(open_store(tmp_path / "a.db"))
        async with on(store) as hf:
            for n in range(12):
                gates[str(n)] = asyncio.Event()
            running = asyncio.create_task(hf.run(fan(), id="x"))
            await until(lambda: len(executed) == 12)
            store.gate.clear()
            for gate in gates.values():
                gate.set()
            await until(store.at_gate.is_set)
            for _ in range(50):
                await asyncio.sleep(0)  # so that all of them are queued
            store.gate.set()
            await running
            assert store.seqs == list(range(1, 13))

    asyncio.run(main())


def test_an_end_stands_behind_every_row(tmp_path: Path) -> None:
    """A finished run has all its rows: the end of a run is never written before them."""

    @workflow(version="1")
    async def leaving() -> str:
        holdfast.state["left"] = await work("a")
        return "done"

    async def main() -> None:
        store = Wrapped(open_store(tmp_path / "a.db"))
        async with on(store) as hf:
            await hf.run(leaving(), id="x")
            assert [(row.seq, row.kind) for row in store.load(1)] == [(1, "step"), (2, "save")]
            assert store.batches[-1].finishes and (await hf.get("x")).status == "done"

    asyncio.run(main())


# -- one owner -----------------------------------------------------------------------------------------------


def test_a_fenced_owner_writes_nothing_and_starts_nothing(store: Store) -> None:
    @workflow(version="1")
    async def stubborn() -> str:
        for name in ("a", "b", "c"):
            try:
                await work(name)
            except BaseException as error:
                executed.append(type(error).__name__)
        await asyncio.gather(work("d"), work("e"), return_exceptions=True)
        return "done"

    async def main() -> None:
        async with on(Wrapped(store)) as hf:
            gates["b"] = asyncio.Event()
            running = asyncio.create_task(hf.run(stubborn(), id="x"))
            await until(lambda: executed == ["a", "b"])
            row = stolen(store, "x")
            gates["b"].set()
            with pytest.raises(Fenced, match="taken over by elsewhere"):
                await asyncio.wait_for(running, 10)
            assert [each for each in executed if not str(each).startswith(("Stop", "Cancelled"))] == ["a", "b"]
            assert [each.seq for each in store.load(row.no)] == [1]
            now = store.get("x")
            assert now is not None and (now.status, now.owner) == ("running", "elsewhere|1|1.0|x")

    asyncio.run(main())


def test_a_lease_that_lapsed_is_taken_over() -> None:
    now = 1_000_000

    async def main() -> None:
        nonlocal now
        store = MemoryStore(clock=lambda: now)
        async with on(store) as hf:
            gates["a"] = asyncio.Event()
            running = asyncio.create_task(hf.run(line(["a"]), id="x"))
            await until(lambda: executed == ["a"])
            stolen(store, "x")
            gates["a"].set()
            with pytest.raises(Fenced):
                await running
            with pytest.raises(holdfast.Busy):
                await hf.run(line(["a"]), id="x", wait=False)
            waiting = asyncio.create_task(hf.run(line(["a"]), id="x"))
            now += lease.Lease().ttl_ms - 1
            await asyncio.sleep(0.25)  # it looks every 0.1 s
            assert executed == ["a"] and not waiting.done()
            now += 1
            assert await asyncio.wait_for(waiting, 2) == ["a"]
            assert (await hf.get("x")).deaths == 2

    asyncio.run(main())


def test_an_owner_past_its_deadline_asks_before_it_starts_a_step(store: Store) -> None:
    """It was asleep, somebody took the run over: not even the body of the next step may run."""

    async def main() -> None:
        with FakeClock() as time:
            async with on(Wrapped(store)) as hf:
                gates["a"] = asyncio.Event()
                running = asyncio.create_task(hf.run(line(["a", "b"]), id="x"))
                await until(lambda: executed == ["a"])
                # Between the commit of a and the start of b time passes, and the run is taken over.
                hf._live["x"].run.observer = lambda what, run, row: (  # type: ignore[union-attr]
                    what == "executed" and (stolen(store, "x"), setattr(time, "_now", lease.Lease().seconds))
                )
                gates["a"].set()
                with pytest.raises(Fenced):
                    await asyncio.wait_for(running, 10)
                assert executed == ["a"]

    asyncio.run(main())


def test_two_calls_of_one_id_execute_once(store: Store) -> None:
    async def main() -> None:
        async with on(Wrapped(store)) as hf:
            gates["a"] = asyncio.Event()
            running = [asyncio.create_task(hf.run(line(["a", "b"]), id="x")) for _ in range(5)]
            await until(lambda: executed == ["a"])
            running.append(asyncio.create_task(hf.run(line(["a", "b"]), id="x")))
            gates["a"].set()
            assert await asyncio.wait_for(asyncio.gather(*running), 5) == [["a", "b"]] * 6
            assert executed == ["a", "b"]
            run = await hf.get("x")
            assert (run.resumed, run.deaths, run.steps) == (0, 0, 2)

    asyncio.run(main())


# -- what was recorded ---------------------------------------------------------------------------------------


async def interrupted(hf: Holdfast, call: Any, at: str) -> None:
    """Run a workflow until ``at`` is in flight, and cancel it from outside, as Ctrl-C does."""
    gates[at] = asyncio.Event()
    running = asyncio.create_task(hf.run(call, id="x"))
    await until(lambda: at in executed)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    del gates[at]


def test_ctrl_c_is_no_failure(store: Store) -> None:
    async def main() -> None:
        async with on(Wrapped(store)) as hf:
            for time in itertools.count(2):
                await interrupted(hf, line(["a", "b", "c"]), "b")
                row = store.get("x")
                assert row is not None and (row.status, row.owner, row.error, row.deaths) == ("running", None, None, 0)
                assert [(each.name, each.status) for each in store.load(row.no)] == [("work", "done")]
                if time == 3:
                    break
                executed.clear()
            assert await hf.run(line(["a", "b", "c"]), id="x") == ["a", "b", "c"]
            assert executed == ["b", "b", "c"]

    asyncio.run(main())


def test_failures_that_the_workflow_went_past_are_recalled(store: Store) -> None:
    @workflow(version="1")
    async def past() -> list[str]:
        seen = []
        for name in ("tea", "milk"):
            try:
                await refuse(name)
            except StepFailed as failed:
                seen.append(failed.message)
        return [*seen, await work("last")]

    async def main() -> None:
        async with on(Wrapped(store)) as hf:
            await interrupted(hf, past(), "last")
            assert await hf.run(past(), id="x") == ["tea", "milk", "last"]
            assert executed == ["tea", "milk", "last", "last"]

    asyncio.run(main())


def test_the_failure_that_ended_a_run_is_tried_anew(store: Store) -> None:
    @workflow(version="1")
    async def broken() -> list[str]:
        return [await work("a"), await mends("b")]

    @step
    async def mends(name: str) -> str:
        executed.append(name)
        if executed.count(name) < 3:
            raise ValueError(f"{executed.count(name)} is too few")
        return name

    async def main() -> None:
        async with on(Wrapped(store)) as hf:
            for time in (1, 2):
                with pytest.raises(StepFailed, match=f"{time} is too few"):
                    await hf.run(broken(), id="x")
                run = await hf.get("x")
                assert (run.status, run.deaths, run.owner) == ("failed", 0, None)
            assert await hf.run(broken(), id="x") == ["a", "b"]
            assert executed == ["a", "b", "b", "b"]

    asyncio.run(main())


def test_a_call_the_workflow_cancelled_stays_cancelled(store: Store) -> None:
    @workflow(version="1")
    async def racing() -> list[str]:
        slow = asyncio.create_task(work("slow"))
        first = await work("quick")
        slow.cancel()
        await asyncio.wait({slow})
        return [first, "cancelled" if slow.cancelled() else "?", await work("last")]

    async def main() -> None:
        async with on(Wrapped(store)) as hf:
            gates["slow"] = asyncio.Event()
            await interrupted(hf, racing(), "last")
            assert [each.status for each in await hf.history("x")] == ["done", "cancelled"]
            assert await asyncio.wait_for(hf.run(racing(), id="x"), 10) == ["quick", "cancelled", "last"]
            assert executed.count("slow") == 1

    asyncio.run(main())


@pytest.mark.parametrize("damage", ["SET n = 7", "SET name = 'other'", "SET fingerprint = x'00'", "deleted"])
def test_a_step_whose_row_is_out_of_place_is_not_executed_again(tmp_path: Path, damage: str) -> None:
    async def main() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            await interrupted(hf, line(["a", "b", "c"]), "c")
        db = apsw.Connection(str(tmp_path / "a.db"))
        change = "DELETE FROM checkpoint" if damage == "deleted" else f"UPDATE checkpoint {damage}"
        db.execute(f"{change} WHERE seq = 1")
        db.close()
        executed.clear()
        gates.clear()
        async with holdfast.open(tmp_path / "a.db") as hf:
            with pytest.raises(CodecError, match=r"checksum|missing"):
                await hf.run(line(["a", "b", "c"]), id="x")
            assert (executed, (await hf.get("x")).status) == ([], "parked")

    asyncio.run(main())


def test_history_does_not_believe_a_changed_row(tmp_path: Path) -> None:
    async def main() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            await hf.run(line(["a", "b"]), id="x")
        db = apsw.Connection(str(tmp_path / "a.db"))
        db.execute("UPDATE checkpoint SET result = X'A178' WHERE seq = 1")
        db.close()
        async with holdfast.open(tmp_path / "a.db") as hf:
            changed, whole = await hf.history("x")
            assert changed.result is None and "checksum" in str(changed.error)
            assert (whole.result, whole.error) == ("b", None)

    asyncio.run(main())


def test_who_gives_up_while_loading_leaves_the_failure_to_be_tried_anew(store: Store) -> None:
    @workflow(version="1")
    async def once_refused() -> str:
        return await work("fine") if executed else await refuse("no")

    async def main() -> None:
        hf = Holdfast(store)
        with pytest.raises(StepFailed):
            await hf.run(once_refused(), id="x")
        loading, go, load = asyncio.Event(), threading.Event(), store.load
        loop = asyncio.get_running_loop()

        def slowly(run_no: int, **which: Any) -> Any:
            loop.call_soon_threadsafe(loading.set)
            go.wait(10)
            return load(run_no, **which)

        store.load = slowly  # type: ignore[method-assign]
        resuming = asyncio.create_task(hf.run(once_refused(), id="x"))
        await loading.wait()
        resuming.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await resuming
        store.load = load  # type: ignore[method-assign]
        row = store.get("x")
        assert row is not None and row.error is not None
        await hf.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("column", ["result", "inputs", "seed", "state", "version"])
def test_a_changed_row_of_a_run_is_not_believed(tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture) -> None:
    @workflow(version="1")
    async def keeping(what: str) -> str:
        return await work(what)

    async def main() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            assert await hf.run(keeping("a"), id="x") == "a"
            await hf.run(keeping("b"), id="y")
        changed = {"result": "X'A178'", "inputs": "X'80'", "seed": "zeroblob(16)", "state": "X'80'", "version": "'2'"}
        db = apsw.Connection(str(tmp_path / "a.db"))
        db.execute(f"UPDATE run SET {column} = {changed[column]} WHERE id = 'x'")
        db.close()
        async with holdfast.open(tmp_path / "a.db") as hf:
            for looked in (hf.run(keeping("a"), id="x"), hf.get("x")):
                with pytest.raises(CodecError, match="run 'x': the checksum of the run's row"):
                    await looked
            whole, damaged = await hf.runs()
            assert (whole.id, whole.result, whole.error) == ("y", "b", None)
            assert damaged.result is None and "checksum" in str(damaged.error)
        assert "run x: unreadable: the checksum" in caplog.text

    asyncio.run(main())


@pytest.mark.parametrize("column", ["result", "delta", "status", "seq"])
def test_a_changed_row_is_not_believed(tmp_path: Path, column: str) -> None:
    @workflow(version="1")
    async def keeping() -> list[str]:
        holdfast.state["a"] = await work("a")
        return [await work("b"), holdfast.state["a"], await work("c")]

    async def main() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            await interrupted(hf, keeping(), "c")
        changed = {"result": "X'A178'", "delta": "NULL", "status": "'failed'", "seq": "7"}[column]
        db = apsw.Connection(str(tmp_path / "a.db"))
        db.execute(f"UPDATE checkpoint SET {column} = {changed} WHERE seq = 2")
        db.close()
        async with holdfast.open(tmp_path / "a.db") as hf:
            with pytest.raises(CodecError, match="checksum"):
                await hf.run(keeping(), id="x")
            assert (await hf.get("x")).status == "parked"

    asyncio.run(main())
