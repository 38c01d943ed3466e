"""A run that changes its version in the middle, for crash sweeps."""

from __future__ import annotations

import asyncio

import holdfast
from holdfast import StepFailed, step, workflow
from holdfast.app import Holdfast

ID = "swept"


@step
async def fetch(x: int) -> int:
    holdfast.state["seen"].append(x)
    return x * 10


@step
async def add(x: int, y: int) -> int:
    return x + y


@step
async def stop() -> None:
    raise ConnectionError("away")


async def branch(x: int) -> int:
    return await add(await fetch(x), 1)


@workflow(name="swept", version=1)
async def first() -> list[int]:
    holdfast.state["seen"] = []
    found = await asyncio.gather(branch(1), branch(2))
    await holdfast.sleep(0.001)
    found.append(await fetch(3))
    await stop()
    return found


@workflow(name="swept", version=2)
async def second() -> list[object]:
    holdfast.state["seen"] = []
    found: list[object] = [await fetch(7), *await asyncio.gather(branch(2), branch(1))]
    await holdfast.sleep(0.001)
    return [*found, await fetch(3), sorted(holdfast.state["seen"])]


async def program(hf: Holdfast) -> list[object]:
    """As one who deploys a new version after the old one failed; asked again, it does not go back."""
    try:
        run = await hf.get(ID)
    except holdfast.NotFound:
        run = None
    if run is None or (run.version == "1" and run.status != "failed"):
        try:
            await hf.run(first(), id=ID)
        except StepFailed:
            pass
    return await hf.run(second(), id=ID)
