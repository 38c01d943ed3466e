"""Watching a run from any process: what is committed and told comes through the store, and nothing is registered there.

A watcher that is slow, or gone, costs the run nothing: it holds its place by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING

from . import clock, codec
from .blobs import Blobs
from .errors import NotFound
from .news import told_in
from .records import Emitted, Event, Progress, Skipped, checkpoint_of, news_of
from .store import FINISHED, News, Store
from .store import Checkpoint as CheckpointRow

if TYPE_CHECKING:
    from .app import Holdfast

LOOK_EVERY_S = 0.05
_ENDED = FINISHED | {"parked", "in_doubt"}


async def watch(home: Holdfast, id: str, after: int) -> AsyncGenerator[Event, None]:
    """``Holdfast.watch``."""
    watcher = Watcher(home._store, id, after, home._blobs)
    pulse = home._pulses.setdefault(asyncio.get_running_loop(), Pulse(home))
    while True:
        for event in await home._read(watcher.look):
            yield event
        if watcher.ended:
            return
        while (stamp := await pulse.beat()) is None or stamp == watcher.stamp:
            pass


class Pulse:
    """The stamp of the store, looked at once for all the watchers of a loop: many idle ones cost no more than one."""

    def __init__(self, home: Holdfast) -> None:
        self._home = home
        self._next: asyncio.Future[object] | None = None

    async def beat(self) -> object:
        """The stamp a moment from now; None if the watcher that was to look at it is gone."""
        if self._next is not None:
            return await asyncio.shield(self._next)
        self._next = asyncio.get_running_loop().create_future()
        stamp: object = None
        try:
            await clock.sleep(LOOK_EVERY_S)
            stamp = await self._home._read(self._home._store.stamp)
            return stamp
        finally:
            beat, self._next = self._next, None
            beat.set_result(stamp)


class Watcher:
    """How far one watcher has come in a run."""

    def __init__(self, store: Store, id: str, after: int, blobs: Blobs | None = None) -> None:
        self._store = store
        self._blobs = blobs or Blobs(store)
        self._id = id
        self.stamp: object = None  # of the store, when it was looked at last
        self._from = after
        self._seq, self._row_epoch = after, 0  # of the last checkpoint seen
        self._heard: tuple[int, int] | None = None  # epoch and number of the last news seen; None before the first look
        self._held: list[_Found] = []  # news told after a checkpoint that is not committed yet
        self.ended = False

    def look(self) -> list[Event]:
        """What is new since the last look. Blocks on the store. Raises ``NotFound``."""
        self.stamp = self._store.stamp()
        # In this order: what was committed before a checkpoint, or before the end, is seen with it.
        run = self._store.get(self._id)
        if run is None:
            raise NotFound(f"{self._store.url}: there is no run {self._id!r}")
        rows = self._store.load(run.no, after=self._seq)
        epoch, n = self._heard or (0, 0)
        news = self._store.news(run.no, epoch=epoch, n=n)
        events = list(self._in_order(rows, news))
        self.ended = run.status in _ENDED
        return events

    def _in_order(self, rows: list[CheckpointRow], news: list[News]) -> Iterator[Event]:
        held, self._held = self._held, []
        found = [*held, *self._told(news), *(_Found(row.seq, False, row.epoch, row) for row in rows)]
        found.sort(key=lambda each: (each.at, each.is_news))  # stable: news stay in the order of telling
        for each in found:
            if isinstance(each.what, CheckpointRow):
                self._seq, self._row_epoch = each.at, each.epoch
                yield checkpoint_of(each.what, codec.Types.none, self._blobs)
            elif each.at > self._seq:
                self._held.append(each)
            elif each.at < self._seq or each.epoch >= self._row_epoch:
                yield each.what
            # Else it was told after a checkpoint of this number that its owner, now fenced, never committed.

    def _told(self, news: list[News]) -> Iterator[_Found]:
        for row in news:
            epoch, last = self._heard if self._heard is not None else (row.epoch, row.n - row.count)
            missing = row.n - row.count - (last if epoch == row.epoch else 0)
            self._heard = row.epoch, row.n
            every = told_in(row)
            if missing > 0 and every:
                at = max(every[0].after, self._from)
                yield _Found(at, True, row.epoch, Skipped(missing, at, row.epoch))
            for number, told in enumerate(every, row.n - row.count + 1):
                if told.after >= self._from:
                    yield _Found(told.after, True, row.epoch, news_of(told, row.epoch, number))
        if self._heard is None:
            self._heard = 0, 0


class _Found:
    __slots__ = ("at", "epoch", "is_news", "what")

    def __init__(self, at: int, is_news: bool, epoch: int, what: CheckpointRow | Progress | Emitted | Skipped) -> None:
        self.at = at
        self.is_news = is_news
        self.epoch = epoch
        self.what = what
