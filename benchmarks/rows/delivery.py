"""Short workflows, recall, and outcomes delivered in order: for information, and for a later release's anchor."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from measure import VALUE, Floor, Result, figure, ratios, rounded, until_cancelled

import holdfast
from holdfast import step, workflow

TITLE = "Short workflows, recall, gather"
FLOOR = (
    "200 workflows of three steps, started together, against the rate of one committed `INSERT` after the other. A "
    "recalled step is the time between two recalled calls of a sequential workflow. In a gather of 100 steps every "
    "outcome is delivered in its turn, when the code woken by the one before has come to rest."
)
HELD_BY = "No target yet, so nothing is missed."

WORKFLOWS, STEPS, GATHERED, RECALLED = 200, 3, 100, 2_000


@step
async def fetch(i: int) -> bytes:
    return VALUE


@workflow(version="1")
async def short() -> None:
    for i in range(STEPS):
        await fetch(i)


taken: list[float] = []


@workflow(version="1")
async def sequential(hold: bool) -> None:
    start = time.perf_counter()
    for i in range(RECALLED):
        await fetch(i)
    taken.append((time.perf_counter() - start) * 1e6 / RECALLED)
    await until_cancelled()


@workflow(version="1")
async def gathered(hold: bool) -> None:
    start = time.perf_counter()
    await asyncio.gather(*(fetch(i) for i in range(GATHERED)))
    taken.append((time.perf_counter() - start) * 1e6 / GATHERED)
    await until_cancelled()


async def _once(hf: holdfast.Holdfast, call: holdfast.Call[None], id: str) -> float:
    """What the workflow timed; the run is unloaded behind that, so that the next time recalls."""
    before = len(taken)
    task = asyncio.ensure_future(hf.run(call, id=id))
    while len(taken) == before:
        await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return taken[-1]


def measure(folder: Path, quick: bool) -> Result:
    floor = Floor(folder / "floor.db")
    floor.warm()
    base: list[float] = []
    workflows: list[float] = []
    live: list[float] = []
    recalled: list[float] = []
    again: list[float] = []

    async def main() -> None:
        async with holdfast.open(folder / "holdfast.db") as hf:
            await _once(hf, sequential(True), "sequential")
            for turn in range(-1, 2 if quick else 15):
                floor_us = floor.mean_us(300)
                start = time.perf_counter()
                await asyncio.gather(*(hf.run(short(), id=f"{turn}-{i}") for i in range(WORKFLOWS)))
                workflow_us = (time.perf_counter() - start) * 1e6 / WORKFLOWS
                first = await _once(hf, gathered(True), f"gathered-{turn}")
                second = await _once(hf, gathered(True), f"gathered-{turn}")
                recall = await _once(hf, sequential(True), "sequential")
                if turn >= 0:
                    for rounds, took in zip(
                        (base, workflows, live, again, recalled),
                        (floor_us, workflow_us, first, second, recall),
                        strict=True,
                    ):
                        rounds.append(took)

    asyncio.run(main())
    floor.close()
    return Result(
        [
            figure("200 workflows of 3 steps: workflows/s ÷ the floor's rows/s", ratios(base, workflows)),
            figure("a workflow of them", workflows, "µs"),
            figure("a recalled sequential step", recalled, "µs"),
            figure("a step of a gather of 100", live, "µs"),
            figure("a recalled step of that gather", again, "µs"),
        ],
        {
            "floor_us": rounded(base),
            "workflow_us": rounded(workflows),
            "recalled_us": rounded(recalled),
            "gathered_us": rounded(live),
            "gathered_recalled_us": rounded(again),
        },
    )
