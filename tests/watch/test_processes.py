"""The run in one process, the watcher in another; the owner is killed, and the run goes on elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast import Checkpoint, Emitted, Event, Progress

TALKER = Path(__file__).with_name("talker.py")
STAGES = 6
PATIENCE_S = 60


class Talkers:
    """Processes that advance the one run of a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db = str(folder / "jobs.db")
        self.started: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(TALKER), self.db, str(self.folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def let_go(self, *stages: int) -> None:
        for n in stages:
            (self.folder / f"go-{n}").touch()

    async def has_run(self) -> None:
        while not (self.folder / "ledger").exists():
            await asyncio.sleep(0.01)


@pytest.fixture
def talkers(tmp_path: Path) -> Iterator[Talkers]:
    talkers = Talkers(tmp_path)
    yield talkers
    for process in talkers.started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.crash
def test_a_watcher_elsewhere_sees_every_checkpoint_once_through_two_kills(talkers: Talkers) -> None:
    events: list[Event] = []

    async def watch(hf: holdfast.Holdfast) -> None:
        async for event in hf.watch("job"):
            events.append(event)

    async def until_said(chunk: str, times: int = 1) -> None:
        while sum(isinstance(event, Emitted) and event.chunk == chunk for event in events) < times:
            await asyncio.sleep(0.005)

    async def program() -> None:
        async with holdfast.open(talkers.db) as hf, asyncio.timeout(PATIENCE_S):
            owner = talkers.start()
            await talkers.has_run()
            watching = asyncio.create_task(watch(hf))
            for n in range(STAGES):
                await until_said(f"began {10 * n}")
                if n in (2, 4):
                    talkers.let_go(10 * n + 1)  # one of the two is finished and recorded
                    await until_said(f"ended {10 * n + 1}")
                    owner.send_signal(signal.SIGKILL)
                    owner.wait()
                    await asyncio.sleep(0.2)
                    assert not watching.done(), "it waits for somebody to go on with the run"
                    owner = talkers.start()
                    await until_said(f"began {10 * n}", times=2)
                talkers.let_go(10 * n, 10 * n + 1)
            await watching
            assert [event for event in events if isinstance(event, Checkpoint)] == await hf.history("job")
            assert owner.communicate()[0] == f"{sum(20 * n + 1 for n in range(STAGES))}\n"

    asyncio.run(program())
    assert [event.seq for event in events if isinstance(event, Checkpoint)] == list(range(1, 2 * STAGES + 1))
    # What is told of a call comes before its checkpoint, and from the owner whose checkpoint it is.
    ended: set[str] = set()
    for event in events:
        if isinstance(event, Checkpoint):
            ended.add(event.place)
        elif isinstance(event, (Emitted, Progress)):
            assert event.place not in ended
    said = [event.chunk for event in events if isinstance(event, Emitted) and isinstance(event.chunk, str)]
    ledger = (talkers.folder / "ledger").read_text().splitlines()
    assert sorted(said) == sorted(ledger), "all that was begun and ended was heard, also what was begun twice"
    assert {event.epoch for event in events if isinstance(event, Emitted)} == {1, 2, 3}


def test_a_chunk_is_seen_elsewhere_within_a_moment(talkers: Talkers) -> None:
    """The median from ``emit`` to the watcher of another process: one flush and one look, 50 ms each at the most."""
    took: list[float] = []

    async def program() -> None:
        async with holdfast.open(talkers.db) as hf, asyncio.timeout(PATIENCE_S):
            talkers.start()
            await talkers.has_run()
            async for event in hf.watch("job"):
                if isinstance(event, Emitted) and isinstance(event.chunk, float):
                    took.append(time.monotonic() - event.chunk)  # one clock for all processes of a machine
                if len(took) == 100:
                    break

    asyncio.run(program())
    median = statistics.median(took[20:])  # the first ones were told before anybody watched
    print(f"median {1000 * median:.0f} ms")
    assert median < 1.0
