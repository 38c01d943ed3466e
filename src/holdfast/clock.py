"""The times holdfast decides by, behind one seam that tests can move by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


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


_clock = Clock()


def now_ms() -> int:
    return _clock.now_ms()


def monotonic() -> float:
    return _clock.monotonic()


async def sleep(seconds: float) -> None:
    await _clock.sleep(seconds)


@contextmanager
def replaced_by(clock: Clock) -> Iterator[None]:
    """Everything in this process goes by ``clock`` while the block lasts."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before
