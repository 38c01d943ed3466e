"""The programs with maps and loops that the crash sweep is told."""

from __future__ import annotations

import asyncio
from typing import Any

import holdfast
from holdfast import StepFailed, step, workflow


@step
async def measure(name: str) -> int:
    await asyncio.sleep(0.001 * (len(name) % 3))
    holdfast.state["seen"].append(name)
    return len(name)


@step
def weigh(name: str) -> int:
    holdfast.state["seen"].append(name)
    return 10 * len(name)


async def describe(name: str) -> str:
    """Part of the plan: two steps, and what they found."""
    size = await measure(name)
    return f"{name}: {size}, {await asyncio.to_thread(weigh, name)}, {holdfast.now() >= begun()}"


def begun() -> Any:
    return holdfast.now()


@workflow(version="1")
async def mapping(names: list[str]) -> list[Any]:
    holdfast.state["seen"] = []
    sizes = await holdfast.map(measure, names, concurrency=3)
    weights = await holdfast.map(weigh, names, concurrency=2)
    described = await holdfast.map(describe, names, concurrency=2)
    return [sizes, weights, described, len(holdfast.state["seen"])]


@workflow(version="1")
def mapping_in_threads(names: list[str]) -> list[Any]:
    holdfast.state["seen"] = []
    hf = holdfast.current()
    return [hf.wait(holdfast.map(weigh, names)), sorted(holdfast.state["seen"]), weigh("end")]


@step
async def refuse(name: str) -> str:
    if name.startswith("bad"):
        raise ValueError(name)
    return name


@workflow(version="1")
async def collecting(names: list[str]) -> list[str]:
    """Failures that are results, beside another branch that goes on."""
    found, alone = await asyncio.gather(
        holdfast.map(refuse, names, failures="collect", concurrency=2), holdfast.map(refuse, ["a", "b"])
    )
    try:
        await holdfast.map(refuse, names, concurrency=1)
    except StepFailed as failure:
        alone.append(failure.message)
    return [each.message if isinstance(each, StepFailed) else each for each in found] + alone


# -- loops -----------------------------------------------------------------------------------------------------


@step
async def add(x: int) -> int:
    holdfast.state["total"] = holdfast.state.get("total", 0) + x
    return x


@step
def note(name: str) -> str:
    holdfast.state["notes"].append(name)
    return name


@workflow(version="1")
async def looping(turns: int) -> list[Any]:
    """State set by steps and by the body, before, in and behind a loop that a break ends."""
    holdfast.state["notes"] = ["begun"]
    notes = holdfast.state["notes"]
    async for turn in holdfast.each(range(100)):
        await add(turn)
        holdfast.state["last"] = turn
        holdfast.state["notes"].append(f"turn {turn}")
        if turn == turns:
            holdfast.state["notes"].append("broken off")
            break
        await asyncio.gather(measured(turn), add(0))
    await add(100)
    return [holdfast.state["total"], holdfast.state["last"], list(notes), [str(holdfast.random()), holdfast.run_id()]]


async def measured(turn: int) -> None:
    holdfast.state.setdefault("seen", [])
    await measure("x" * turn)


@workflow(version="1")
def looping_in_a_thread(names: list[str]) -> list[Any]:
    holdfast.state["notes"] = []
    for name in holdfast.each(names, key=str):
        for part in holdfast.each(name):
            note(part)
        holdfast.state["names"] = holdfast.state.get("names", 0) + 1
    return [list(holdfast.state["notes"]), holdfast.state["names"], note("end")]
