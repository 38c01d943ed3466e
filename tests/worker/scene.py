"""Real workers on a store, with a ledger outside of it. Every process that was started is ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast import Holdfast
from holdfast.store import Checkpoint, Claim, RunRow, open_store

DEADLINE_S = 40.0


class Scene:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.started: list[subprocess.Popen[bytes]] = []
        os.environ.update(LEDGER=str(folder), NAME="test")  # for jobs, imported here
        self.store = open_store(url)
        self.store.clear_news(idle_ms=0)  # writing makes the file

    def worker(self, name: str, *options: str, module: str = "jobs") -> subprocess.Popen[bytes]:
        """A worker that logs to ``log-NAME``."""
        return self.start(name, ["-m", "holdfast", "worker", module, "--store", self.url, *options])

    def start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        paths = [str(Path(__file__).parent), *(each for each in sys.path if each)]
        with (self.folder / f"log-{name}").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LEDGER": str(self.folder), "NAME": name},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )  # in the group of the tests, so that whoever ends those leaves none of these
        self.started.append(process)
        return process

    def end_all(self) -> None:
        for process in self.started:
            process.kill()
            process.wait(DEADLINE_S)
        self.store.close()

    def submit(self, *calls: tuple[str, Any], **options: Any) -> None:
        async def submitted() -> None:
            async with Holdfast(self.store) as hf:
                await asyncio.gather(*(hf.submit(call, id=id, **options) for id, call in calls))

        asyncio.run(submitted())

    def send(self, name: str, value: Any, *ids: str) -> None:
        async def sent() -> None:
            async with Holdfast(self.store) as hf:
                for id in ids:
                    await hf.send(id, name, value)

        asyncio.run(sent())

    def hold(self, n: int, name: str = "") -> None:
        (self.folder / f"hold-{n}{name and '-'}{name}").touch()

    def release(self, n: int, name: str = "") -> None:
        (self.folder / f"hold-{n}{name and '-'}{name}").unlink()

    def ledger(self) -> list[str]:
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def log(self, name: str) -> str:
        return (self.folder / f"log-{name}").read_text()

    def has(self, *lines: str) -> None:
        self.until(lambda: set(lines) <= set(self.ledger()), lambda: f"{lines} in {self.ledger()}")

    def logs(self, name: str, *texts: str) -> None:
        self.until(lambda: all(text in self.log(name) for text in texts), lambda: f"{texts} in the log of {name}")

    def ends(self, process: subprocess.Popen[bytes], *, status: int = 0) -> None:
        code = process.wait(DEADLINE_S)
        assert code == status, f"ended with {code}, not {status}{self.told()}"

    def row(self, id: str) -> RunRow:
        row = self.store.get(id)
        assert row is not None
        return row

    def rows(self, id: str) -> list[Checkpoint]:
        return self.store.load(self.row(id).no)

    def claims(self, id: str) -> list[Claim]:
        return self.store.claims(self.row(id).no)

    def done(self, *ids: str) -> None:
        self.stands("done", *ids)

    def stands(self, status: str, *ids: str) -> None:
        """Wait until every one of these runs stands so."""

        def others() -> list[Any]:
            return [(id, row.status, row.owner) for id in ids if (row := self.row(id)).status != status]

        self.until(lambda: not others(), lambda: f"runs {status}: {others()}")

    def until(self, true: Callable[[], bool], what: Callable[[], object], seconds: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"did not come about in {seconds} s: {what()}{self.told()}"
            time.sleep(0.005)

    def told(self) -> str:
        return "".join(f"\n--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("log-*")))
