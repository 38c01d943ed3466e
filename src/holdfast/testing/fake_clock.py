"""A clock that stands still until the test advances it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Context
from types import TracebackType

from holdfast import clock

_TURNS = 32  # of the loop, for the code that one sleeper woke to come to rest
_POLL_S = 0.001


class FakeClock(clock.Clock):
    """``with FakeClock() as time:`` everything holdfast decides by time, backoffs and waits among it, goes by ``time``.

    ``await time.advance(60)`` lets a minute pass: sleeping tasks wake in the order of their times, each at its own
    time and at rest before the next wakes, also one that goes to sleep again meanwhile. Steps still need the real
    time that their commits take, so a test waits for who must be asleep with ``await time.sleepers(1)`` before it
    advances. asyncio's own timers, those of ``@step(timeout=…)`` among them, are the loop's and stay real.
    """

    def __init__(self, start_ms: int = 1_800_000_000_000) -> None:
        self._start_ms = start_ms
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._replacing: AbstractContextManager[None] | None = None

    def now_ms(self) -> int:
        return self._start_ms + round(self._now * 1000)

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        with self._lock:
            heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), woken))
        await woken

    def call_later(self, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], None]) -> clock.Timer:
        due = loop.create_future()
        due.add_done_callback(lambda over: None if over.cancelled() else callback(), context=Context())
        if seconds <= 0:
            loop.call_soon(_wake, due, context=Context())
        else:
            with self._lock:
                heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), due))
        return _FakeTimer(due)

    @property
    def sleeping(self) -> int:
        """How many tasks are asleep by this clock, and how many waits of runs have a time."""
        with self._lock:
            return sum(not woken.done() for _, _, woken in self._sleepers)

    async def sleepers(self, count: int = 1, *, timeout: float = 10.0) -> None:
        """Wait (in real time, at most ``timeout`` seconds) until at least ``count`` tasks are asleep."""
        deadline = time.monotonic() + timeout
        while self.sleeping < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.sleeping} tasks sleep by the fake clock after {timeout} s, not {count}")
            await asyncio.sleep(_POLL_S)

    async def advance(self, seconds: float) -> None:
        """Let time pass. For programs without a loop: ``hf.wait(time.advance(60))``."""
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({seconds!r})")
        end = self._now + seconds
        while (due := self._next(end)) is not None:
            at, woken = due
            self._now = max(self._now, at)
            loop = woken.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, woken)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        self._now = end
        await asyncio.sleep(0)

    def _next(self, end: float) -> tuple[float, asyncio.Future[None]] | None:
        with self._lock:
            while self._sleepers and self._sleepers[0][2].done():  # cancelled in its sleep
                heapq.heappop(self._sleepers)
            if not self._sleepers or self._sleepers[0][0] > end:
                return None
            at, _, woken = heapq.heappop(self._sleepers)
            return at, woken

    def __enter__(self) -> FakeClock:
        self._replacing = clock.replaced_by(self)
        self._replacing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        assert self._replacing is not None
        self._replacing.__exit__(kind, error, where)


class _FakeTimer:
    def __init__(self, due: asyncio.Future[None]) -> None:
        self._due = due

    def cancel(self) -> None:
        self._due.cancel()


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
