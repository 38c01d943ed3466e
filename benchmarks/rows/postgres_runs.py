"""Many runs at once, each of sequential steps, on PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from measure import VALUE, Figure, Result, figure, ratios, rounded
from server import PostgresFloor, server

import holdfast
from holdfast import step, workflow

TITLE = "Many runs at once, on PostgreSQL"
FLOOR = (
    "The floor is how many 1 KB rows a second one committed `INSERT` after the other makes, through psycopg. The runs "
    "are started together, and their starts and ends are in the time."
)
HELD_BY = (
    "What holds it: the processor, which the runs' Python shares with the server here. The journal commits whatever is "
    "queued as one statement."
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
    figures: list[Figure] = []
    raw: dict[str, list[float]] = {}

    async def together(hf: holdfast.Holdfast, runs: int, steps: int, turn: int) -> float:
        """Microseconds a step."""
        start = time.perf_counter()
        await asyncio.gather(*(hf.run(pipeline(steps), id=f"{runs}-{turn}-{i}") for i in range(runs)))
        return (time.perf_counter() - start) * 1e6 / (runs * steps)

    async def main(url: str, floor: PostgresFloor) -> None:
        async with holdfast.open(url) as hf:
            for runs, steps in CASES:
                await together(hf, runs, steps, -1)
                base, ours = [], []
                for turn in range(2 if quick else 11):
                    base.append(floor.mean_us(300))
                    ours.append(await together(hf, runs, steps, turn))
                target = 6 if runs == 50 else None
                rates = ratios(base, ours)
                figures.append(
                    figure(f"{runs} runs: steps/s ÷ the floor's rows/s", rates, target=target, at_least=True)
                )
                figures.append(figure(f"{runs} runs: a step", ours, "µs"))
                raw.update({f"{runs}_step_us": rounded(ours), f"{runs}_floor_us": rounded(base)})

    with server(folder) as url:
        floor = PostgresFloor(url)
        floor.warm()
        asyncio.run(main(url, floor))
        floor.close()
    return Result(figures, raw)
