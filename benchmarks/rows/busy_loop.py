"""A step beside a loop that is never idle."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from measure import VALUE, Figure, Result, percentile, rounded

import holdfast
from holdfast import step, workflow

TITLE = "A step beside a busy loop"
FLOOR = (
    "A callback that computes for 0.2 or 2 ms reschedules itself with `call_soon`, so the loop's thread gives the "
    "interpreter back for no longer than a poll takes. There is no floor to divide by: a step may take three "
    "callbacks and 5 ms. The same step beside an idle loop is measured in turns."
)
HELD_BY = (
    "What holds it: a batch counts as late after 2 ms (`LATE_S`), and only then is the committer given the interpreter."
)

GROUP = 20


@step
async def fetch(i: int) -> bytes:
    return VALUE


def measure(folder: Path, quick: bool) -> Result:
    figures: list[Figure] = []
    raw: dict[str, list[float]] = {}
    for callback_ms in (0.2, 2.0):
        busy, idle = asyncio.run(_beside(folder, callback_ms, 2 if quick else 25))
        target = 3 * callback_ms + 5
        what = f"callbacks of {callback_ms:g} ms: a step"
        figures += [
            Figure(f"{what}, median", statistics.median(busy), "ms", target),
            Figure(f"{what}, 99th percentile", percentile(busy, 99), "ms", target),
            Figure(f"{what}, the longest", max(busy), "ms"),
        ]
        raw |= {f"{callback_ms:g}_busy_ms": rounded(sorted(busy)), f"{callback_ms:g}_idle_ms": rounded(sorted(idle))}
        figures.append(Figure(f"beside an idle loop, in turns with {callback_ms:g} ms", statistics.median(idle), "ms"))
    return Result(figures, raw)


async def _beside(folder: Path, callback_ms: float, rounds: int) -> tuple[list[float], list[float]]:
    loop = asyncio.get_running_loop()
    busy: list[float] = []
    idle: list[float] = []
    spinning = False

    def spin() -> None:
        end = time.perf_counter() + callback_ms / 1000
        while time.perf_counter() < end:
            pass
        if spinning:
            loop.call_soon(spin)

    async def timed(times: list[float]) -> None:
        for i in range(GROUP):
            start = time.perf_counter()
            await fetch(i)
            times.append((time.perf_counter() - start) * 1000)

    @workflow(version="1")
    async def pipeline() -> None:
        nonlocal spinning
        for i in range(300):
            await fetch(i)
        for _ in range(rounds):
            await timed(idle)
            spinning = True
            loop.call_soon(spin)
            await timed(busy)
            spinning = False

    async with holdfast.open(folder / f"{callback_ms}.db") as hf:
        await hf.run(pipeline(), id="busy")
    return busy, idle
