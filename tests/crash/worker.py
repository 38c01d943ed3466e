"""A process that advances a run, for tests that kill, stop, interrupt and fork it.

``python worker.py MODE DB FOLDER NAME [option=value …]``. Its stages write to ``FOLDER/ledger``, and stage n waits
while ``FOLDER/hold-n-NAME`` exists. How it ended is the last line it prints.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import holdfast
from holdfast import Holdfast, step, workflow

FOLDER, NAME = Path(), ""
OPTIONS: dict[str, str] = {}
POLL_S = 0.005


def note(what: str) -> None:
    fd = os.open(FOLDER / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{NAME} {what}\n".encode())
    os.close(fd)


def held(n: int) -> bool:
    return (FOLDER / f"hold-{n}-{NAME}").exists()


def opened(db: str) -> Holdfast:
    return holdfast.open(db, lease=float(OPTIONS.get("lease", 10)))


class Waiting(logging.Handler):
    """Notes that another owner is waited for."""

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting for it" in record.getMessage():
            note("waiting")


@step
async def stage(run: str, n: int) -> int:
    note(f"began {run} {n}")
    logging.getLogger("app").info("stage %d", n)
    try:
        while held(n):
            await asyncio.sleep(POLL_S)
    except asyncio.CancelledError:
        note(f"cancelled {run} {n}")
        raise
    note(f"ended {run} {n}")
    return n * n


@workflow(version="1")
async def staged(run: str, stages: int) -> int:
    total = 0
    for n in range(stages):
        total += await stage(run, n)
        holdfast.state["total"] = total
    return total


@step
def plain_stage(run: str, n: int) -> int:
    note(f"began {run} {n}")
    while held(n):
        time.sleep(POLL_S)
    note(f"ended {run} {n}")
    return n * n


@workflow(version="1")
def plain_staged(run: str, stages: int) -> int:
    return sum(plain_stage(run, n) for n in range(stages))


async def one(hf: Holdfast, id: str = "job") -> int:
    return await hf.run(staged(id, int(OPTIONS.get("stages", 4))), id=id, wait="no_wait" not in OPTIONS)


async def run_one(db: str) -> None:
    async with opened(db) as hf:
        print("result", await one(hf), flush=True)


async def run_many(db: str) -> None:
    """The same runs as every other process; each is executed by one of them."""
    ids = [f"job-{n}" for n in range(int(OPTIONS["runs"]))]
    shift = len(NAME) + ord(NAME[-1])
    ids = ids[shift % len(ids) :] + ids[: shift % len(ids)]
    async with opened(db) as hf:
        print("result", sum(await asyncio.gather(*(one(hf, id) for id in ids))), flush=True)


async def run_and_fork(db: str) -> None:
    """Forks while a run is under way; the child goes on with the same ``Holdfast``."""
    async with opened(db) as hf:
        mine = asyncio.create_task(one(hf))
        while not (FOLDER / "fork").exists():
            await asyncio.sleep(POLL_S)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = asyncio.run(in_child(hf))
            finally:
                os._exit(status)
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            await asyncio.sleep(POLL_S)
        (FOLDER / f"hold-1-{NAME}").unlink()
        print("child", os.waitstatus_to_exitcode(ended[1]), "result", await mine, await one(hf, "after"), flush=True)


async def in_child(hf: Holdfast) -> int:
    global NAME
    NAME = "child"
    try:
        await hf.run(staged("job", int(OPTIONS.get("stages", 4))), id="job", wait=False)
        return 2
    except holdfast.Busy:
        pass
    run = await hf.get("job")
    if run.status != "running" or run.steps != 1:
        return 3
    if await hf.run(staged("child", 3), id="child") != 5:
        return 4
    await hf.aclose()
    return 0


async def run_and_vanish(db: str) -> None:
    """Ends without closing anything, the moment a step has returned."""
    hf = opened(db)

    @workflow(version="1", name="staged")
    async def vanishing(run: str, stages: int) -> int:
        await stage(run, 0)
        await stage(run, 1)
        os._exit(9)

    await hf.run(vanishing("job", int(OPTIONS.get("stages", 4))), id="job")


def run_plain(db: str) -> None:
    """A program without an event loop."""
    with opened(db) as hf:
        print("result", hf.wait(hf.run(plain_staged.bind("job", int(OPTIONS.get("stages", 4))), id="job")), flush=True)


def main() -> None:
    global FOLDER, NAME
    mode, db, folder, NAME, *options = sys.argv[1:]
    FOLDER = Path(folder)
    OPTIONS.update(each.split("=") for each in options)
    logging.getLogger("holdfast").addHandler(Waiting())
    log = logging.FileHandler(FOLDER / f"log-{NAME}")
    log.addFilter(holdfast.LogFilter())
    logging.basicConfig(
        level=logging.INFO, handlers=[log], format="%(levelname)s [%(run_id)s/%(step)s] %(name)s: %(message)s"
    )
    try:
        if mode == "run_plain":
            run_plain(db)
        else:
            asyncio.run(globals()[mode](db))
    except holdfast.HoldfastError as error:
        print("error", type(error).__name__, error, flush=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
