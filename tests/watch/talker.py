"""A process that runs a talkative workflow: ``python talker.py DB FOLDER``. Each stage waits for a file ``go-N``.

Every stage says when it begins and ends, in the ledger and as a chunk, so that a test can compare the two.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import holdfast
from holdfast import step, workflow

FOLDER = Path()
STAGES = 6


def note(what: str) -> None:
    with (FOLDER / "ledger").open("a") as ledger:
        ledger.write(what + "\n")


@step
async def stage(n: int) -> int:
    note(f"began {n}")
    holdfast.emit(f"began {n}")
    holdfast.progress(0, 2)
    while not (FOLDER / f"go-{n}").exists():
        holdfast.emit(time.monotonic())
        await asyncio.sleep(0.01)
    holdfast.emit(f"ended {n}")
    note(f"ended {n}")
    return n


@workflow(version="1")
async def stages(count: int) -> int:
    total = 0
    for n in range(count):
        total += sum(await asyncio.gather(stage(10 * n), stage(10 * n + 1)))
    return total


async def main() -> None:
    async with holdfast.open(sys.argv[1]) as hf:
        print(await hf.run(stages(STAGES), id="job"), flush=True)


if __name__ == "__main__":
    FOLDER = Path(sys.argv[2])
    asyncio.run(main())
