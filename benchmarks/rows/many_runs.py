"""Many runs at once, each of sequential steps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from measure import VALUE, Figure, Floor, Result, figure, ratios, rounded

import holdfast
from holdfast import step, workflow

TITLE = "Many runs at once"
FLOOR = (
    "The floor is how many 1 KB rows a second one committed `INSERT` after the other makes. The runs are started "
    "together, and their starts and ends are in the time: their steps meet in the journal, which commits whatever is "
    "queued as one statement."
)
HELD_BY = (
    "What holds it: about half of a step's time is its Python on the loop's thread, as measured with the "
    "journal left out. The rest was not taken apart. Letting the committer begin sooner, with a smaller batch, "
    "was tried and gained nothing."
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
    floor = Floor(folder / "floor.db")
    floor.warm()
    figures: list[Figure] = []
    raw: dict[str, list[float]] = {}

    async def together(hf: holdfast.Holdfast, runs: int, steps: int, turn: int) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(hf.run(pipeline(steps), id=f"{runs}-{turn}-{i}") for i in range(runs)))
        return (time.perf_counter() - start) * 1e6 / (runs * steps)

    async def main() -> None:
        async with holdfast.open(folder / "holdfast.db") as hf:
            for runs, steps in CASES:
                await together(hf, runs, steps, -1)
                base, ours = [], []
                for turn in range(2 if quick else 11):
                    base.append(floor.mean_us(300))
                    ours.append(await together(hf, runs, steps, turn))
                figures.append(
                    figure(f"{runs} runs: steps/s ÷ the floor's rows/s", ratios(base, ours), target=4, at_least=True)
                )
                figures.append(figure(f"{runs} runs: a step", ours, "µs"))
                raw.update({f"{runs}_step_us": rounded(ours), f"{runs}_floor_us": rounded(base)})

    asyncio.run(main())
    floor.close()
    return Result(figures, raw)
