"""One durable step after another, in one run."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from measure import VALUE, WARM, Floor, Result, figure, ratios, rounded

import holdfast
from holdfast import step, workflow

TITLE = "One durable step with a 1 KB result"
FLOOR = (
    "The floor is one committed `INSERT` of the same 1 KB. A step is that, and the call's place, fingerprint and "
    "preview, a row of 21 columns under a fence, and two changes of threads: the event loop does no disk I/O."
)
HELD_BY = (
    "What holds it: two wake-ups of a thread (about an eighth of the floor, see the journal's figures in the history "
    "of this page's row) and the Python of one step, which runs about twice as slowly on a processor that has just "
    "slept through a commit as in a tight loop."
)

GROUP = 40  # of each side in turn


@step
async def fetch(i: int) -> bytes:
    return VALUE


def measure(folder: Path, quick: bool) -> Result:
    floor = Floor(folder / "floor.db")
    floor.warm()
    base: list[float] = []
    ours: list[float] = []

    @workflow(version="1")
    async def pipeline(rounds: int) -> None:
        for i in range(WARM):
            await fetch(i)
        for _ in range(rounds):
            base.append(floor.median_us(GROUP))
            times = []
            for i in range(GROUP):
                start = time.perf_counter()
                await fetch(i)
                times.append(time.perf_counter() - start)
            ours.append(statistics.median(times) * 1e6)

    async def main() -> None:
        async with holdfast.open(folder / "holdfast.db") as hf:
            await hf.run(pipeline(5 if quick else 101), id="one")

    asyncio.run(main())
    floor.close()
    return Result(
        [
            figure("a step ÷ the floor", ratios(ours, base), target=1.4),
            figure("a step", ours, "µs"),
            figure("the floor", base, "µs"),
        ],
        {"step_us": rounded(ours), "floor_us": rounded(base)},
    )
