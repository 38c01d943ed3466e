"""Promises 4 and 5: each call keeps its place, and the recorded order is repeated.

Every program is run, cut after each of its checkpoints, and resumed with other timings, on asyncio and on uvloop.
A failure prints the line that replays it. ``make torture`` runs generated programs for as long as one asks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import programs
import pytest
from harness import Campaign, check, execute, on_loop, restored

import holdfast
from holdfast import clock, step, workflow
from holdfast.store.memory import MemoryStore

LOOPS = ["asyncio", "uvloop"]
GENERATED = 30
SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
CUTS = 6
AT_ONCE = 10


def campaign(name: str, seed: int) -> Campaign:
    if name == "generated":
        shown = repr(programs.tree_of(seed))
        return Campaign(name, lambda: programs.generated(seed), seed, shown=shown)
    return Campaign(name, next(made for made in programs.ZOO if made.__name__ == name), seed)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", [made.__name__ for made in programs.ZOO])
def test_a_program_repeats_its_record_at_every_cut(loop: str, name: str) -> None:
    on_loop(loop, campaign(name, SEED).through())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("first", range(0, GENERATED, AT_ONCE))
def test_generated_programs_repeat_their_record(loop: str, first: int) -> None:
    async def through() -> None:
        for seed in range(first, first + AT_ONCE):
            await campaign("generated", seed * 1000 + SEED).through(cuts=CUTS)

    on_loop(loop, through())


@pytest.mark.skipif("HOLDFAST_ORDER" not in os.environ, reason="HOLDFAST_ORDER=program:seed replays one")
@pytest.mark.parametrize("loop", LOOPS)
def test_replay(loop: str) -> None:
    name, _, seed = os.environ["HOLDFAST_ORDER"].partition(":")
    on_loop(loop, campaign(name, int(seed)).through())


@pytest.mark.parametrize("loop", LOOPS)
def test_runs_that_share_a_loop_do_not_disturb_each_other(loop: str) -> None:
    """Each resumes at its own cuts while the others run: their turns of the loop are not told apart."""
    names = ["worker_pool", "locks", "first_completed", "nested_steps", "shared_state", "hub_spawns"]

    async def through() -> None:
        async with asyncio.TaskGroup() as group:
            for k, name in enumerate(names):
                one = campaign(name, 50 + SEED)
                one.id = f"run {k}"
                group.create_task(one.through(cuts=6))

    on_loop(loop, through())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("depth", [1, 4, 9, 14])
def test_outcomes_come_up_through_deep_trees_before_the_next_is_delivered(loop: str, depth: int) -> None:
    """An outcome passes shield, gather, wait_for and as_completed at each level; the next must not overtake it."""
    on_loop(loop, Campaign(f"deep {depth}", lambda: programs.deep(depth), SEED).through(cuts=5))


class Jumping(clock.Clock):
    """A machine's clock that was set right in the middle of the run."""

    ms = 1_000

    def now_ms(self) -> int:
        return self.ms


@pytest.fixture
def jumping() -> Iterator[Jumping]:
    jumping = Jumping()
    with clock.replaced_by(jumping):
        yield jumping


@pytest.mark.parametrize("loop", LOOPS)
def test_time_in_the_body_does_not_follow_the_inside_of_other_calls(loop: str, jumping: Jumping) -> None:
    """What is inside a finished call is not lived through again, so nobody outside may see its times either."""

    @step(name="inner")
    async def inner() -> None:
        jumping.ms = 2_000

    @step(name="outer")
    async def outer() -> str:
        jumping.ms = 9_000  # when the inside of this step begins, and at no other time
        await inner()
        return await programs.parse("outer")

    @workflow(name="times", version="1")
    async def times() -> str:
        order: list[str] = []

        async def beside() -> None:
            for k in range(8):
                order.append(await programs.note(f"{k} {holdfast.now().timestamp()}"))

        await asyncio.gather(beside(), outer())
        return await programs.note(f"{len(order)} {holdfast.now().timestamp()}")

    async def through() -> None:
        first = await execute(times, "times", MemoryStore(clock=lambda: 1_000), 0)
        for cut in range(len(first.rows) + 1):
            check(first, cut, await execute(times, "times", restored(first, cut), 0))

    on_loop(loop, through())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_step_keeps_its_own_view_while_another_outcome_is_delivered(loop: str) -> None:
    gate: list[asyncio.Event] = []

    @step(name="slow")
    async def slow() -> list[str]:
        seen = holdfast.state["log"]
        seen.append("slow")
        await gate[-1].wait()
        return seen

    @step(name="quick")
    async def quick() -> None:
        holdfast.state["log"].append("quick")

    @workflow(name="views", version="1")
    async def views() -> list[list[str]]:
        async def beside() -> None:
            await quick()
            gate[-1].set()

        gate.append(asyncio.Event())
        assert holdfast.state["log"] == []  # the body has looked: what steps begin with is its live state
        saw, _ = await asyncio.gather(slow(), beside())
        return [saw, list(holdfast.state["log"])]

    async def through() -> None:
        first = await execute(views, "views", MemoryStore(), 0)
        assert (first.error, first.result) == (None, [["slow"], ["quick", "slow"]])
        for cut in range(len(first.rows) + 1):
            check(first, cut, await execute(views, "views", restored(first, cut), 0))

    on_loop(loop, through())
