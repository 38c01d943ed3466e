"""Many runs at once, each of sequential steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from measure import VALUE, Figure, Floor, Result, SQLiteFloor, figure, ratios, rounded

import holdfast
from holdfast import step, workflow

TITLE = "Many runs at once"
FLOOR = (
    "The floor is how many 1 KB rows a second one committed `INSERT` after the other makes. The runs are started "
    "together, and their starts and ends are in the time: their steps meet in the journal, which commits whatever is "
    "queued as one statement."
)
HELD_BY = (
    "What holds it: the Python of a step on the loop's thread, the last figure of each case. The commits happen "
    "meanwhile, two halves of the runs in turns, but the committer needs the interpreter for a moment before and "
    "after each."
)

CASES = ((50, 60), (500, 20))  # runs, steps of each


@step
async def fetch(i: int) -> bytes:
    return VALUE


@workflow(version="1")
async def pipeline(steps: int) -> None:
    for i in range(steps):
        await fetch(i)


def measure(folder: Path, quick: bool) -> Result:
    return measured(SQLiteFloor(folder / "floor.db"), str(folder / "holdfast.db"), quick, targets={50: 4, 500: 4})


def measured(floor: Floor, url: str, quick: bool, *, targets: Mapping[int, float]) -> Result:
    """``targets``: by the number of runs."""
    figures: list[Figure] = []
    raw: dict[str, list[float]] = {}
    floor.warm()

    async def main() -> None:
        async with holdfast.open(url) as hf:
            for runs, steps in CASES:
                await _together(hf, runs, steps, -1)
                base, ours, loop = [], [], []
                for turn in range(2 if quick else 11):
                    base.append(floor.mean_us(300))
                    whole, busy = await _together(hf, runs, steps, turn)
                    ours.append(whole)
                    loop.append(busy)
                rates = ratios(base, ours)
                figures.extend(
                    [
                        figure(
                            f"{runs} runs: steps/s ÷ the floor's rows/s", rates, target=targets.get(runs), at_least=True
                        ),
                        figure(f"{runs} runs: a step", ours, "µs"),
                        figure(f"{runs} runs: of it, CPU time of the loop's thread", loop, "µs"),
                    ]
                )
                raw.update({f"{runs}_step_us": rounded(ours), f"{runs}_floor_us": rounded(base)})
                raw[f"{runs}_loop_us"] = rounded(loop)

    asyncio.run(main())
    floor.close()
    return Result(figures, raw)


async def _together(hf: holdfast.Holdfast, runs: int, steps: int, turn: int) -> tuple[float, float]:
    """Microseconds a step: in all, and on the loop's thread."""
    start, busy = time.perf_counter(), time.thread_time()
    await asyncio.gather(*(hf.run(pipeline(steps), id=f"{runs}-{turn}-{i}") for i in range(runs)))
    us = 1e6 / (runs * steps)
    return (time.perf_counter() - start) * us, (time.thread_time() - busy) * us
