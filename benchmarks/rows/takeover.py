"""How long nobody advances a run whose worker is gone."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import Figure, Result, percentile, rounded

import holdfast
from holdfast import step, workflow

TITLE = "Taking a run over"
FLOOR = (
    "Two workers (`holdfast worker`) serve one SQLite file. The one that has the run is killed (SIGKILL) or drained "
    "(SIGTERM), and the time is taken from the signal to the moment the step begins in the other one: noticing, "
    "claiming, loading, and the workflow's own way to the step are in it. Then another worker is started in its place. "
    "For the lapsed lease the owners are processes of a host that the worker cannot look into, killed at a random "
    "moment since their last heartbeat; their leases last 1 s, and what is told is the time beyond that. There is no "
    "floor: the targets are 1 s."
)
HELD_BY = (
    "What holds it: a worker looks after dead owners every half second, and at once when the store tells of a change."
)

SHORT_S = 0.02  # so that a drain ends soon
LONG_S = 3600.0  # in which nothing is written that would wake the other worker
SAME_HOST = (
    (signal.SIGKILL, LONG_S, "after SIGKILL, on the same host", 200),
    (signal.SIGTERM, SHORT_S, "after SIGTERM, with short steps", 200),
)
LEASE_S = 1.0
OWNERS = 20  # that are killed at once, each with a run and a heartbeat of its own
ELSEWHERE = 15  # times
TIMEOUT_S = 60.0
POLL_S = 0.002


@step
async def tick(folder: str, run: str, n: int, seconds: float) -> bool:
    """Whether it was the last one."""
    _note(folder, run)
    until = time.monotonic() + seconds
    while not (ended := (Path(folder) / f"end-{run}").exists()) and time.monotonic() < until:
        await asyncio.sleep(0.02)
    return ended


@workflow(version="1", queue="takeover")
async def ticking(folder: str, run: str, seconds: float) -> None:
    """One step after the other, each so long."""
    n = 0
    while not await tick(folder, run, n, seconds):
        n += 1


def _note(folder: str, run: str) -> None:
    fd = os.open(Path(folder) / f"ticks-{run}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{os.getpid()} {time.monotonic_ns()}\n".encode())
    os.close(fd)


def _ticks(folder: Path, run: str) -> list[tuple[int, int]]:
    """The process and the time (ns, the machine's monotonic clock) of each step so far."""
    path = folder / f"ticks-{run}"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), int(at)) for pid, at in (line.split() for line in lines)]


def measure(folder: Path, quick: bool) -> Result:
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for number, seconds, what, times in SAME_HOST:
        here = folder / number.name
        here.mkdir()
        with_two = _Workers(here)
        try:
            took = [with_two.take_over(f"run-{n}", number, seconds) for n in range(3 if quick else times)]
        finally:
            with_two.end()
        figures += _told(what, took)
        raw[f"{number.name}_ms"] = rounded(took)
    took = _after_lapse(folder, 1 if quick else ELSEWHERE)
    figures += _told("by a lapsed lease, beyond the TTL", took)
    raw["lapsed_ms"] = rounded(took)
    return Result(figures, raw)


def _told(what: str, took_ms: list[float]) -> list[Figure]:
    return [
        Figure(f"{what}: p50 of {len(took_ms)}", percentile(took_ms, 50), "ms"),
        Figure(f"{what}: p99", percentile(took_ms, 99), "ms", 1000.0),
    ]


class _Workers:
    """Two at a time; whichever is ended is replaced before the next run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = str(folder / "holdfast.db")
        asyncio.run(self._submit("first", SHORT_S))  # makes the file
        (folder / "end-first").touch()
        self.living: dict[int, subprocess.Popen[bytes]] = {}
        for _ in range(2):
            self._start()

    async def _submit(self, run: str, seconds: float) -> None:
        async with holdfast.open(self.store) as hf:
            await hf.submit(ticking(str(self.folder), run, seconds), id=run)

    def _start(self) -> None:
        alive = self.folder / f"alive-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "holdfast", "worker", __file__, "--store", self.store, "--queue", "takeover"]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen([*command, "--alive", str(alive)], stdout=log, stderr=log)
        self.living[process.pid] = process
        _until(alive.exists, "a worker begins")

    def take_over(self, run: str, number: signal.Signals, seconds: float) -> float:
        asyncio.run(self._submit(run, seconds))
        _until(lambda: bool(_ticks(self.folder, run)), f"{run} begins")
        time.sleep(random.uniform(0.2, 0.7))  # at any moment between two rounds of the other worker
        owner = _ticks(self.folder, run)[-1][0]
        began = time.monotonic_ns()
        self.living[owner].send_signal(number)
        _until(lambda: _ticks(self.folder, run)[-1][0] != owner, f"{run} goes on")
        (self.folder / f"end-{run}").touch()
        self.living.pop(owner).wait(TIMEOUT_S)
        self._start()
        return next(at - began for pid, at in _ticks(self.folder, run) if pid != owner) / 1e6

    def end(self) -> None:
        for process in self.living.values():
            process.kill()
            process.wait()


OWNING = """
import asyncio, random, sys, time
sys.path[:0] = [{benchmarks!r}]
import holdfast
from holdfast import lease
from rows.takeover import LEASE_S, OWNERS, SHORT_S, ticking
here = lease.host()
lease.host = lambda: "elsewhere/" + here
async def main():
    async def owner(n):
        await asyncio.sleep(random.random())
        run = {run!r} + f"-{{n}}"
        await holdfast.open({store!r}, lease=LEASE_S).start(ticking({folder!r}, run, SHORT_S), id=run)
    await asyncio.gather(*(owner(n) for n in range(OWNERS)))
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def _after_lapse(folder: Path, times: int) -> list[float]:
    here = folder / "elsewhere"
    here.mkdir()
    workers = _Workers(here)
    took: list[float] = []
    try:
        for turn in range(times):
            runs = [f"turn-{turn}-{n}" for n in range(OWNERS)]
            given = {"benchmarks": str(Path(__file__).parents[1]), "store": workers.store, "folder": str(here)}
            program = OWNING.format(**given, run=f"turn-{turn}")
            process = subprocess.Popen([sys.executable, "-c", program])
            try:
                _until(lambda runs=runs: all(_ticks(here, run) for run in runs), "all begin")  # type: ignore[misc]
                time.sleep(LEASE_S * (1 + turn / times))  # some heartbeats, and another phase of them each time
            finally:
                began = time.monotonic_ns()
                process.kill()
                process.wait()
            pid = process.pid
            _until(lambda runs=runs, pid=pid: all(_ticks(here, run)[-1][0] != pid for run in runs), "all go on")  # type: ignore[misc]
            for run in runs:
                (here / f"end-{run}").touch()
                at = next(at for by, at in _ticks(here, run) if by != pid)
                took.append((at - began) / 1e6 - LEASE_S * 1000)
    finally:
        workers.end()
    return took


def _until(true: Any, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {TIMEOUT_S:g} s")
        time.sleep(POLL_S)
