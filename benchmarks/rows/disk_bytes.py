"""What a step takes on disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from measure import KB, Figure, Result, SQLiteFloor, settled_size

import holdfast
from holdfast import step, workflow

TITLE = "Bytes on disk"
FLOOR = (
    "The floor is a table of (run_no, seq, value) with a unique index on the first two, given the same values; both "
    "files are measured once their logs are in them, less what they held when empty. Three rows of 1,024 bytes fill "
    "a 4 KB page on either side, so one length alone says whatever one likes: lengths spread evenly from 500 to "
    "1,500 bytes are the figure to quote."
)
HELD_BY = "What holds it: the columns beside the value (place, fingerprint, preview of the inputs, times)."


def measure(folder: Path, quick: bool) -> Result:
    steps = 1_000 if quick else 5_000
    figures: list[Figure] = []
    raw: dict[str, float] = {}
    spread = [500 + (7919 * i) % 1_000 for i in range(steps)]
    for what, sizes in (("500 to 1,500 bytes", spread), ("1 KB", [KB] * steps)):
        values = [os.urandom(size) for size in sizes]
        base, ours = _floor(folder / f"{what}-floor.db", values), _holdfast(folder / f"{what}.db", values)
        figures += [
            Figure(f"a step of {what} ÷ the floor", ours / base, "×", 1.2),
            Figure(f"a step of {what}", ours, "bytes"),
        ]
        raw |= {f"{what}: floor": round(base, 1), f"{what}: holdfast": round(ours, 1)}
    return Result(figures, raw)


def _holdfast(path: Path, values: list[bytes]) -> float:
    @step
    async def fetch(i: int) -> bytes:
        return values[i]

    @workflow(version="1")
    async def pipeline(steps: int) -> None:
        for i in range(steps):
            await fetch(i)

    async def main() -> tuple[int, int]:
        async with holdfast.open(path) as hf:
            await hf.run(pipeline(0), id="empty")
        empty = settled_size(path)
        async with holdfast.open(path) as hf:
            await hf.run(pipeline(len(values)), id="full")
        return empty, settled_size(path)

    empty, full = asyncio.run(main())
    return (full - empty) / len(values)


def _floor(path: Path, values: list[bytes]) -> float:
    floor = SQLiteFloor(path)
    empty = settled_size(path)
    floor.db.execute("BEGIN")
    for value in values:
        floor.insert(value)
    floor.db.execute("COMMIT")
    floor.close()
    return (settled_size(path) - empty) / len(values)
