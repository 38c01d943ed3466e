"""One step that is executed once after another, in one run: its intent and its outcome are a commit each."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from measure import VALUE, WARM, Result, SQLiteFloor, figure, microseconds, ratios, rounded

import holdfast
from holdfast import step, workflow

TITLE = "One step that is executed once, with a 1 KB result"
FLOOR = (
    "The floor is two committed `INSERT`s of the same 1 KB, one after the other: before such a step begins its intent "
    "is durable, and its outcome before the next line. The second figure compares it with an ordinary step."
)
HELD_BY = (
    "What holds it: two commits are the promise. What they cost beyond two steps is the intent's row, and the search "
    "for what took effect before and has not been asked for again."
)

GROUP = 40  # of each side in turn


@step
async def fetch(i: int) -> bytes:
    return VALUE


@step(once=True)
async def send(i: int) -> bytes:
    return VALUE


def measure(folder: Path, quick: bool) -> Result:
    floor = SQLiteFloor(folder / "floor.db")
    rounds: dict[str, list[float]] = {"once_us": [], "step_us": [], "floor_us": []}

    @workflow(version="1")
    async def pipeline(count: int) -> None:
        floor.warm()
        for _ in range(WARM):
            await fetch(0)
            await send(0)
        for _ in range(count):
            rounds["floor_us"].append(2 * floor.median_us(2 * GROUP))
            for name, work in (("once_us", send), ("step_us", fetch)):
                rounds[name].append(statistics.median([await microseconds(lambda w=work: w(0)) for _ in range(GROUP)]))

    async def main() -> None:
        async with holdfast.open(folder / "holdfast.db") as hf:
            await hf.run(pipeline(5 if quick else 101), id="one")

    asyncio.run(main())
    floor.close()
    once_us, step_us, floor_us = rounds["once_us"], rounds["step_us"], rounds["floor_us"]
    return Result(
        [
            figure("a step that is executed once ÷ two `INSERT`s", ratios(once_us, floor_us)),
            figure("a step that is executed once ÷ an ordinary step", ratios(once_us, step_us)),
            figure("a step that is executed once", once_us, "µs"),
            figure("two `INSERT`s", floor_us, "µs"),
        ],
        {name: rounded(times) for name, times in rounds.items()},
    )
