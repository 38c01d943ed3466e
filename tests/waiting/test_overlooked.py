"""What a waiting run must not miss, and what must not wait for ever: brought about by holding the store."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Holdfast, HoldfastError, StepFailed, workflow
from holdfast.run import LiveRun
from holdfast.store import RunRow, Store, open_store
from holdfast.store.memory import MemoryStore
from holdfast.worker import Worker

sys.path.append(str(Path(__file__).parents[1] / "worker"))

from inside import STORES, ended, row_of, serving, until, url_of


@workflow(version="1")
async def kid(seconds: float) -> float:
    await holdfast.sleep(seconds)
    return seconds


@workflow(version="1")
async def parent_of(id: str, seconds: float) -> float | str:
    try:
        return await holdfast.current().run(kid(seconds), id=id)
    except StepFailed as failure:
        return failure.error_type


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = open_store(url_of(request, tmp_path))
    yield made
    made.close()


class Held:
    """The first call of a store's method that ``fits`` waits in its thread, until it is let go of."""

    def __init__(self, store: Store, name: str, fits: Callable[..., bool] = lambda *_: True) -> None:
        self._method, self._fits = getattr(store, name), fits
        self.there, self.free = threading.Event(), threading.Event()
        setattr(store, name, self)

    def __call__(self, *args: Any, **more: Any) -> Any:
        if self._fits(*args) and not self.there.is_set():
            self.there.set()
            assert self.free.wait(20)
        return self._method(*args, **more)


def unloaded(store: Store, id: str) -> bool:
    return (row_of(store, id).status, row_of(store, id).owner) == ("waiting", None)


# -- children ------------------------------------------------------------------------------------------------


def test_a_child_that_somebody_else_began(store: Store) -> None:
    """Its end wakes the run that began it, or nobody."""

    async def main() -> None:
        async with serving(store, concurrency=1) as hf:
            await hf.submit(kid(2.5), id="nobody's")
            await hf.submit(parent_of("nobody's", 2.5), id="a")
            await hf.submit(parent_of("a's", 1.5), id="b")
            await until(lambda: store.get("a's") is not None)
            await hf.submit(parent_of("a's", 1.5), id="c")
            await until(lambda: unloaded(store, "a"))
            assert await ended(store, "a", "b", "c") == ["done"] * 3

    asyncio.run(main())


def test_one_child_waited_for_twice(store: Store) -> None:
    @workflow(version="1")
    async def twice() -> list[float]:
        hf = holdfast.current()
        return list(await asyncio.gather(hf.run(kid(0.1), id="k"), hf.run(kid(0.1), id="k")))

    async def main() -> None:
        async with serving(store) as hf:
            await hf.submit(twice(), id="p")
            assert await ended(store, "p") == ["done"]

    asyncio.run(main())


def test_a_child_that_ends_while_its_parent_looks_for_something_else() -> None:
    """The look has counted that wake, and not read the child's row: the child came after it began."""
    store = MemoryStore()

    @workflow(version="1")
    async def both() -> float:
        signal = asyncio.create_task(holdfast.wait_for("never", str))
        found = await holdfast.current().run(kid(0.05), id="k")
        signal.cancel()
        return found

    async def main() -> None:
        held = Held(store, "wakes")
        async with serving(store) as hf:
            await hf.submit(both(), id="p")
            await until(held.there.is_set)
            await until(lambda: store.get("k") is not None and row_of(store, "k").status == "done")
            held.free.set()
            assert await ended(store, "p") == ["done"]

    asyncio.run(main())


@pytest.mark.parametrize("then", ["drained", "let go of"])
def test_it_is_not_let_go_of_before_its_child_stands(then: str) -> None:
    store = MemoryStore()
    held = Held(store, "get", lambda id: id == "k")

    async def main() -> None:
        async with serving(store) as hf:
            await hf.submit(parent_of("k", 0.01), id="p")
            await until(held.there.is_set)
            if then == "let go of":
                await asyncio.sleep(1.3)  # longer than a worker keeps a run that only waits
            asyncio.get_running_loop().call_later(0.1, held.free.set)
        async with serving(store):
            assert await ended(store, "p") == ["done"]

    asyncio.run(main())


def test_a_child_that_a_worker_parks_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = store.commit

    def of_other_code(batch: Any) -> Any:
        for row in batch.creates:
            row.inputs = b"\xc1" if row.id == "k" else row.inputs
        return commit(batch)

    async def main() -> None:
        monkeypatch.setattr(store, "commit", of_other_code)
        async with serving(store) as hf:
            await hf.submit(parent_of("k", 0), id="p")
            assert await ended(store, "p") == ["done"]
            assert row_of(store, "k").status == "parked"
            assert (await hf.get("p")).result == "CodecError"

    asyncio.run(main())


@pytest.mark.parametrize("where", ["here", "in a worker"])
def test_who_is_cancelled_elsewhere_begins_no_child(store: Store, where: str) -> None:
    """Until it hears of that it goes on, and may come to a child."""

    @workflow(version="1")
    async def late() -> float:
        await asyncio.sleep(0.3)
        return await holdfast.current().run(kid(0), id="k")

    async def main() -> None:
        async with serving(store) if where == "in a worker" else Holdfast(store) as hf:
            await (hf.submit if where == "in a worker" else hf.start)(late(), id="p")
            await until(lambda: hf._live.get("p") is not None and hf._live["p"].run is not None)
            assert store.cancel("p") is not None
            await until(lambda: not hf._live)
            child: RunRow | None = store.get("k")
            assert child is None or child.status == "cancelled"

    asyncio.run(main())


def test_nobody_waits_for_itself(hf: Holdfast) -> None:
    @workflow(version="1")
    async def selfish() -> None:
        await holdfast.current().run(selfish(), id="a")

    async def main() -> None:
        with pytest.raises(HoldfastError, match="would wait for itself"):
            await hf.run(selfish(), id="a")
        await hf.aclose()

    asyncio.run(main())


# -- rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a sleep of its own", "one of asyncio's"])
def test_what_rests_later_is_let_go_of_too(kind: str) -> None:
    """With one slot, the child would never be begun."""
    store = MemoryStore()

    @workflow(version="1")
    async def busy() -> float:
        child = asyncio.create_task(holdfast.current().run(kid(0), id="k"))
        await (holdfast.sleep(0.2) if kind == "a sleep of its own" else asyncio.sleep(0.2))
        return await child

    async def main() -> None:
        async with serving(store, concurrency=1) as hf:
            await hf.submit(busy(), id="p")
            assert await ended(store, "p") == ["done"]

    asyncio.run(main())


def test_a_run_that_has_ended_waits_for_nothing() -> None:
    store = MemoryStore()

    @workflow(version="1")
    async def first() -> str:
        waits = [asyncio.create_task(holdfast.wait_for("a", str)), asyncio.create_task(holdfast.sleep(0.01))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return "done"

    def left() -> list[LiveRun]:
        runs = [each for each in gc.get_objects() if type(each) is LiveRun]
        return [run for run in runs if getattr(run.home, "_store", None) is store]

    async def main() -> None:
        async with serving(store) as hf:
            await hf.submit(first(), id="a")
            assert await ended(store, "a") == ["done"]
            await until(lambda: not hf._lookout(asyncio.get_running_loop())._watched)
            await until(lambda: gc.collect() >= 0 and not left())

    asyncio.run(main())


def test_waiting_is_not_taken_for_trouble() -> None:
    """A run that is handed back for trouble is left alone for longer each time."""
    store = MemoryStore()

    @workflow(version="1")
    async def twice() -> None:
        for name in ("one", "two"):
            await holdfast.wait_for(name, str)

    async def main() -> None:
        async with serving(store) as hf:
            await hf.submit(twice(), id="a")
            for name in ("one", "two"):
                await until(lambda: unloaded(store, "a") and not hf._live)
                await hf.send("a", name, "x")
            assert await ended(store, "a") == ["done"]
            assert isinstance(worker := getattr(hf._heard, "__self__", None), Worker)
            assert worker._failed == {}

    asyncio.run(main())


# -- closing -------------------------------------------------------------------------------------------------


def test_what_comes_to_a_child_while_all_is_closed_has_not_failed() -> None:
    store = MemoryStore()

    @workflow(version="1")
    async def slow_to_end() -> None:
        try:
            await holdfast.wait_for("never", str)
        finally:
            await asyncio.sleep(0.4)

    @workflow(version="1")
    async def late() -> float:
        await holdfast.sleep(0.2)
        return await holdfast.current().run(kid(0), id="k")

    async def main() -> None:
        async with Holdfast(store) as hf:
            await hf.start(slow_to_end(), id="a")
            await hf.start(late(), id="p")
        assert row_of(store, "p").status in ("running", "waiting")
        async with Holdfast(store) as hf:
            assert await hf.run(late(), id="p") == 0

    asyncio.run(main())


def test_closing_gives_a_child_its_time_to_unwind(hf: Holdfast) -> None:
    """It is asked to leave twice: with its parent, and by itself."""
    unwound = []

    @workflow(version="1")
    async def tidy() -> None:
        try:
            await holdfast.wait_for("never", str)
        finally:
            await asyncio.sleep(0.2)
            unwound.append(True)

    @workflow(version="1")
    async def parent() -> None:
        await holdfast.current().run(tidy(), id="k")

    async def main() -> None:
        await hf.start(parent(), id="p")
        await until(lambda: hf._live.get("k") is not None and hf._live["k"].is_waiting)
        await hf.aclose()
        assert unwound == [True]

    asyncio.run(main())
