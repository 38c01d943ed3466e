"""The way from the committer's thread to an event loop: what was committed, and the wake-up that tells of it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeAlias

import msgspec

from .errors import HoldfastError
from .store import Checkpoint, Extension, Finish, Revision, RunRow

LATE_S = 0.002  # a batch later than this is starved by a busy loop
YIELD_S = 0.004  # how long the loop then lets the committer have the interpreter

Outcome: TypeAlias = Callable[[Any, HoldfastError | None], None]
Row: TypeAlias = RunRow | Checkpoint | Revision | Finish | Extension


class Entry(msgspec.Struct):
    """Something to be committed, and who is told on which loop. ``done(result, error)``: a created run's row, whether
    a dialog's event was written, or None.
    """

    row: Row
    loop: asyncio.AbstractEventLoop
    done: Outcome


Finished: TypeAlias = tuple[Entry, Any, HoldfastError | None]


class Port:
    """The way from the committer to one event loop: finished entries, and the wake-up that tells of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._arrived: deque[Finished] = deque()
        self._outstanding: deque[float] = deque()
        self._progress = threading.Event()
        self._guarding = False
        self._pause = 0.0
        self._fd: int | None = None
        self._fd_lock = threading.Lock()  # a write must not hit a descriptor that was closed and given out again
        if hasattr(os, "eventfd"):
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._closer = weakref.finalize(self, os.close, self._fd)
            loop.add_reader(self._fd, self._drain)

    def expect(self) -> None:
        """An entry of this loop was queued (on the loop's thread)."""
        self._outstanding.append(time.monotonic())
        if not self._guarding and (loop := self._loop()) is not None:
            self._guarding = True
            loop.call_later(LATE_S, self._guard, context=Context())  # it is no timer of the run that submits

    def post(self, finished: list[Finished]) -> None:
        """Called by the committer."""
        self._arrived.extend(finished)
        self._progress.set()
        with self._fd_lock:
            if self._fd is not None:
                os.eventfd_write(self._fd, 1)
                return
        if (loop := self._loop()) is not None:
            try:
                loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody waits any more
                pass

    def _drain(self) -> None:
        if self._fd is not None:
            try:
                os.eventfd_read(self._fd)
            except BlockingIOError:
                pass
        while self._arrived:
            entry, result, error = self._arrived.popleft()
            if self._outstanding:
                self._outstanding.popleft()
            try:
                entry.done(result, error)
            except Exception as unexpected:  # one caller's trouble is not the next one's
                entry.loop.call_exception_handler(
                    {"message": "holdfast: an outcome was not taken", "exception": unexpected}
                )

    def _guard(self) -> None:
        """A loop that is never idle takes the interpreter back after every statement of the committer, which then
        commits a few steps a second. Only when a batch is late is it given the interpreter, for a moment."""
        self._guarding = False
        loop = self._loop()
        if loop is None or not self._outstanding:
            return
        self._guarding = True
        late = time.monotonic() - self._outstanding[0] - LATE_S
        if late < 0:
            loop.call_later(-late, self._guard)
            return
        if not self._arrived:
            self._progress.clear()
            self._progress.wait(YIELD_S)
        if self._arrived:
            self._drain()
            self._pause = 0.0
            loop.call_soon(self._guard)
        else:  # it waits for the disk, not for us
            self._pause = min(2 * self._pause or YIELD_S, 0.1)
            loop.call_later(self._pause, self._guard)

    def close(self) -> None:
        """A loop's readers are its own thread's business, so it is asked to let go of ours."""
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._let_go, loop)
                return
        except RuntimeError:  # the loop is closed
            pass
        self._let_go(None)

    def _let_go(self, loop: asyncio.AbstractEventLoop | None) -> None:
        with self._fd_lock:
            fd, self._fd = self._fd, None
        if fd is not None:
            if loop is not None:
                loop.remove_reader(fd)
            self._closer()
