"""A run that changes its version in the middle, for crash sweeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holdfast
from holdfast import StepFailed, step, workflow
from holdfast.app import Holdfast

ID = "swept"
FOLDER = Path()


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


async def deployed(hf: Holdfast, old: Callable[[], Any], new: Callable[[], Any]) -> list[object]:
    """As one who deploys a new version after the old one failed; asked again, it does not go back."""
    try:
        run = await hf.get(ID)
    except holdfast.NotFound:
        run = None
    if run is None or (run.version == "1" and run.status != "failed"):
        try:
            await hf.run(old(), id=ID)
        except StepFailed:
            pass
    ended: list[object] = await hf.run(new(), id=ID)
    return ended


async def program(hf: Holdfast) -> list[object]:
    return await deployed(hf, first, second)


# -- with a step that is executed once -----------------------------------------------------------------------


def booked() -> list[str]:
    bank = FOLDER / "bank"
    return bank.read_text().splitlines() if bank.exists() else []


async def look(x: int) -> object:
    return f"receipt {x}" if str(x) in booked() else holdfast.NOT_DONE


@step(once=True, verify=look)
async def pay(x: int) -> str:
    with (FOLDER / "bank").open("a") as bank:
        bank.write(f"{x}\n")
    return f"receipt {x}"


async def paying(x: int) -> str:
    return await pay(x)


@workflow(name="paying", version=1)
async def paying_first() -> None:
    await asyncio.gather(paying(1), paying(2))
    await pay(3)
    await stop()


@workflow(name="paying", version=2)
async def paying_second() -> list[object]:
    """What was paid is paid elsewhere now, and something new besides."""
    receipts = [await pay(2), *await asyncio.gather(paying(3), paying(4)), await pay(1)]
    return [*receipts, sorted(booked())]


async def paying_program(hf: Holdfast) -> list[object]:
    global FOLDER
    store: Any = hf._store
    FOLDER = Path(store.path).parent
    return await deployed(hf, paying_first, paying_second)
