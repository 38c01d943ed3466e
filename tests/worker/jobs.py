"""The workflows of the workers under test. What they do is written to ``$LEDGER/ledger``, one line an event.

Stage n waits while ``hold-n`` or ``hold-n-NAME`` exists there, NAME being that of the worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from holdfast import step, wait_for, workflow

FOLDER, NAME = Path(os.environ["LEDGER"]), os.environ["NAME"]
POLL_S = 0.005


def note(what: str) -> None:
    fd = os.open(FOLDER / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{NAME} {what}\n".encode())
    os.close(fd)


def held(n: int) -> bool:
    return (FOLDER / f"hold-{n}").exists() or (FOLDER / f"hold-{n}-{NAME}").exists()


@step
async def stage(run: str, n: int) -> int:
    note(f"began {run} {n}")
    try:
        while held(n):
            await asyncio.sleep(POLL_S)
    except asyncio.CancelledError:
        note(f"cancelled {run} {n}")
        raise
    note(f"ended {run} {n}")
    return n


@workflow(version="1", max_deaths=100)  # its workers are killed for no fault of its own, and for nothing else
async def staged(run: str, stages: int) -> int:
    return sum([await stage(run, n) for n in range(stages)])


@workflow(version="1")
async def resting(run: str) -> int:
    """Between its two steps it waits in its own code."""
    first = await stage(run, 0)
    while held(50):
        await asyncio.sleep(POLL_S)
    return first + await stage(run, 51)


@workflow(version="1")
async def asked(run: str) -> int:
    """Waits for an answer, beside its second step and after it."""
    first = await stage(run, 0)
    answer = asyncio.create_task(wait_for("answer", int))
    second = await stage(run, 60)
    return first + second + await answer


@workflow(version="1")
async def waits(run: str) -> int:
    return await stage(run, 0) + await wait_for("answer", int)


@workflow(version="1")
async def at_once(run: str, stages: int) -> int:
    """All stages at once, and then a last one."""
    return sum(await asyncio.gather(*(stage(run, n) for n in range(stages)))) + await stage(run, 100)


@step
async def outer(run: str, stages: int) -> int:
    return sum([await stage(run, n) for n in range(stages)])


@workflow(version="1")
async def inner_steps(run: str, stages: int) -> int:
    return await outer(run, stages) + await stage(run, 100)


@workflow(version="1")
async def nested(run: str, stages: int) -> int:
    return await staged(run, stages)


@step
def plain_stage(run: str, n: int) -> int:
    note(f"began {run} {n}")
    while held(n):
        time.sleep(POLL_S)
    note(f"ended {run} {n}")
    return n


@workflow(version="1")
def plain_staged(run: str, stages: int) -> int:
    return sum([plain_stage(run, n) for n in range(stages)])


@workflow(version="1")
async def counted(run: str) -> int:
    """For the limit of a queue: what runs between "in" and "out" is counted."""
    note(f"in {run}")
    await stage(run, 0)
    await asyncio.sleep(0.02)
    note(f"out {run}")
    return 0


@step
async def crunch(run: str) -> None:
    """Kills its worker, as a native library does that runs out of memory."""
    note(f"began {run} crunch")
    while "crunch" not in (FOLDER / "told").read_text():  # in flight, as the heartbeat has told by then
        await asyncio.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


@workflow(version="1", max_deaths=2)
async def deadly(run: str) -> None:
    await crunch(run)


@workflow(version="1", max_deaths=2)
async def sure_but_deadly(run: str, stages: int) -> int:
    """It makes a checkpoint in each process, and then kills it."""
    for n in range(stages):
        if await stage(run, n) < stages - 1 and f"{NAME} ended {run} {n}" in (FOLDER / "ledger").read_text():
            os.kill(os.getpid(), signal.SIGKILL)
    return stages


@workflow(version="1")
async def leaves(run: str) -> None:
    await stage(run, 0)
    sys.exit(7)


@workflow(version="1")
async def interrupts(run: str) -> None:
    await stage(run, 0)
    raise KeyboardInterrupt


@workflow(version="1")
async def tidies(run: str) -> int:
    """Its cleanup takes a while."""
    try:
        return await stage(run, 0)
    finally:
        await asyncio.sleep(0.3)
        note(f"tidied {run}")
