"""The memory that resuming a run with big values takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from measure import KB, Figure, Result, figure, rounded

TITLE = "Memory to resume 1,000 steps of 100 KB"
FLOOR = (
    "A new process imports holdfast, opens the store and notes its peak of resident memory; then it resumes the run "
    "up to the first step that is not recorded, dropping each value, and notes its peak again: the figure is the "
    "difference. The floor's process reads the same values with `sqlite3`, one at a time. Both peaks are the "
    "kernel's (`VmHWM`), each in a process that did nothing else."
)
HELD_BY = (
    "What holds it: the row of each step is loaded before the first is recalled; of the values, which are kept "
    "beside the rows, one at a time is in memory here."
)

STEPS, SIZE = 1_000, 100 * KB
MB = 1e6

PEAK = """
import sys
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
"""
RESUMED = """
import asyncio, contextlib, holdfast, os
reached = None
@holdfast.step
async def fetch(i: int, size: int) -> bytes:
    return os.urandom(size)
@holdfast.workflow(version="1")
async def record(steps: int, size: int) -> None:
    for i in range(steps):
        await fetch(i, size)
    reached.set_result(holdfast.current())
    await asyncio.get_running_loop().create_future()
async def main(path, steps, size):
    global reached
    reached = asyncio.get_running_loop().create_future()
    async with holdfast.open(path) as hf:
        await hf.runs(limit=1)
        before = peak()
        task = asyncio.ensure_future(hf.run(record(steps, size), id="big"))
        await asyncio.wait({task, reached}, return_when=asyncio.FIRST_COMPLETED)
        print(before, peak())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""
READ = """
import sqlite3
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM run").fetchall()
before = peak()
keys = db.execute("SELECT rowid FROM blob_part").fetchall()
for key in keys:
    db.execute("SELECT data FROM blob_part WHERE rowid = ?", key).fetchall()
assert len(keys) == int(sys.argv[2])
print(before, peak())
"""


def measure(folder: Path, quick: bool) -> Result:
    path = folder / "holdfast.db"
    _grown_mb(RESUMED, path)  # the first time it executes the steps
    base, ours = [], []
    for _ in range(2 if quick else 5):
        base.append(_grown_mb(READ, path))
        ours.append(_grown_mb(RESUMED, path))
    return Result(
        [
            figure("peak memory above the process's own", ours, "MB", 45),
            figure("the floor's", base, "MB"),
            Figure("the values", STEPS * SIZE / MB, "MB"),
        ],
        {"holdfast_mb": rounded(ours), "floor_mb": rounded(base)},
    )


def _grown_mb(program: str, path: Path) -> float:
    command = [sys.executable, "-c", PEAK + program, str(path), str(STEPS), str(SIZE)]
    before, after = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return (int(after) - int(before)) / MB
