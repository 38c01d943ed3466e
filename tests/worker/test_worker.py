"""What a worker takes, and in which order."""

from __future__ import annotations

import asyncio

import pytest
from inside import ended, row_of, serving, until
from queued import DEAD, executed, fails, gates, job, owned, slow, submitted, twice

import holdfast
from holdfast import Holdfast
from holdfast.store import Store
from holdfast.store.memory import MemoryStore
from holdfast.worker import Queue


def test_submitted_runs_are_executed_and_can_be_waited_for(store: Store) -> None:
    async def main() -> None:
        async with serving(store), Holdfast(store) as hf:
            runs = [await hf.submit(job(str(n)), id=f"run-{n}") for n in range(30)]
            assert await asyncio.gather(*(run.wait() for run in runs)) == [str(n) for n in range(30)]
            assert sorted(executed, key=int) == [str(n) for n in range(30)]
            assert {(run.status, run.resumed, run.deaths) for run in await hf.runs()} == {("done", 0, 0)}

    asyncio.run(main())


def test_no_more_runs_at_once_than_there_are_slots(store: Store) -> None:
    async def main() -> None:
        gates.update({str(n): asyncio.Event() for n in range(7)})
        ids = await submitted(store, *(job(str(n)) for n in range(7)))
        async with serving(store, concurrency=3):
            for n in range(7):
                await until(lambda n=n: len(executed) >= min(7, n + 3))
                assert sorted(executed) == [str(k) for k in range(min(7, n + 3))]  # the oldest first
                await until(lambda n=n: owned(store, ids) == min(3, 7 - n))
                gates[str(n)].set()
            assert set(await ended(store, *ids)) == {"done"}

    asyncio.run(main())


def test_higher_priority_first_then_older(store: Store) -> None:
    async def main() -> None:
        async with Holdfast(store) as hf:
            for n, priority in enumerate([0, 5, -1, 5, 0]):
                await hf.submit(job(str(n)), id=f"run-{n}", priority=priority)
        async with serving(store, concurrency=1):
            await ended(store, *(f"run-{n}" for n in range(5)))
        assert executed == ["1", "3", "0", "4", "2"]

    asyncio.run(main())


def test_queues_are_served_in_the_order_given_and_others_not_at_all(store: Store) -> None:
    async def main() -> None:
        async with Holdfast(store) as hf:
            for id, queue in (("a", "third"), ("b", "second"), ("c", "first"), ("d", "second"), ("e", "other")):
                await hf.submit(job(id), id=id, queue=queue)
        async with serving(store, Queue("first"), Queue("second"), Queue("third"), concurrency=1):
            await ended(store, *"abcd")
        assert executed == ["c", "b", "d", "a"]
        assert row_of(store, "e").status == "queued"

    asyncio.run(main())


def test_a_delayed_run_is_begun_when_its_time_has_come() -> None:
    async def main() -> None:
        now = 1_000_000
        store = MemoryStore(clock=lambda: now)
        await submitted(store, job("later"), delay=60)
        async with Holdfast(store) as hf, serving(store):
            await hf.submit(job("now"), id="now")
            await ended(store, "now")
            now += 59_999
            await hf.submit(job("then"), id="then")
            await ended(store, "then")
            assert executed == ["now", "then"]
            now += 1
            assert await ended(store, "run-0") == ["done"]

    asyncio.run(main())


def test_the_limit_of_a_queue_holds_over_two_workers(store: Store) -> None:
    async def main() -> None:
        gates.update({str(n): asyncio.Event() for n in range(6)})
        ids = await submitted(store, *(slow(str(n)) for n in range(6)))
        queue = Queue("slow", 2)
        async with serving(store, queue), serving(store, queue):
            for n in range(6):
                await until(lambda n=n: len(executed) >= min(6, n + 2))
                await until(lambda n=n: owned(store, ids) == min(2, 6 - n))
                assert len(executed) == min(6, n + 2)
                gates[executed[n]].set()
            assert set(await ended(store, *ids)) == {"done"}
        assert len(executed) == 6

    asyncio.run(main())


def test_a_run_whose_owner_is_dead_is_taken_over_at_once(store: Store) -> None:
    """Its lease lasts for another hour; its process does not live."""

    async def main() -> None:
        (id,) = await submitted(store, job("a"))
        row = row_of(store, id)
        claimed = store.claim(row.no, row.epoch, owner=DEAD, ttl_ms=3_600_000, lost=None)
        assert claimed is not None
        async with serving(store):
            assert await ended(store, id) == ["done"]
        assert [claim.found for claim in store.claims(row.no)] == ["queued", "died"]

    asyncio.run(main())


def test_a_run_whose_lease_lapsed_is_taken_over_and_no_sooner() -> None:
    async def main() -> None:
        now = 1_000_000
        store = MemoryStore(clock=lambda: now)
        (id,) = await submitted(store, job("a"))
        row = row_of(store, id)
        store.claim(row.no, row.epoch, owner="elsewhere|1|1.0|x", ttl_ms=10_000, lost=None)
        async with Holdfast(store) as hf, serving(store):
            now += 9_999
            await hf.submit(job("b"), id="b")
            await ended(store, "b")
            assert executed == ["b"]
            now += 1
            assert await ended(store, id) == ["done"]
        assert [claim.found for claim in store.claims(row.no)] == ["queued", "lapsed"]

    asyncio.run(main())


def test_a_run_that_failed_is_recorded_as_failed_and_not_tried_again(store: Store) -> None:
    async def main() -> None:
        (id,) = await submitted(store, fails())
        async with Holdfast(store) as hf, serving(store):
            assert await ended(store, id) == ["failed"]
            await hf.submit(job("b"), id="b")
            await ended(store, "b")
            run = await hf.get(id)
            assert (run.status, run.error) == ("failed", "RuntimeError: by itself")
            with pytest.raises(holdfast.StepFailed, match="by itself"):
                await run.wait()
        assert executed == ["fails", "b"]

    asyncio.run(main())


def test_a_cancelled_run_stops_in_the_worker(store: Store) -> None:
    async def main() -> None:
        gates["a"] = asyncio.Event()
        (id,) = await submitted(store, twice("a"))
        async with serving(store, lease=1), Holdfast(store) as hf:
            await until(lambda: executed == ["a"])
            await hf.cancel(id)
            await hf.submit(job("b"), id="b")
            assert await ended(store, id, "b") == ["cancelled", "done"]
        assert executed == ["a", "b"]

    asyncio.run(main())
