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
