"""Starts ``worker.py`` processes and waits, with a deadline, for what they write down."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holdfast
from holdfast.store import Checkpoint, RunRow, open_store

WORKER = Path(__file__).with_name("worker.py")
DEADLINE_S = 30.0


class Scene:
    """A store, a folder with the ledger, and the processes on them. Ends every process it started."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.db = url or str(folder / "jobs.db")
        self.started: list[subprocess.Popen[str]] = []

    def start(self, name: str, mode: str = "run_one", **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), mode, self.db, str(self.folder), name]
            + [f"{option}={value}" for option, value in options.items()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end_all(self) -> None:
        for process in self.started:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # and what it forked
            except ProcessLookupError:
                pass
            process.communicate(timeout=DEADLINE_S)

    def hold(self, n: int, *names: str) -> None:
        for name in names:
            (self.folder / f"hold-{n}-{name}").touch()

    def release(self, n: int, name: str) -> None:
        (self.folder / f"hold-{n}-{name}").unlink()

    def ledger(self) -> list[str]:
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def log(self, name: str) -> list[str]:
        """What a process logged: level, run and step, logger, message."""
        return (self.folder / f"log-{name}").read_text().splitlines()

    def has(self, line: str) -> None:
        until(lambda: line in self.ledger(), lambda: f"{line!r} in {self.ledger()}; {self.printed()}")

    def printed(self) -> list[Any]:
        return [(each.args, each.communicate()) for each in self.started if each.poll() is not None]

    def ended(self, process: subprocess.Popen[str], *, status: int = 0) -> str:
        """The last line it printed."""
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == status, (process.returncode, out, err, self.ledger())
        return (out.splitlines() or [""])[-1]

    def rows(self, id: str = "job") -> tuple[RunRow, list[Checkpoint]]:
        store = open_store(self.db)
        try:
            row = store.get(id)
            assert row is not None
            return row, store.load(row.no)
        finally:
            store.close()

    def history(self, id: str = "job") -> list[holdfast.Checkpoint]:
        async def read() -> list[holdfast.Checkpoint]:
            async with holdfast.open(self.db) as hf:
                return await hf.history(id)

        return asyncio.run(read())


def until(true: Callable[[], bool], what: Callable[[], object], seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"did not come about in {seconds} s: {what()}"
        time.sleep(0.005)
