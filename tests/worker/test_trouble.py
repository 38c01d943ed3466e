"""A worker whose store fails, and claims whose answer is lost: nothing stays ours that nobody advances."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from inside import ended, row_of, serving, until

import holdfast
from holdfast import Holdfast, body, claiming, served, step, worker, workflow
from holdfast.errors import StoreError
from holdfast.lease import Lease
from holdfast.store import Batch, Committed, Store, Taken
from holdfast.store.memory import MemoryStore

executed: list[str] = []
gates: dict[str, asyncio.Event] = {}


@step
async def work(what: str) -> str:
    executed.append(what)
    if what in gates:
        await gates[what].wait()
    return what.upper()


@workflow(version="1", name="trouble.job")
async def job(what: str) -> str:
    return await work(what)


@workflow(version="1", name="trouble.pair")
async def pair(what: str) -> str:
    return await work(what) + await work(what + what)


@workflow(version="1", name="trouble.leaves")
async def leaves() -> None:
    await work("leaves")
    asyncio.current_task().get_loop().call_soon(cancel_all)  # type: ignore[union-attr]
    await asyncio.sleep(3600)


@workflow(version="1", name="trouble.stubborn")
async def stubborn() -> None:
    with suppress(asyncio.CancelledError):
        await work("stubborn")
    while gates:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)


def cancel_all() -> None:
    """What a careless program does to everything on its loop that looks like a run's."""
    for task in asyncio.all_tasks():
        if task.get_name().startswith("holdfast run"):
            task.cancel()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing here is about how long is waited."""
    executed.clear()
    gates.clear()
    monkeypatch.setattr(worker, "AWAY_FIRST_S", 0.01)
    monkeypatch.setattr(served, "RETRY_FIRST_S", 0.02)
    yield
    gates.clear()


class Away:
    """A store that does not answer while ``away`` is true; ``when`` says which calls are meant."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = False
        self.asked: list[str] = []
        self.when: Callable[[str], bool] = lambda name: True

    def __getattr__(self, name: str) -> Any:
        there = getattr(self.store, name)
        if not callable(there) or name in ("close", "forget"):
            return there

        def call(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(name)
            if self.away and self.when(name):
                raise StoreError("the store is away")
            return there(*args, **kwargs)

        return call


def test_it_outlives_a_store_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = MemoryStore()
        gates["a"] = asyncio.Event()
        flaky: Any = Away(store)
        async with Holdfast(store) as hf, serving(flaky, lease=1):
            await hf.submit(pair("a"), id="a")
            await until(lambda: executed == ["a"])
            flaky.away = True
            gates["a"].set()  # its outcome cannot be written
            await until(lambda: "does not answer" in caplog.text and "cannot be handed back yet" in caplog.text)
            await hf.submit(job("b"), id="b")
            flaky.away = False
            assert await ended(store, "a", "b") == ["done", "done"]
        assert executed.count("a") == 2 and executed.count("aa") == 1 and executed.count("b") == 1
        row = row_of(store, "a")
        assert (row.deaths, [claim.found for claim in store.claims(row.no)]) == (0, ["queued", "running"])
        assert "answers again" in caplog.text

    caplog.set_level(logging.INFO, "holdfast")
    asyncio.run(main())


@workflow(version="1", name="trouble.asks")
async def asks() -> str:
    return await holdfast.wait_for("answer", str)


def test_a_waiting_run_that_cannot_be_let_go_of_is_no_mistake_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """It goes on when the store is back, and is not parked."""

    async def main() -> None:
        store = MemoryStore()
        flaky: Any = Away(store)
        flaky.when = lambda name: name == "commit"
        async with Holdfast(store) as hf, serving(flaky):
            await hf.submit(asks(), id="a")
            await until(lambda: row_of(store, "a").status == "waiting")
            flaky.away = True
            await until(lambda: "cannot be handed back yet" in caplog.text)
            flaky.away = False
            await until(lambda: row_of(store, "a").status == "waiting" and row_of(store, "a").owner is None)
            await hf.send("a", "answer", "yes")
            assert await ended(store, "a") == ["done"]
        assert "parked" not in caplog.text

    asyncio.run(main())


def test_it_ends_although_the_store_is_away_and_a_run_will_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "UNWIND_S", -0.9)
    monkeypatch.setattr(body, "UNWIND_S", 0.5)

    async def main() -> None:
        flaky: Any = Away(MemoryStore())
        async with Holdfast(flaky) as hf:
            serving = worker.Worker(hf, [worker.Queue("default")], concurrency=1, grace_s=0)
            task = asyncio.create_task(serving.serve())
            await hf.submit(stubborn(), id="a")
            await until(lambda: executed == ["stubborn"])
            flaky.away = True
            serving.drain()
            assert not await asyncio.wait_for(task, 5)
            flaky.away = False

    gates["stubborn"] = asyncio.Event()
    asyncio.run(main())


def test_it_does_not_begin_with_a_store_that_cannot_be_read() -> None:
    async def main() -> None:
        flaky: Any = Away(MemoryStore())
        flaky.away = True
        with pytest.raises(StoreError, match="is away"):
            async with Holdfast(flaky) as hf:
                await worker.Worker(hf, [worker.Queue("default")], concurrency=1, grace_s=1).serve()

    asyncio.run(main())


@pytest.mark.parametrize("method", ["owners", "claim_due", "listen", "runs", "load", "claims", "get"])
def test_no_one_call_that_fails_for_a_while_stops_it(method: str) -> None:
    async def main() -> None:
        store = MemoryStore()
        flaky: Any = Away(store)
        flaky.when = lambda name: name == method
        async with Holdfast(store) as hf, serving(flaky):
            flaky.away = True
            await hf.submit(job("a"), id="a")
            asked = len(flaky.asked)
            await until(lambda: flaky.asked[asked:].count(method) >= 2 or row_of(store, "a").status == "done")
            flaky.away = False
            assert await ended(store, "a") == ["done"]

    asyncio.run(main())


def test_a_program_that_lost_the_store_keeps_no_lease() -> None:
    """Its heartbeat goes on, for its other runs, and would prolong those that it does not advance any more."""

    async def main() -> None:
        store = MemoryStore()
        flaky: Any = Away(store)
        gates["a"] = asyncio.Event()
        async with Holdfast(flaky, Lease(1)) as hf:
            running = asyncio.create_task(hf.run(job("a"), id="a"))
            async with hf.session("s") as session:
                session.state["n"] = 1
                await until(lambda: executed == ["a"])
                flaky.away = True
                gates["a"].set()
                with pytest.raises(StoreError):
                    await running
                with pytest.raises(StoreError):
                    await session.save()
            flaky.away = False
            assert [row_of(store, id).owner for id in "as"] == [hf.owner, hf.owner]
            gates["b"] = asyncio.Event()
            going_on = asyncio.create_task(hf.run(job("b"), id="b"))
            await until(lambda: [row_of(store, id).owner for id in "as"] == [None, None])
            assert [row_of(store, id).status for id in "as"] == ["running", "waiting"]
            gates["b"].set()
            assert await going_on == "B" and await hf.run(job("a"), id="a") == "A"

    asyncio.run(main())


class Forgetful(MemoryStore):
    """Its first answer to a claim is lost on the way, after the claim was written."""

    lost = 0

    def claim_due(self, owner: str, **options: Any) -> list[Taken]:
        taken = super().claim_due(owner, **options)
        if taken and not self.lost:
            self.lost += 1
            raise StoreError("the connection is gone")
        return taken


def test_a_claim_whose_answer_was_lost_is_found_again() -> None:
    """The heartbeat would prolong it for ever, and nobody advance the run."""

    async def main() -> None:
        store = Forgetful()
        async with Holdfast(store) as hf, serving(store, lease=1):
            await hf.submit(job("a"), id="a")
            assert await ended(store, "a") == ["done"]
        assert store.lost == 1 and executed == ["a"]
        assert len(store.claims(row_of(store, "a").no)) == 1

    asyncio.run(main())


def test_what_was_claimed_before_the_store_failed_is_advanced() -> None:
    """The first queue gave a run, the second one could not be asked."""

    class Second(MemoryStore):
        away = False

        def claim_due(self, owner: str, *, queue: str, **options: Any) -> list[Taken]:
            if queue == "second" and self.away:
                raise StoreError("the store is away")
            return super().claim_due(owner, queue=queue, **options)

    async def main() -> None:
        store = Second()
        queues = worker.Queue("default"), worker.Queue("second")
        async with Holdfast(store) as hf, serving(store, *queues, lease=3600):  # no heartbeat finds it again
            store.away = True
            await hf.submit(job("a"), id="a")
            assert await ended(store, "a") == ["done"]
        assert executed == ["a"]

    asyncio.run(main())


class Poisoned(MemoryStore):
    """It refuses to write the outcome of one step, with everything that is in the same batch."""

    refused = 0

    def commit(self, batch: Batch) -> Committed:
        if any(b"POISON" in (row.result or b"") for row in batch.appends):
            self.refused += 1
            raise StoreError("this row cannot be written")
        return super().commit(batch)


def test_a_run_that_the_store_refuses_is_tried_again_ever_more_seldom(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = Poisoned()
        async with Holdfast(store) as hf, serving(store):
            await hf.submit(job("poison"), id="bad")
            await until(lambda: store.refused == 4)
            await hf.submit(job("a"), id="good")
            assert await ended(store, "good") == ["done"]
            store.refused = -(10**9)
            assert executed.count("poison") >= 4
            await hf.cancel("bad")
        told = [record.getMessage() for record in caplog.records if "to be tried again in" in record.getMessage()]
        assert len(told) >= 3

        waits = [float(line.partition("again in ")[2].split()[0]) for line in told]
        assert waits[:3] == [0.02, 0.04, 0.08]

    caplog.set_level(logging.INFO, "holdfast")
    asyncio.run(main())


def test_a_run_that_is_stopped_from_outside_does_not_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = MemoryStore()
        async with Holdfast(store) as hf, serving(store):
            before = store.now_ms()
            await hf.submit(leaves(), id="bad")
            await until(lambda: row_of(store, "bad").due_ms > before)
            await hf.submit(job("a"), id="good")
            assert await ended(store, "good") == ["done"]
            await hf.cancel("bad")

    asyncio.run(main())


def test_hf_run_in_the_workers_own_process_goes_on_with_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It found the run owned by somebody else, and waits; the worker then claims it under the same name."""

    async def main() -> None:
        nonlocal now
        monkeypatch.setattr(claiming, "POLL_S", 0.5)
        store = MemoryStore(clock=lambda: now)
        async with Holdfast(store) as other:
            await other.submit(job("a"), id="a")
            row = row_of(store, "a")
            store.claim(row.no, row.epoch, owner="elsewhere|1|1.0|x", ttl_ms=600, lost=None)
            async with serving(store) as hf:
                gates["a"] = asyncio.Event()
                running = asyncio.create_task(hf.run(job("a"), id="a"))
                await until(lambda: "waiting for it to end" in caplog.text)
                now += 600
                await other.submit(job("b"), id="b")  # a reason for a round, in which the worker claims both
                assert await ended(store, "b") == ["done"]
                await until(lambda: "a" in executed)
                await asyncio.sleep(2 * claiming.POLL_S)  # either of the two could take it from the other
                gates["a"].set()
                assert await asyncio.wait_for(running, 10) == "A"
        assert sorted(executed) == ["a", "b"]
        assert row_of(store, "a").status == "done"

    now = 1_000_000
    asyncio.run(main())


def test_a_run_that_diverged_is_told_of_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    asked = "a"

    @workflow(version="1", name="trouble.drifting")
    async def drifting() -> None:
        await work(asked)
        await work("last")

    async def main() -> None:
        nonlocal asked
        store = MemoryStore()
        gates["last"] = asyncio.Event()
        async with Holdfast(store) as hf:
            await hf.start(drifting(), id="x")
            await until(lambda: executed == ["a", "last"])
        asked = "b"
        async with serving(store):
            assert await ended(store, "x") == ["parked"]
        (told,) = (record.getMessage() for record in caplog.records if record.levelno > logging.WARNING)
        assert told.startswith("run x: parked: Diverged: run 'x', checkpoint 1: call 0 of step 'work' was recorded")
        assert not [record for record in caplog.records if "ended with" in record.getMessage()]

    asyncio.run(main())
