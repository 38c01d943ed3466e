"""Where in the user's program a call is made. Looked for only when it has to be told, so no call pays for it.

Code that runs is found on the stack of its task or thread; code that has left its call to another task (``gather``)
is found where its own task pauses.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from . import resting
from .branches import Frame

if TYPE_CHECKING:
    from .run import LiveRun

_OURS = f"{Path(__file__).parent}{os.sep}"
_LIBRARY = f"{Path(os.__file__).parent}{os.sep}"
_INSTALLED = f"{os.sep}site-packages{os.sep}"
_LINE_MAX = 120


class Line(NamedTuple):
    """A line of the user's program; ``function`` is the qualified name of what it is in."""

    file: str
    number: int
    function: str

    @property
    def place(self) -> str:
        return f"{_as_typed(self.file)}:{self.number}, in {self.function}"

    def __str__(self) -> str:
        import linecache

        text = linecache.getline(self.file, self.number).strip()
        shown = text if len(text) <= _LINE_MAX else text[: _LINE_MAX - 1] + "…"
        return f"{self.place}: {shown}" if shown else self.place


def line_of(frame: Frame) -> Line | None:
    """The innermost line of the program from which the call of ``frame`` that is now looked at was made, or is now
    awaited. None where no code of the program can be seen."""
    return _line_in(_running(frame)) or _line_in(_paused(frame.task))


def lines_of(run: LiveRun, thread: int) -> Iterator[Line]:
    """The lines of the program that a run is at, looked at from outside; ``thread`` is that of its loop."""
    running = _line_in(_outwards(sys._current_frames().get(thread), None))
    if running is not None:
        yield running
    for task in list(run.members):
        if (paused := _line_in(_frames_of(task))) is not None:
            yield paused
    for each in threading.enumerate():
        if each.name == f"holdfast-{run.id}" and (
            line := _line_in(_outwards(sys._current_frames().get(each.ident or 0), None))
        ):
            yield line


def _line_in(frames: Iterator[FrameType]) -> Line | None:
    """The innermost line that is the user's own; where there is none, that of an installed library."""
    of_library = None
    for each in frames:
        code = each.f_code
        if code.co_filename.startswith(_OURS) or (
            code.co_filename.startswith((_LIBRARY, "<frozen")) and _INSTALLED not in code.co_filename
        ):
            continue
        line = Line(code.co_filename, each.f_lineno, getattr(code, "co_qualname", code.co_name))
        if _INSTALLED not in code.co_filename:
            return line
        of_library = of_library or line
    return of_library


def _running(frame: Frame) -> Iterator[FrameType]:
    """The stack of the thread that makes a call, or of the task this is called in, innermost first."""
    if frame.thread:
        yield from _outwards(sys._current_frames().get(frame.thread), None)
        return
    task = asyncio.current_task()
    outermost = None if task is None else next(resting.awaited_by(task.get_coro()), None)
    yield from _outwards(sys._getframe(1), resting.frame_of(outermost))


def _outwards(innermost: FrameType | None, outermost: FrameType | None) -> Iterator[FrameType]:
    while innermost is not None:
        yield innermost
        if innermost is outermost:
            return  # outside of a task's coroutine stands only what runs the loop
        innermost = innermost.f_back


def _paused(task: asyncio.Task[object] | None) -> Iterator[FrameType]:
    if task is not None and task is not asyncio.current_task():
        yield from _frames_of(task)


def _frames_of(task: asyncio.Task[object]) -> Iterator[FrameType]:
    """Innermost first, of a task that pauses."""
    for coro in reversed(list(resting.awaited_by(task.get_coro()))):
        if (paused := resting.frame_of(coro)) is not None:
            yield paused


def _as_typed(file: str) -> str:
    """Below the working directory as one would type it there."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file
