"""What the processes of a crash sweep did, written down outside of every store: one line an event, in a plain file.

A line is one ``write`` to a file opened with O_APPEND, so what a process wrote before it was killed is there, whole
and in order.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import msgspec

from holdfast.branches import current_frame
from holdfast.errors import NotInRun
from holdfast.recall import scope_of
from holdfast.run import LiveRun
from holdfast.store import Batch, Checkpoint, Committed


class Event(msgspec.Struct, omit_defaults=True):
    """``what``: "began" (the body of a step), "acked" (its outcome reached the workflow), "committed" (a row; the store
    said so), "finishing" (a run's end or handing back is sent to the store), "finished" (the store said so), "loaded"
    (a run was claimed and had so many rows), "stopped" and "killed" (this process)."""

    process: int
    what: str
    run_no: int = 0
    place: str = ""
    epoch: int = 0
    seq: int = 0
    checksum: int = 0
    status: str = ""


class Ledger:
    def __init__(self, path: Path, process: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.process = process

    def write(self, what: str, **more: Any) -> None:
        os.write(self._fd, msgspec.json.encode(Event(self.process, what, **more)) + b"\n")

    def close(self) -> None:
        os.close(self._fd)

    def observe(self, what: str, run: LiveRun, row: Checkpoint) -> None:
        """What ``Holdfast._observer`` is told."""
        if what == "executed":
            given = {"place": place_of(row), "seq": row.seq, "status": row.status}
            self.write("acked", run_no=run.no, epoch=run.epoch, **given)

    def write_finishing(self, batch: Batch) -> None:
        """Whether it stands is unknown if the store does not come to answer."""
        for end in batch.finishes:
            self.write("finishing", run_no=end.run_no, epoch=end.epoch, status=end.status)

    def write_commit(self, batch: Batch, committed: Committed) -> None:
        """What the store acknowledged."""
        for row in batch.appends:
            if row.run_no not in committed.fenced:
                given = {"seq": row.seq, "checksum": row.checksum, "status": row.status}
                self.write("committed", run_no=row.run_no, place=place_of(row), epoch=row.epoch, **given)
        for end in batch.finishes:
            if end.run_no not in committed.fenced:
                self.write("finished", run_no=end.run_no, epoch=end.epoch, status=end.status)


def read(path: Path) -> list[Event]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=Event) for line in lines]


def readable(events: list[Event]) -> str:
    """The ledger for people, one line an event."""
    lines = []
    for each in events:
        more = {field: getattr(each, field) for field in ("run_no", "epoch", "seq", "status") if getattr(each, field)}
        told = " ".join(f"{name}={value}" for name, value in more.items())
        lines.append(f"  process {each.process}: {each.what} {each.place} {told}".rstrip())
    return "\n".join(lines)


def place_of(row: Checkpoint) -> str:
    """The place of the call a row is of, in one line: the scope that its body opens."""
    return "" if row.kind == "save" else scope_of(row.scope, row.branch, row.name, row.key, row.n)


class Observed:
    """A function whose every execution is written down the moment its body begins.

    It stands in the place of the function itself, so it sees whatever executes it, recorded or not; to who looks
    (signature, source, code, name) it is the function.
    """

    ledger: Ledger | None = None

    def __init__(self, function: Any) -> None:
        self.__dict__.update(vars(function))
        for name in ("__module__", "__name__", "__qualname__", "__doc__", "__code__", "__defaults__", "__kwdefaults__"):
            setattr(self, name, getattr(function, name, None))
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if inspect.iscoroutinefunction(self.__wrapped__):
            coroutine: Any = self._awaited(args, kwargs)
            coroutine.__qualname__ = self.__wrapped__.__qualname__  # by which tasks are told apart
            return coroutine
        self._note()
        return self.__wrapped__(*args, **kwargs)

    async def _awaited(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._note()
        return await self.__wrapped__(*args, **kwargs)

    def _note(self) -> None:
        ledger = Observed.ledger
        if ledger is None:
            return
        try:
            frame = current_frame()
        except NotInRun:
            frame = None
        if frame is None:
            ledger.write("began", place=f"{self.__wrapped__.__qualname__} (in no run)")
        elif frame.scope:  # else it is the body of the run itself
            ledger.write("began", run_no=frame.run.no, place=frame.scope, epoch=frame.run.epoch)
