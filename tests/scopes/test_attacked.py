"""What a resume must find behind folded turns: big states, steps executed once, what an attempt left, signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import Holdfast, HoldfastError, codec, step, workflow
from holdfast.errors import CodecError, Diverged
from holdfast.folding import Folding, Told, live_rows
from holdfast.recall import blank_row
from holdfast.store.memory import MemoryStore

BIG = 70_000  # a result of as many bytes leaves its row


class World:
    def __init__(self, stops_at: Any = None) -> None:
        self.stops_at = stops_at
        self.stopped = False
        self.done: list[Any] = []
        self.fails = True
        self.edited = False


world = World()


async def happen(what: Any) -> None:
    if what == world.stops_at:
        world.stopped = True
        await asyncio.Event().wait()
    world.done.append(what)


@step
async def work(what: Any) -> Any:
    await happen(what)
    return what


@step(once=True)
async def pay(whom: Any) -> str:
    await happen(f"paid {whom}")
    return str(whom)


async def lives(hf: Holdfast, call: Callable[[], Any], stops_at: Any) -> tuple[list[Any], Any, list[Any]]:
    """(what was done until it stopped within ``stops_at``, the result of the resume or its error, what that did)."""
    global world
    world = World(stops_at)
    task = asyncio.ensure_future(hf.run(call(), id="r"))
    while not world.stopped:
        assert not task.done(), task
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})
    first, world = world.done, World()
    world.fails, world.edited = False, True
    try:
        result = await hf.run(call(), id="r")
    except HoldfastError as error:
        result = error
    return first, result, world.done


def lived(call: Callable[[], Any], stops_at: Any) -> tuple[list[Any], Any, list[Any], MemoryStore]:
    store = MemoryStore()

    async def live() -> Any:
        async with Holdfast(store) as hf:
            return await lives(hf, call, stops_at)

    return *asyncio.run(live()), store


# -- big states ------------------------------------------------------------------------------------------------


@workflow(version="1")
async def growing() -> int:
    async for turn in holdfast.each(range(5)):
        holdfast.state["text"] = str(turn) * BIG
        await work(turn)
    return len(holdfast.state["text"])


def test_a_turn_that_changes_much_of_the_state_is_resumed_behind() -> None:
    first, result, second, _ = lived(growing, 3)
    assert (first, second) == ([0, 1, 2], [3, 4])
    assert result == BIG


# -- a turn that cannot be recorded ----------------------------------------------------------------------------


@workflow(version="1")
async def catching() -> str:
    """What its state is to hold cannot be stored, and the program goes past that."""
    try:
        async for turn in holdfast.each("ab"):
            await work(turn)
            if turn == "b" and world.fails:
                holdfast.state["bad"] = object()
    except CodecError:
        pass
    async for turn in holdfast.each("cdefg"):
        await work(turn)
    return "done"


def test_a_turn_that_cannot_be_recorded_loses_none_before_it() -> None:
    async def live() -> None:
        global world
        world = World()
        async with holdfast.open("memory://") as hf:
            with pytest.raises(CodecError, match="object"):
                await hf.run(catching(), id="r")
            assert world.done == ["a", "b"]
            world = World()
            world.fails = False
            assert await hf.run(catching(), id="r") == "done"
            assert world.done == list("cdefg")

    asyncio.run(live())


# -- attempts --------------------------------------------------------------------------------------------------


@step(attempts=2)
async def trying() -> str:
    async for turn in holdfast.each(range(5)):
        await pay(turn)
        if turn == 1 and world.fails:
            world.fails = False
            raise ValueError(turn)
        await work(turn)
    return "done"


@workflow(version="1")
async def tried() -> str:
    return await trying()


def test_what_an_attempt_left_in_a_turn_is_folded_with_it() -> None:
    first, result, second, _ = lived(tried, 3)
    assert first == ["paid 0", 0, "paid 1", 1, "paid 2", 2, "paid 3"]
    assert (result, second) == ("done", [3, "paid 4", 4])


# -- signals ---------------------------------------------------------------------------------------------------


def test_a_signal_in_a_loop_in_a_loop_is_told_once() -> None:
    rows = [blank_row(1, 1, kind="signal") for _ in range(2)]
    folding = Folding([])
    folding.open("outer", ())
    folding.open("outer > inner", ())
    for seq, row in enumerate(rows, start=1):
        row.seq, row.scope = seq, "outer > inner"
        row.result = codec.encode({"signal": seq, "value": ""}, codec.Types.none, "a signal")
        folding.numbered(row)
    folding.fold(folding.close("outer > inner"))
    folding.fold(folding.close("outer"))
    told = Told(1)
    folding.tell(told)
    assert (told.live, told.taken) == ([], [1, 2])


# -- once ------------------------------------------------------------------------------------------------------


@workflow(version="1")
async def another_loop_before() -> str:
    if world.edited:
        async for turn in holdfast.each("xyz"):
            await work(turn)
    async for turn in holdfast.each("abcd"):
        await pay(turn)
        await work(turn)
    return "done"


def test_a_finished_turn_does_not_stand_for_a_payment_that_it_never_asked_for() -> None:
    first, error, second, store = lived(another_loop_before, "c")
    assert first == ["paid a", "a", "paid b", "b", "paid c"]
    assert isinstance(error, Diverged) and "'c'" in str(error), error
    assert second == ["z"]
    rows, _ = live_rows(store, 1)
    assert rows is not None and "pay" in [row.name for row in rows], "whoever resumes knows of it still"


@workflow(version="1")
async def loop_taken_out() -> str:
    if not world.edited:
        async for turn in holdfast.each("abcd"):
            await pay(turn)
    await work("between")
    if world.edited:
        await pay("a")
    return "done"


def test_payments_in_turns_nobody_asks_for_stop_the_next_payment() -> None:
    first, error, second, _ = lived(loop_taken_out, "between")
    assert first == ["paid a", "paid b", "paid c", "paid d"]
    assert isinstance(error, Diverged) and "loop" in str(error), error
    assert second == ["between"]


@workflow(version="1")
async def paying_on() -> str:
    async for turn in holdfast.each("aab"):
        await pay(turn)
    await work("between")
    return await pay("a")


def test_the_same_payment_in_turns_and_behind_them_is_one_of_its_own() -> None:
    first, result, second, _ = lived(paying_on, "between")
    assert first == ["paid a", "paid a", "paid b"]
    assert (result, second) == ("a", ["between", "paid a"])


@workflow(version="1")
async def keyed_since() -> None:
    async for turn in holdfast.each("abcd", key=str if world.edited else None):
        await work(turn)


def test_turns_that_are_known_otherwise_than_they_were_are_not_gone_through_again() -> None:
    first, error, second, _ = lived(keyed_since, "c")
    assert first == ["a", "b"] and second == []
    assert isinstance(error, Diverged) and "key=" in str(error)


async def item(name: str) -> None:
    async for turn in holdfast.each(range(2)):
        await pay(f"{name}{turn}")


@workflow(version="1")
async def mapping_in_turns() -> str:
    async for turn in holdfast.each(range(3)):
        await holdfast.map(item, [f"{turn}x"])
        await work(turn)
    return "done"


def test_a_recalled_item_stands_for_the_payments_inside_it() -> None:
    first, result, second, _ = lived(mapping_in_turns, 0)
    assert first == ["paid 0x0", "paid 0x1"]
    assert (result, second) == ("done", [0, "paid 1x0", "paid 1x1", 1, "paid 2x0", "paid 2x1", 2])
