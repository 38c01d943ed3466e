"""Ten thousand items through ``map``."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from measure import Result, SQLiteFloor, figure, ratios, rounded

import holdfast
from holdfast import step, workflow

TITLE = "10,000 items through map"
FLOOR = (
    "A map over 10,000 numbers, 8 at a time, whose step returns what it was given; each outcome is committed before "
    "its item counts as done. The floor is how many 1 KB rows a second one committed `INSERT` after the other makes, "
    "measured before each."
)
HELD_BY = (
    "What holds it: outcomes are delivered one at a time, each after the code woken by the one before has come to "
    "rest, so that a resume can repeat their order; and with 8 at a time few of them share a commit."
)

ITEMS = 10_000


@step
async def same(number: int) -> int:
    return number


@workflow(version="1")
async def mapped() -> int:
    return len(await holdfast.map(same, range(ITEMS)))


def measure(folder: Path, quick: bool) -> Result:
    floor = SQLiteFloor(folder / "floor.db")
    floor.warm()
    base: list[float] = []
    ours: list[float] = []

    async def main() -> None:
        async with holdfast.open(folder / "holdfast.db") as hf:
            for turn in range(1 if quick else 5):
                base.append(floor.mean_us(1_000))
                start = time.perf_counter()
                assert await hf.run(mapped(), id=f"m{turn}") == ITEMS
                ours.append((time.perf_counter() - start) / ITEMS * 1e6)

    asyncio.run(main())
    floor.close()
    return Result(
        [
            figure("items a second", [1e6 / each for each in ours], "", 2_000.0, at_least=True),
            figure("items/s ÷ the floor's rows/s", ratios(base, ours)),
            figure("an item", ours, "µs"),
            figure("the floor, a row", base, "µs"),
        ],
        {"item_us": rounded(ours), "floor_us": rounded(base)},
    )
