"""``each``: finished turns are not gone through again, nor read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import holdfast
from holdfast import Holdfast, HoldfastError, branches, step, workflow
from holdfast.folding import live_rows
from holdfast.state import replay
from holdfast.store import Checkpoint
from holdfast.store.memory import MemoryStore


class Counting(MemoryStore):
    """Counts the checkpoints that are read."""

    read = 0
    resuming = False

    def load(self, run_no: int, **which: Any) -> list[Checkpoint]:
        rows = super().load(run_no, **which)
        self.read += len(rows) * self.resuming
        return rows


class World:
    def __init__(self, names: str = "", stops_at: str = "") -> None:
        self.names = names.split()
        self.stops_at = stops_at
        self.turns: list[Any] = []  # begun
        self.done: list[Any] = []  # executed


world = World()


@step
async def handle(name: Any) -> str:
    if str(name) == world.stops_at:
        world.turns.append("stopped")
        await asyncio.Event().wait()
    world.done.append(name)
    holdfast.state["handled"] = holdfast.state.get("handled", 0) + 1
    return str(name).upper()


@workflow(version="1")
async def numbered() -> int:
    async for name in holdfast.each(world.names):
        world.turns.append(name)
        await handle(name)
    return int(holdfast.state["handled"])


@workflow(version="1")
async def keyed() -> int:
    async for name in holdfast.each(world.names, key=str):
        world.turns.append(name)
        await handle(name)
    return int(holdfast.state["handled"])


async def until_stopped(hf: Holdfast, call: Any) -> None:
    task = asyncio.ensure_future(hf.run(call, id="r", state={"log": ["given"]}))
    while "stopped" not in world.turns:
        assert not task.done(), task
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})


def lives(call: Callable[[], Any], first: World, second: World) -> tuple[Any, World, Counting]:
    """(the result, what the second life lived through, the store) where the first stopped within a step."""
    store = Counting()

    async def both() -> Any:
        global world
        async with Holdfast(store) as hf:
            world = first
            await until_stopped(hf, call())
            world, store.resuming = second, True
            result = await hf.run(call(), id="r")
            store.resuming = False
            return result

    return asyncio.run(both()), second, store


@workflow(version="1")
async def asking() -> list[str]:
    holdfast.state["got"] = []
    async for name in holdfast.each(world.names):
        holdfast.state["got"].append(await holdfast.wait_for("word", str))
        await handle(name)
    frame = branches.current_frame()
    assert frame is not None and frame.run.pool is None, "no earlier attempt is looked into"
    return list(holdfast.state["got"])


def test_a_signal_that_a_finished_turn_took_is_not_taken_again() -> None:
    async def both() -> Any:
        global world
        async with Holdfast(MemoryStore()) as hf:
            world = World("a b c d e", "d")
            stopped = asyncio.ensure_future(until_stopped(hf, asking()))
            while not await hf.runs():
                await asyncio.sleep(0.001)
            for word in ("one", "two", "three", "four", "five"):
                await hf.send("r", "word", word)
            await stopped
            world = World("a b c d e")
            return await hf.run(asking(), id="r")

    assert asyncio.run(both()) == ["one", "two", "three", "four", "five"]
    assert world.done == ["d", "e"]


def test_finished_turns_are_skipped() -> None:
    result, second, _ = lives(numbered, World("a b c d e", "d"), World("a b c d e"))
    assert result == 5 and second.turns == second.done == ["d", "e"]


@pytest.mark.parametrize(
    ("then", "turns"),
    [
        ("a b c d e", "d e"),
        ("x a b c d e", "x d e"),
        ("b c d e", "d e"),
        ("x b c d e", "x d e"),
        ("e d c b a", "e d"),
        ("a a b c d", "a d"),
    ],
    ids=["the same", "one more", "one less", "another one", "backwards", "one twice"],
)
def test_with_keys_other_items_shift_nothing(then: str, turns: str) -> None:
    _, second, store = lives(keyed, World("a b c d e", "d"), World(then))
    assert second.turns == second.done == turns.split()

    async def once_more() -> None:
        global world
        world = World(then)
        async with Holdfast(store) as hf:
            fork = await hf.fork("r", at=len(store.load(1)), new_id="f")
            await hf.run(keyed(), id=fork.id)

    asyncio.run(once_more())
    assert world.turns == [], "turns finished in another order than that of the items are finished"


def test_a_resume_reads_a_handful_of_rows_however_many_turns_there_were() -> None:
    names = [f"n{number}" for number in range(120)]
    first, second = World(stops_at="n119"), World()
    first.names = second.names = names
    result, _, store = lives(numbered, first, second)
    assert result == 120 and second.turns == ["n119"]
    assert len(store.load(1)) == 240 and 0 < store.read <= 50


@workflow(version="1")
async def logging() -> list[str]:
    """The state grows with the turns; the body has changed it before them, too."""
    holdfast.state["log"].append("begun")
    async for name in holdfast.each(world.names):
        holdfast.state["log"].append(await handle(name))
    return list(holdfast.state["log"])


def test_state_that_grows_is_what_it_was() -> None:
    names = [f"n{number}" for number in range(60)]
    first, second = World(stops_at="n50"), World()
    first.names = second.names = names
    result, _, store = lives(logging, first, second)
    assert result == ["given", "begun", *(name.upper() for name in names)]
    row = store.get("r")
    assert row is not None
    state = replay(row, store.load(row.no)).state
    assert state == {"log": result, "handled": 60}, "as whoever reads all rows arrives at it"


def test_what_is_live_is_a_part_of_what_is_there() -> None:
    names = [f"n{number}" for number in range(60)]
    first, second = World(stops_at="n50"), World()
    first.names = second.names = names
    _, _, store = lives(numbered, first, second)
    rows, is_part = live_rows(store, 1)
    assert is_part and rows is not None and len(rows) < 20 and rows[-1].seq == len(store.load(1))
    gone = rows[0].seq
    del store._data.checkpoints[1][gone]
    assert live_rows(store, 1) == (None, True), "then all is read, and what is missing is told"


# -- a loop beside others --------------------------------------------------------------------------------------


@step
async def append(what: str) -> None:
    await asyncio.sleep(0)
    holdfast.state["log"].append(what)


async def loop(name: str) -> None:
    async for turn in holdfast.each(range(4)):
        await append(f"{name}{turn}")
        if turn == 2 and name == "q":
            await handle(name)


@workflow(version="1")
async def beside() -> list[str]:
    holdfast.state["log"] = []
    await asyncio.gather(loop("p"), loop("q"))
    return list(holdfast.state["log"])


def test_loops_side_by_side_leave_the_state_in_the_recorded_order() -> None:
    result, _, store = lives(beside, World(stops_at="q"), World())
    assert sorted(result) == [f"{name}{turn}" for name in "pq" for turn in range(4)]
    rows = store.load(1)
    recorded = ["p" if row.branch.startswith("loop#0") else "q" for row in rows if row.kind == "turn"]
    assert [name[0] for name in result] == recorded


# -- the guard -------------------------------------------------------------------------------------------------


@workflow(version="1")
async def summing() -> int:
    total = 0
    async for name in holdfast.each(["a", "b"]):
        total += len(await handle(name))
    return total


@workflow(version="1")
async def gathering() -> list[str]:
    found: list[str] = []
    async for name in holdfast.each(["a", "b"]):
        found.append(await handle(name))
    return found


@workflow(version="1")
async def tallying() -> dict[str, int]:
    tally = {"handled": 0}
    async for name in holdfast.each(["a", "b"]):
        tally["handled"] += len(await handle(name))
    return tally


@workflow(version="1")
async def reaching_past() -> None:
    holdfast.state["log"] = []
    log = holdfast.state["log"]
    async for name in holdfast.each(["a", "b"]):
        log.append(await handle(name))


@workflow(version="1")
async def harmless() -> list[Any]:
    name, size, flag = "before", 3, True
    async for name, size in holdfast.each([("a", 1), ("b", 2)]):  # noqa: B007
        flag = True
        length = len(await handle(name))
        length += 1
    return [name, size, flag]


async def alone(call: Any) -> Any:
    async with holdfast.open("memory://") as hf:
        return await hf.run(call, id="r")


@pytest.mark.parametrize(
    ("call", "told"), [(summing, "rebound 'total'"), (gathering, "changed 'found'"), (reaching_past, "changed 'log'")]
)
def test_a_local_from_before_the_loop_must_not_change(call: Any, told: str) -> None:
    global world
    world = World()
    with pytest.raises(HoldfastError, match=told):
        asyncio.run(alone(call()))
    assert world.done == ["a"]


def test_the_names_a_loop_binds_itself_are_free() -> None:
    global world
    world = World()
    assert asyncio.run(alone(harmless())) == ["b", 2, True]


@step
def plainly(name: str) -> str:
    return name


@workflow(version="1")
async def in_two_loops() -> str:
    async for name in holdfast.each(["a", "b"]):
        told = await handle(name)
        for _ in range(2):
            async for other in holdfast.each(["c", "d"]):
                inner = await handle(name + other)
                inner += "!"
    async for name in holdfast.each(["e", "f"]):
        told = await handle(name)
        if told:
            inner = "rebound"
    return f"{told} {inner}"


@workflow(version="1")
def in_two_plain_loops() -> str:
    for name in holdfast.each(["a", "b"]):
        told = plainly(name)
    for name in holdfast.each(["c", "d"]):
        told = plainly(name)
    return told


@workflow(version="1")
async def behind_a_break() -> None:
    async for name in holdfast.each(["a", "b"]):
        told = await handle(name)
        break
    async for name in holdfast.each(["c", "d"]):
        told = await handle(name)
        del told


@workflow(version="1")
async def bound_between() -> None:
    async for name in holdfast.each(["a", "b"]):
        told = await handle(name)
    told = "".join(["b"])
    async for name in holdfast.each(["c", "d"]):
        told = await handle(name)
        assert told


@pytest.mark.parametrize(
    ("call", "ends"), [(in_two_loops, "F rebound"), (in_two_plain_loops.bind, "d")], ids=["async", "plain"]
)
def test_what_turns_have_left_bound_a_later_loop_may_bind_anew(call: Any, ends: str) -> None:
    global world
    world = World()
    assert asyncio.run(alone(call())) == ends


@workflow(version="1")
async def bound_behind_it_in_a_loop_around() -> None:
    rounds = 0
    while rounds < 2:
        async for name in holdfast.each(["c", "d"]):
            told = await handle(name)
        rounds += 1
        told = "".join(["b"])
    assert told


@pytest.mark.parametrize("call", [behind_a_break, bound_between, bound_behind_it_in_a_loop_around])
def test_what_a_resume_would_find_bound_it_may_not(call: Any) -> None:
    global world
    world = World()
    with pytest.raises(HoldfastError, match=r"'told', which was bound before"):
        asyncio.run(alone(call()))
    assert world.done[-1] == "c"


@workflow(version="1")
async def comprehending() -> list[str]:
    return [await handle(name) async for name in holdfast.each(["a", "b"])]


@workflow(version="1")
async def generating() -> list[str]:
    async def handled() -> AsyncIterator[str]:
        async for name in holdfast.each(["a", "b"]):
            yield await handle(name)

    return [name async for name in handled()]


@workflow(version="1")
def counting() -> int:
    return sum(number for number, _ in enumerate(holdfast.each(["a", "b"])))


@workflow(version="1")
def listing() -> list[str]:
    return list(holdfast.each(["a", "b"]))


@pytest.mark.parametrize("call", [comprehending, generating, counting.bind, listing.bind])
def test_what_hands_on_the_items_of_a_loop_is_refused(call: Any) -> None:
    global world
    world = World()
    with pytest.raises(HoldfastError, match="would hand on less"):
        asyncio.run(alone(call()))
    assert world.done == []


def test_a_task_must_end_in_its_turn() -> None:
    @workflow(version="1")
    async def leaving() -> None:
        async for name in holdfast.each(["a", "b"]):
            holdfast.state["turn"] = name
            task = asyncio.create_task(handle(name), name="left behind")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    global world
    world = World(stops_at="a")
    with pytest.raises(HoldfastError, match="left behind"):
        asyncio.run(alone(leaving()))


# -- leaving a loop --------------------------------------------------------------------------------------------


@workflow(version="1")
async def left_by_an_exception() -> list[Any]:
    holdfast.state["log"] = []
    log = holdfast.state["log"]
    try:
        async for name in holdfast.each(["a", "b"]):
            holdfast.state["log"].append(await handle(name))
            if name == "b":
                raise LookupError(name)
    except LookupError:
        await handle("behind")
    return [log, [row.scope for row in await holdfast.current().history("r") if row.name == "handle"]]


def test_behind_the_loop_the_scope_is_the_one_before_it() -> None:
    global world
    world = World()
    log, scopes = asyncio.run(alone(left_by_an_exception()))
    assert log == ["A", "B"]
    assert scopes == ["each#0: turn#0", "each#0: turn#1", ""]


def test_outside_a_run_it_is_a_plain_loop() -> None:
    async def doubled() -> list[int]:
        total = 0
        async for number in holdfast.each([1, 2]):
            total += number
        return [total, *[2 * each async for each in holdfast.each([1, 2])]]

    assert asyncio.run(doubled()) == [3, 2, 4]
    assert list(holdfast.each([1, 2], key=str)) == [1, 2]


def test_a_plain_for_in_an_async_workflow_is_refused() -> None:
    @workflow(version="1")
    async def blocking() -> None:
        for _ in holdfast.each([1]):
            pass

    with pytest.raises(HoldfastError, match="async for"):
        asyncio.run(alone(blocking()))
