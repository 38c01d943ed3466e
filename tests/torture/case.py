"""The house of every campaign: a zygote, a folder for each case, and what is counted and found."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from holdfast.testing import ledger
from holdfast.testing.crash import fast_folder
from holdfast.testing.driver import Lane, Together, Zygote
from holdfast.testing.reference import Reference
from holdfast.testing.zygote import Program, Reply, Request

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0


@dataclass
class Findings:
    """``injected`` counts what was done to the disk and the processes; ``wrong`` holds what must not be."""

    cases: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {what}" for what, count in sorted(self.injected.items()))
        return f"{self.cases} cases ({counted}) in {self.seconds:.0f} s: {len(self.wrong) or 'nothing'} found"


class Campaign:
    """``target`` and ``store`` are the functions of a module (``module:name``) that the processes run."""

    def __init__(self, target: str, store: str | None, *, jobs: int = 2, stop_at_first: bool = False) -> None:
        self.findings = Findings()
        self._stop_at_first = stop_at_first
        self._jobs = jobs
        self._requests = 0
        self._folders = 0
        path = [str(ROOT), str(ROOT / "tests" / "crash"), str(ROOT / "tests" / "order"), *filter(None, sys.path)]
        self._program = Program(path, _named(target), _named(store) if store else None, None, None, TIMEOUT_S)

    def __enter__(self) -> Campaign:
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-torture-", dir=fast_folder()))
        self._zygote = Zygote(self._program, self.folder).__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._zygote.__exit__(kind, error, where)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, cases: Iterator[Case], until: float | None = None) -> Findings:
        """Try cases until they or the time (monotonic seconds) are at an end."""
        began = time.monotonic()

        def lanes() -> Iterator[Lane]:
            for case in cases:
                if until is not None and time.monotonic() > until:
                    return
                if self._stop_at_first and self.findings.wrong:
                    return
                self.findings.cases += 1
                yield self._lane(case)

        self._zygote.drive(lanes(), self._jobs)
        self.findings.seconds += time.monotonic() - began
        return self.findings

    def drive(self, lane: Lane) -> None:
        """One lane that is no case."""
        self._zygote.drive([lane], 1)

    def _lane(self, case: Case) -> Lane:
        """What is wrong is told with the case's name, which replays it, and the case's ledger."""
        folder = self.new_folder()
        problems = yield from case.lives(self, folder)
        if problems:
            told = [f"{case}:", *(f"  - {each}" for each in problems)]
            events = ledger.read(folder / "ledger.jsonl")[-40:]
            logs = [log.read_text(errors="replace")[-2000:] for log in sorted(folder.glob("process-*.log"))]
            self.findings.wrong.append(
                "\n".join([*told, "the end of the ledger:", ledger.readable(events), "printed:", *logs])
            )
        shutil.rmtree(folder, ignore_errors=True)

    def new_folder(self, like: Path | None = None) -> Path:
        """An empty one, or one with the files of another."""
        self._folders += 1
        folder = self.folder / f"case-{self._folders}"
        folder.mkdir()
        for file in like.iterdir() if like is not None else ():
            shutil.copy(file, folder)
        return folder

    def life(self, folder: Path, process: int, **more: object) -> Generator[Request, Reply, Reply]:
        """One process in this folder, from its start to its end."""
        self._requests += 1
        return (yield Request(self._requests, str(folder), process, **more))  # type: ignore[arg-type]


@dataclass
class Case:
    """``lives(campaign, folder)`` yields the processes and returns what is wrong, in sentences."""

    name: str
    lives: Callable[[Campaign, Path], Generator[Request | Together, Any, list[str]]]

    def __str__(self) -> str:
        return self.name


def _named(function: str) -> Reference:
    module, _, name = function.partition(":")
    return Reference(module, "", name)
