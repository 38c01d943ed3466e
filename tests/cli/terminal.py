"""A folder with a program, and ``holdfast`` typed there: real processes, and a ledger outside the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TIMEOUT_S = 60

# Steps write into the ledger when they are executed; `hold` runs until there is a file named go, or it is killed.
LOANS = """
import asyncio
import dataclasses
import sys
from pathlib import Path

import holdfast
from holdfast import step, workflow

HERE = Path(__file__).parent


def ledger(line):
    with (HERE / "ledger").open("a") as file:
        file.write(line + "\\n")


@dataclasses.dataclass
class Doc:
    pages: int


@step
async def parse(app_id: str) -> Doc:
    ledger(f"parse {app_id}")
    return Doc(3)


@step
async def hold(doc: Doc) -> int:
    ledger("hold")
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    return doc.pages


@step
async def fail(app_id: str) -> None:
    ledger("fail")
    if not (HERE / "mended").exists():
        raise LookupError(f"no account {app_id}")


@workflow(version="1")
async def review(app_id: str, tags: list[str] | None = None) -> dict[str, int]:
    doc = await parse(app_id)
    holdfast.state["pages"] = doc.pages
    return {"pages": await hold(doc)}


@workflow(version="1")
async def pay(app_id: str) -> str:
    print("paying", app_id)
    doc = await parse(app_id)
    await fail(app_id)
    return f"{app_id} paid, {doc.pages} pages"


@workflow(version="1")
def plain(app_id: str) -> Doc:
    return Doc(1)


class Office:
    @workflow
    async def work(self) -> None: ...


async def main():
    async with holdfast.open("loans.db") as hf:
        print(await hf.run(review("M-1"), id="main"))


if __name__ == "__main__":
    ledger("main")
    asyncio.run(main())
"""


class Terminal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        self.environ["PYTHONIOENCODING"] = "utf-8"

    def start(self, *args: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        return self.python("-m", "holdfast", *args, cwd=cwd)

    def python(self, *args: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *args],
            cwd=cwd or self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def type(self, *args: str, cwd: Path | None = None) -> Done:
        return Done.of(self.start(*args, cwd=cwd))

    def ledger(self) -> list[str]:
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, line: str, process: subprocess.Popen[str], times: int = 1) -> None:
        until = time.monotonic() + TIMEOUT_S
        while self.ledger().count(line) < times:
            assert process.poll() is None, f"it ended before {line!r}:\n{process.communicate()}"
            assert time.monotonic() < until, f"{line!r} was not written in {TIMEOUT_S} s"
            time.sleep(0.01)


class Done:
    """A command that has ended: its exit code, and what it wrote."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @classmethod
    def of(cls, process: subprocess.Popen[str]) -> Done:
        try:
            out, err = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return cls(process.returncode, out, err)

    @property
    def object(self) -> Any:
        """Standard output, which is one JSON object and nothing else."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n--- stderr\n{self.err}"
