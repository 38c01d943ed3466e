"""``map``: each item is a call of its own, known by its key, whatever becomes of the list."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import Holdfast, HoldfastError, StateConflict, StepFailed, step, workflow
from holdfast.recall import Records
from holdfast.store.memory import MemoryStore


class World:
    """What is outside of the run: what exists there, what was done to it, what holds it up."""

    def __init__(self, names: str) -> None:
        self.names = names.split()
        self.done: list[str] = []
        self.at_once = self.most_at_once = 0
        self.stuck: set[str] = set()  # these never end
        self.reached = asyncio.Event()  # all that is stuck is under way, and nothing else is
        self.broken: set[str] = set()

    def quiet(self) -> bool:
        return self.at_once == len(self.stuck)


world: World


@step
async def handle(name: str) -> str:
    world.at_once += 1
    world.most_at_once = max(world.at_once, world.most_at_once)
    try:
        if name in world.stuck:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        world.done.append(name)
        if name in world.broken:
            raise ValueError(name)
        return name.upper()
    finally:
        world.at_once -= 1


@workflow(version="1")
async def handling(concurrency: int = 3) -> list[str]:
    return await holdfast.map(handle, world.names, concurrency=concurrency)


async def stopped(hf: Holdfast, call: Any, *, after: Callable[[], bool]) -> None:
    """Begin a run, and unload it when ``after`` says so."""
    task = asyncio.ensure_future(hf.run(call, id="r"))
    while not after():
        assert not task.done()
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})


def lives(names: str, stuck: str, names_then: str, **options: Any) -> tuple[list[str], list[str]]:
    """(the result, what the second life executed) of a run that ended while these were stuck."""
    global world
    world = World(names)
    world.stuck = set(stuck.split())
    finished = len(world.names) - len(world.stuck)

    async def both() -> list[str]:
        global world
        async with Holdfast(MemoryStore()) as hf:
            await stopped(hf, handling(**options), after=lambda: len(world.done) == finished and world.quiet())
            world = World(names_then)
            return await hf.run(handling(**options), id="r")

    return asyncio.run(both()), world.done


def test_results_in_order_and_so_many_at_once() -> None:
    global world
    world = World("a b c d e f g")
    result = asyncio.run(run_in_memory(handling(3)))
    assert result == list("ABCDEFG") and world.most_at_once == 3


async def run_in_memory(call: Any) -> Any:
    async with holdfast.open("memory://") as hf:
        return await hf.run(call, id="r")


def test_holes_are_filled() -> None:
    assert lives("a b c d e f", "b d", "a b c d e f") == (list("ABCDEF"), ["b", "d"])


def test_an_item_that_is_added_shifts_nothing() -> None:
    assert lives("b d e f", "e", "a b c d e f") == (list("ABCDEF"), ["a", "c", "e"])


def test_an_item_that_is_removed_shifts_nothing_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_for: list[Any] = []
    monkeypatch.setattr(Records, "give_up", lambda self, row: waited_for.append(self._missing.pop()))
    assert lives("a b c d e f", "d", "b d f g") == (list("BDFG"), ["d", "g"])
    assert not waited_for


def test_another_order_is_the_same_work() -> None:
    assert lives("a b c d e f", "d", "f e d c b a") == (list("FEDCBA"), ["d"])


def test_fewer_at_once() -> None:
    assert lives("a b c d e f", "a c", "a b c d e f", concurrency=6)[1] == ["a", "c"]


def test_the_same_item_twice_is_done_twice() -> None:
    assert lives("a b a c a", "c", "a b a c a a")[1] == ["c", "a"]


# -- what an item is known by ----------------------------------------------------------------------------------


@step
async def size(page: dict[str, Any]) -> int:
    return len(page["text"])


PAGES = [{"name": "x", "text": "one"}, {"name": "y", "text": "three"}]


@workflow(version="1")
async def sizing(same: bool) -> list[int]:
    return await holdfast.map(size, PAGES, key=lambda page: "same" if same else str(page["name"]))


def test_a_key_of_ones_own_is_seen_in_the_history() -> None:
    async def main() -> list[str | None]:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(sizing(False), id="r") == [3, 5]
            return [each.key for each in await hf.history("r")]

    assert sorted(map(str, asyncio.run(main()))) == ["x", "y"]


def test_two_items_of_one_key_are_refused() -> None:
    with pytest.raises(HoldfastError, match="items 0 and 1 have the same key 'same'"):
        asyncio.run(run_in_memory(sizing(True)))


def test_a_key_that_is_none() -> None:
    with pytest.raises(HoldfastError, match="non-empty str"):
        holdfast.map(size, PAGES, key=lambda page: "")


def test_options_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        holdfast.map(size, PAGES, concurrency=0)
    with pytest.raises(ValueError, match="failures"):
        holdfast.map(size, PAGES, failures="ignore")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="lambda"):
        holdfast.map(lambda page: page, PAGES)


# -- failures --------------------------------------------------------------------------------------------------


def test_after_a_failure_nothing_begins_and_what_is_in_flight_is_finished() -> None:
    global world
    world = World("a b c d e f")
    world.broken = {"a"}

    async def main() -> str:
        global world
        async with holdfast.open("memory://") as hf:
            with pytest.raises(StepFailed, match="handle failed with ValueError: a"):
                await hf.run(handling(2), id="r")
            assert set(world.done) < set("abcd") and "b" in world.done
            before, world = set(world.done), World("a b c d e f")
            result = await hf.run(handling(2), id="r")
            assert set(world.done) == set("abcdef") - before | {"a"}, "only the failure is tried anew"
            return "".join(result)

    assert asyncio.run(main()) == "ABCDEF"


def test_all_failures_are_tried_anew_at_once() -> None:
    global world
    world = World("a b c")
    world.broken = {"a", "b", "c"}

    async def main() -> list[str]:
        global world
        async with holdfast.open("memory://") as hf:
            with pytest.raises(StepFailed):
                await hf.run(handling(3), id="r")
            world = World("a b c")
            return await hf.run(handling(3), id="r")

    assert asyncio.run(main()) == ["A", "B", "C"]


@workflow(version="1")
async def tolerant() -> list[str]:
    found = await holdfast.map(handle, world.names, failures="collect")
    return [each.message if isinstance(each, StepFailed) else each for each in found]


def test_failures_that_are_collected_are_recalled() -> None:
    global world
    world = World("a b c")
    world.broken = {"b"}

    async def main() -> list[str]:
        global world
        async with holdfast.open("memory://") as hf:
            first = await hf.run(tolerant(), id="r")
            world = World("a b c")
            fork = await hf.fork("r", at=3, new_id="f")
            assert first == await hf.run(tolerant(), id=fork.id) and world.done == []
            return first

    assert asyncio.run(main()) == ["A", "b", "C"]


def test_a_timeout_around_a_map_ends_its_items() -> None:
    global world
    world = World("a b c")
    world.stuck = {"a", "b", "c"}

    @workflow(version="1")
    async def hurried() -> str:
        try:
            await asyncio.wait_for(holdfast.map(handle, world.names), 0.05)
        except TimeoutError:
            return f"{world.at_once} left"
        return "done"

    assert asyncio.run(run_in_memory(hurried())) == "0 left"


# -- state, time, threads --------------------------------------------------------------------------------------


@step
async def count_up(name: str) -> None:
    holdfast.state["count"] = holdfast.state.get("count", 0) + 1


@step
async def see(name: str) -> int:
    holdfast.state.setdefault("table", {})[name] = 1
    return len(holdfast.state["table"])


@workflow(version="1")
async def stateful(counts: bool) -> list[Any]:
    holdfast.state["table"] = {}
    if counts:
        await holdfast.map(count_up, "ab", concurrency=1)
    return [await holdfast.map(see, "abcd", concurrency=1), len(holdfast.state["table"])]


def test_items_begin_with_the_state_as_it_was_when_the_map_began() -> None:
    assert asyncio.run(run_in_memory(stateful(False))) == [[1, 1, 1, 1], 4]


def test_a_lost_update_between_items_is_a_conflict_however_few_run_at_once() -> None:
    with pytest.raises(StateConflict):
        asyncio.run(run_in_memory(stateful(True)))


@step
def in_thread(name: str) -> bool:
    return threading.current_thread() is not threading.main_thread()


def inner(name: str) -> list[bool]:
    hf = holdfast.current()
    return hf.wait(holdfast.map(in_thread, "xyz", concurrency=2))


@workflow(version="1")
async def threads_in_threads() -> list[list[bool]]:
    return await holdfast.map(inner, [str(number) for number in range(12)], concurrency=12)


def test_maps_in_threads_of_maps_do_not_wait_for_each_others_threads() -> None:
    assert asyncio.run(run_in_memory(threads_in_threads())) == [[True] * 3] * 12


class Scaler:
    def __init__(self, by: int) -> None:
        self.by = by

    @step
    async def scaled(self, x: int) -> int:
        return self.by * x

    async def twice(self, x: int) -> int:
        return 2 * await self.scaled(x)


@workflow(version="1")
async def methods() -> list[list[int]]:
    scaler = Scaler(3)
    return [await holdfast.map(scaler.scaled, [1, 2]), await holdfast.map(scaler.twice, [1, 2])]


def test_methods() -> None:
    assert asyncio.run(run_in_memory(methods())) == [[3, 6], [6, 12]]


# -- outside a run ---------------------------------------------------------------------------------------------


def test_outside_a_run_it_works_plainly() -> None:
    global world
    world = World("a b c d")
    world.broken = {"c"}
    assert asyncio.run(holdfast.map(in_thread, "xy")) == [True, True]
    with pytest.raises(ValueError, match="c"):
        asyncio.run(holdfast.map(handle, world.names, concurrency=2))
    assert world.most_at_once == 2
    found = asyncio.run(holdfast.map(handle, world.names, failures="collect"))
    assert [str(each) for each in found] == ["A", "B", "handle failed with ValueError: c", "D"]
