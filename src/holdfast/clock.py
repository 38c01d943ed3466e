"""The times holdfast decides by, behind one seam that tests can move by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Protocol

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_ASLEEP_MAX_S = 30.0  # a loop's timer stands still while the machine sleeps, so a long one is looked at in between


class Clock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        """Whole milliseconds since the Unix epoch; told to people, never used to order anything."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that also pass while the machine sleeps, so that a lease cannot outlive a suspended laptop."""
        return time.clock_gettime(_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call it on ``loop`` when so many seconds have passed by this clock. Called on the loop's thread."""
        return _LoopTimer(loop, self.monotonic() + seconds, callback)


class Timer(Protocol):
    def cancel(self) -> None: ...


class _LoopTimer:
    def __init__(self, loop: asyncio.AbstractEventLoop, at: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._at = at
        self._callback = callback
        self._look()

    def _look(self) -> None:
        left = self._at - monotonic()
        # In a context of its own: it would keep that of the code that asked alive, and look as if it were its timer.
        soon = left <= _ASLEEP_MAX_S
        self._handle = self._loop.call_later(
            left if soon else _ASLEEP_MAX_S, self._callback if soon else self._look, context=Context()
        )

    def cancel(self) -> None:
        self._handle.cancel()


_clock = Clock()


def now_ms() -> int:
    return _clock.now_ms()


def monotonic() -> float:
    return _clock.monotonic()


async def sleep(seconds: float) -> None:
    await _clock.sleep(seconds)


def call_later(loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], None]) -> Timer:
    return _clock.call_later(loop, seconds, callback)


@contextmanager
def replaced_by(clock: Clock) -> Iterator[None]:
    """Everything in this process goes by ``clock`` while the block lasts."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before
