"""Runs that wait, in a worker: let go of, woken, and begun by each other."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from inside import STORES, ended, row_of, serving, until, url_of

import holdfast
from holdfast import Holdfast, execution, workflow
from holdfast.store import Store, open_store
from holdfast.worker import WAITING_MAX, Worker


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    store = open_store(url_of(request, tmp_path))
    yield store
    store.close()


class Held:
    """Something that a run's code holds while it is in memory."""


held: weakref.WeakSet[Held] = weakref.WeakSet()


@workflow(version="1")
async def twice(first: float) -> str:
    await holdfast.sleep(first)
    kept = Held()
    held.add(kept)
    answer = await holdfast.wait_for("answer", str)
    del kept
    return answer


@workflow(version="1")
async def parent(number: int) -> list[str]:
    hf = holdfast.current()
    return list(await asyncio.gather(*(hf.run(twice(0.01), id=f"child-{k}") for k in range(number))))


async def let_go(hf: Holdfast, store: Store, *ids: str) -> None:
    await until(
        lambda: all(row_of(store, id).status == "waiting" and row_of(store, id).owner is None for id in ids),
        lambda: [(id, row_of(store, id)) for id in ids],
    )
    await until(lambda: not hf._live)
    await until(lambda: gc.collect() >= 0 and not held, lambda: "what was let go of is still in memory")


def test_a_second_wait_soon_after_the_first_is_let_go_of_too(store: Store) -> None:
    """What a worker does about the first wait is not taken for something that the run's code does."""

    async def main() -> None:
        async with serving(store) as hf:
            run = await hf.submit(twice(0.2), id="a")
            assert run.status == "queued"
            await let_go(hf, store, "a")
            await hf.send("a", "answer", "yes")
            assert await ended(store, "a") == ["done"]

    asyncio.run(main())


def test_a_parent_and_its_children_hold_no_slot_while_they_wait(store: Store) -> None:
    """With one slot: were one of them to keep it, none would come to its end."""

    async def main() -> None:
        ids = [f"child-{k}" for k in range(5)]
        async with serving(store, concurrency=1) as hf:
            await hf.submit(parent(5), id="p")
            await until(lambda: all(store.get(id) is not None for id in ids))
            await let_go(hf, store, "p", *ids)
            for id in ids:
                await hf.send(id, "answer", id)
            assert await ended(store, "p", *ids) == ["done"] * 6
            assert (await hf.get("p")).result == ids

    asyncio.run(main())


def test_cancelling_a_parent_ends_its_children(store: Store) -> None:
    async def main() -> None:
        async with serving(store) as hf:
            await hf.submit(parent(2), id="p")
            await until(lambda: store.get("child-1") is not None and row_of(store, "child-1").waiting is not None)
            await hf.cancel("p")
            assert await ended(store, "p", "child-0", "child-1") == ["cancelled"] * 3
            await until(lambda: not hf._live)

    asyncio.run(main())


limit: list[asyncio.Semaphore] = []  # that runs share, as one does for the rate of an API


@workflow(version="1")
async def limited() -> str:
    async def use() -> str:
        async with limit[0]:
            return "mine"

    used, waiting = asyncio.create_task(use()), asyncio.create_task(holdfast.wait_for("never", str))
    got = await used
    waiting.cancel()
    return got


def test_a_lock_that_runs_share_wakes_who_was_let_go_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells a run that was let go of that a lock is free; so it looks again by itself."""
    monkeypatch.setattr(execution, "LEANING_MS", 300)

    async def main() -> None:
        limit[:] = [asyncio.Semaphore(1)]
        async with serving(store) as hf:
            await limit[0].acquire()  # somebody else's, all the time
            await hf.submit(limited(), id="a")
            await until(lambda: row_of(store, "a").epoch > 4)
            limit[0].release()
            assert await ended(store, "a") == ["done"]

    asyncio.run(main())


def test_a_crowd_that_waits_does_not_stay(store: Store) -> None:
    """However many runs come to wait, few of them are in memory at once, and nothing is kept of them."""

    async def main() -> None:
        most = 0
        async with serving(store, concurrency=2) as hf:

            def count(event: str, run: Any, told: Any) -> None:
                nonlocal most
                most = max(most, len(hf._live))

            hf._observer = count
            ids = [f"r{n}" for n in range(60)]
            await asyncio.gather(*(hf.submit(twice(0), id=id) for id in ids))
            await let_go(hf, store, *ids)
            (worker,) = (each for each in gc.get_objects() if isinstance(each, Worker) and each._home is hf)
            assert not worker._failed and not worker._served and not worker._others
        assert most <= (WAITING_MAX + 2) * 2

    asyncio.run(main())
