"""The crash sweep: a real process killed at every call of the store, and what must hold afterwards."""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast import codec
from holdfast.app import Holdfast
from holdfast.store import Store
from holdfast.workflow import Call

from . import ledger
from .driver import Lane, Zygote
from .reference import reference_to
from .verdict import problems_of
from .zygote import ENVIRONMENT, Crash, Program, Reply, Request, open_in

Target = Call[Any] | Callable[[Holdfast], Awaitable[Any]]


@dataclass
class Sweep:
    """What a crash sweep did. ``points`` are the crashes that came about, ``unreached`` those whose call never came
    because the program, timed otherwise, made fewer of them; it was checked all the same."""

    program: str
    seed: int
    points: list[str] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)
    kills: int = 0
    processes: int = 0
    seconds: float = 0.0
    result: Any = None

    def __str__(self) -> str:
        missed = f", {len(self.unreached)} points not reached" if self.unreached else ""
        return (
            f"crash sweep of {self.program}: {len(self.points)} crash points, {self.kills} kills, "
            f"{self.processes} processes, {self.seconds:.1f} s, seed {self.seed}{missed}"
        )


def crash_sweep(
    target: Target,
    *,
    store: Callable[[Path], Store] | None = None,
    state: Mapping[str, Any] | None = None,
    raises: type[Exception] | None = None,
    only: str | None = None,
    limit: int | None = None,
    second: int = 8,
    seed: int | None = None,
    jobs: int = 2,
    timeout: float = 60.0,
) -> Sweep:
    """Kill a process (SIGKILL) before and after every call of the store, resume in a new process, and check what
    holdfast promises.

    ``target``: a call such as ``review_loan("A-17")`` or ``review.bind("A-17")`` of a workflow at the top of a module
    or script, or an ``async def`` function there that is given a ``Holdfast``. Each point has a SQLite file of its
    own, or the store that ``store`` (a function at the top of a module) opens in the folder it is given. Checked is
    that the outcome is that of a run nobody killed; that each step whose row was committed was not executed again, by
    a ledger outside the store; that nothing acknowledged is lost; that ``seq`` has no gap; that epochs rise; that
    deaths are counted.

    The calls a resume makes are swept too, after a crash in the middle; ``second`` is how many further pairs of
    crashes are tried, chosen by ``seed``. ``limit`` caps the number of points, chosen by ``seed``, for programs with
    many. ``only`` tries one point, as a failure names it: ``only="commit 3 after"``. ``timeout`` is in seconds, for
    each process.

    The module is imported in a new process, which then forks: patches made by a test are not there, prints go to a
    log. Under its own file name a script is imported anew, so the sweep itself belongs under ``if __name__ ==
    "__main__":``.

    Raises ``AssertionError`` naming the point, the seed, the ledger, and how to replay it.
    """
    if os.environ.get(ENVIRONMENT):
        raise RuntimeError(
            'crash_sweep was called while its own module is imported: put it under if __name__ == "__main__":'
        )
    if not hasattr(os, "fork"):
        raise RuntimeError("a crash sweep forks a process for each crash, which this system cannot")
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    sweep = Sweep(_name(target), seed)
    program = _program(target, store, state, timeout)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-sweep-", dir=fast_folder()))
    began = time.monotonic()
    try:
        with Zygote(program, folder) as zygote:
            _Sweeping(sweep, zygote, folder, store, jobs, raises).run(only, limit, second)
    finally:
        sweep.seconds = time.monotonic() - began
        shutil.rmtree(folder, ignore_errors=True)
    return sweep


def _name(target: Target) -> str:
    if isinstance(target, Call):
        given = ", ".join(f"{name}={value!r}" for name, value in target.arguments.items())
        return f"{target.definition.name}({given})"[:200]
    return str(getattr(target, "__qualname__", target))


def _program(
    target: Target, store: Callable[[Path], Store] | None, state: Mapping[str, Any] | None, timeout: float
) -> Program:
    arguments = None
    if isinstance(target, Call):
        target.take()
        definition = target.definition
        if definition.is_method:
            raise TypeError(
                f"workflow {definition.name!r} is a method, and its object cannot be taken to another process"
            )
        reference = reference_to(definition.function, "workflow")
        what = f"the arguments of {definition.name!r}"
        arguments = codec.encode(target.arguments, definition.parameter_types, what, root="")
    elif callable(target) and hasattr(target, "__qualname__"):
        reference = reference_to(target, "program")
    else:
        raise TypeError(f"expected the call of a workflow, or an async function that takes a Holdfast; got {target!r}")
    return Program(
        path=_import_path(),
        target=reference,
        store=None if store is None else reference_to(store, "store"),
        arguments=arguments,
        state=codec.encode(dict(state), codec.Types.none, "the initial state", root="state") if state else None,
        timeout=timeout,
    )


def _import_path() -> list[str]:
    import sys

    return [str(Path(each).resolve()) if each else str(Path.cwd()) for each in sys.path]


def fast_folder() -> str | None:
    """Memory, where it can be had: a killed process loses nothing there either, and an fsync costs nothing."""
    shared = Path("/dev/shm")
    try:
        roomy = shutil.disk_usage(shared).free > 1 << 28 and os.access(shared, os.W_OK)
    except OSError:
        return None
    return str(shared) if roomy else None


_Point = tuple[Crash, ...]


class _Sweeping:
    def __init__(
        self,
        sweep: Sweep,
        zygote: Zygote,
        folder: Path,
        factory: Callable[[Path], Store] | None,
        jobs: int,
        raises: type[Exception] | None,
    ) -> None:
        self.sweep = sweep
        self.zygote = zygote
        self.folder = folder
        self.factory = factory
        self.jobs = max(1, jobs)
        self.raises = raises
        self.random = random.Random(sweep.seed)
        self.numbers = 0
        self.calls: dict[_Point, dict[str, int]] = {}  # of the last process, where it ended by itself
        self.came: dict[_Point, bool] = {}
        self.plain: Reply | None = None
        self._template = folder / "template"
        if factory is None:
            self._template.mkdir()
            made = open_in(self._template, None)
            made.get("")
            made.close()

    def run(self, only: str | None, limit: int | None, second: int) -> None:
        self._do([()])
        if only is not None:
            self._do([_parsed(only)])
            return
        points = _points((), self.calls[()])
        commits = self.calls[()].get("commit", 0)
        middles: list[_Point] = [(Crash("commit", n, "after"),) for n in range((commits + 1) // 2, 0, -1)]
        if limit is not None and len(points) > limit:
            chosen = set(self.random.sample(points, limit))
            points = [point for point in points if point in chosen]
        self._do([*points, *(middle for middle in middles[:1] if middle not in points)])
        resumed = self._sweep_a_resume(middles, points)
        rest = [(*first, point[-1]) for first in points for point in resumed]
        pairs = self.random.sample(rest, min(second, len(rest)))
        self._do([pair for pair in dict.fromkeys(pairs) if pair not in self.came])

    def _sweep_a_resume(self, middles: list[_Point], done: list[_Point]) -> list[_Point]:
        """The points of a resume after a crash in the middle, tried. How many rows a commit takes is not the same each
        time, so the run may have ended before it comes to the middle: then one before it is taken."""
        came: set[Crash] = set()
        for middle in middles:
            if middle not in self.calls and middle not in done:
                self._do([middle])
            if "claim" not in self.calls.get(middle, {}):
                continue
            resumed = _points(middle, self.calls[middle])
            # The claim's calls come before the first commit of a resume; behind it the first process saw them all.
            behind = [point for point in resumed if point[-1].method != "commit"]
            self._do(behind)
            came |= {point[-1] for point in behind if self.came[point]}
            if came >= {point[-1] for point in behind}:
                return resumed
        return []

    def _do(self, points: list[_Point]) -> None:
        self.zygote.drive(map(self._lane, points), self.jobs)
        for each in points:
            if each:
                (self.sweep.points if self.came[each] else self.sweep.unreached).append(_written(each))

    def _lane(self, point: _Point) -> Lane:
        """One point: crash, resume (and crash again), and look at what stands."""
        folder = self._folder()
        replies: list[Reply] = []
        reply = Reply(0)
        for process, crash in enumerate((*point, None), 1):
            self.numbers += 1
            self.sweep.processes += 1
            reply = yield Request(self.numbers, str(folder), process, crash)
            replies.append(reply)
            self.sweep.kills += reply.killed
            if not reply.killed:
                break
        if not point and self.plain is None:
            # The plain run is what all others are compared with; done again, it returns the same and executes nothing.
            self.plain = reply
            self.numbers += 1
            self.sweep.processes += 1
            replies.append((yield Request(self.numbers, str(folder), 2, None)))
        else:
            came = len(replies) > len(point)
            self.came[point] = came
        self.calls[point] = reply.calls
        self._judge(point, folder, replies)

    def _judge(self, point: _Point, folder: Path, replies: list[Reply]) -> None:
        assert self.plain is not None
        events = ledger.read(folder / "ledger.jsonl")
        store = open_in(folder, self.factory)
        try:
            problems = problems_of(store, events, dict(enumerate(replies, 1)), self.plain)
        finally:
            store.close()
        if not point:
            problems = [*self._of_plain(), *problems]
        if problems:
            raise AssertionError(self._report(point, folder, problems, events))
        shutil.rmtree(folder, ignore_errors=True)
        if not point:
            self.sweep.result = codec.readable(self.plain.result) if self.plain.result is not None else None

    def _of_plain(self) -> list[str]:
        """Whether the program does at all what it is expected to."""
        assert self.plain is not None
        raised = self.plain.failed.partition(":")[0] if self.plain.failed is not None else None
        expected = self.raises.__qualname__ if self.raises is not None else None
        if raised == expected:
            return []
        told = self.plain.failed or "ended without an error"
        hint = "" if self.raises else " (if that is how it ends, say so: raises=…)"
        return [f"the program itself: {told}{hint}" if raised else f"the program {told}, and not with {expected}"]

    def _report(self, point: _Point, folder: Path, problems: list[str], events: list[ledger.Event]) -> str:
        where = f"at {_written(point)!r}" if point else "in the run that nobody killed"
        replay = f"only={_written(point)!r}, seed={self.sweep.seed}" if point else f"seed={self.sweep.seed}"
        logs = [
            f"  process {log.stem.rpartition('-')[2]}: {line}"
            for log in sorted(folder.glob("process-*.log"))
            for line in log.read_text(errors="replace").splitlines()[-25:]
        ]
        return "\n".join(
            [
                f"crash sweep of {self.sweep.program} failed {where} (seed {self.sweep.seed}):",
                *(f"  - {each}" for each in problems),
                f"replay: crash_sweep(…, {replay})",
                "ledger:",
                ledger.readable(events),
                *(["printed:", *logs] if logs else []),
            ]
        )

    def _folder(self) -> Path:
        folder = self.folder / f"point-{self.numbers + 1}"
        if self.factory is None:
            shutil.copytree(self._template, folder)
        else:
            folder.mkdir()
        return folder


def _points(before: _Point, calls: dict[str, int]) -> list[_Point]:
    return [
        (*before, Crash(method, n, side))
        for method in sorted(calls)
        for n in range(1, calls[method] + 1)
        for side in ("before", "after")
    ]


def _written(point: _Point) -> str:
    return ", then ".join(map(str, point))


def _parsed(only: str) -> _Point:
    crashes = []
    for part in only.split(", then "):
        found = re.fullmatch(r"(\w+) (\d+) (before|after)", part.strip())
        if found is None:
            raise ValueError(
                f'only= names crash points such as "commit 3 after" or "commit 3 after, then claim 1 before": {only!r}'
            )
        crashes.append(Crash(found[1], int(found[2]), found[3]))
    return tuple(crashes)
