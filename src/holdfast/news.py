"""What running code tells those who watch: gathered in memory, written by the journal's thread, read by watchers.

News are not history. They are kept in the order of telling, in bounded room, and a watcher that fell behind is told
how many are gone. Whoever tells never waits: not for a disk, not for a watcher.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

import msgspec

from . import codec
from .errors import CodecError
from .store import Checkpoint, Extension, Finish, News, Revision, RunRow, Store

log = logging.getLogger("holdfast")

CHUNK_MAX_BYTES = 64 * 1024
FLUSH_EVERY_S = 0.05
WAITING_MAX_BYTES = 4 * 1024 * 1024  # told by one run and not written yet
KEPT_BYTES = 4 * 1024 * 1024  # of one run, at least, in the store
KEPT_MS = 60_000  # after nobody owns the run any more: the slowest watcher has seen its end by then
_SEGMENT_BYTES = KEPT_BYTES // 4  # old ones go by segments, so that not every flush has to delete
_TOLD_BYTES = 256  # what one thing told takes in memory besides its chunk
_ROW_BYTES = 64

_encode = msgspec.msgpack.Encoder().encode


class Told(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One thing told: after which checkpoint, where, and either an encoded chunk or (done, total)."""

    after: int
    name: str
    place: str
    attempt: int
    said: bytes | tuple[int | float, int | float]


_decoder = msgspec.msgpack.Decoder(list[Told])


def told_in(row: News) -> list[Told]:
    """What a row of news holds; nothing where it cannot be read: it was no promise."""
    try:
        told = _decoder.decode(codec.unseal(row.data, "news", row.run_no, row.epoch, row.n, row.count))
    except (CodecError, msgspec.MsgspecError, ValueError, RecursionError, MemoryError):
        return []
    return told if len(told) == row.count else []


def encode_chunk(chunk: Any) -> bytes:
    """Raises ``CodecError`` for what cannot be written down, or is too big to be told."""
    data = codec.encode(chunk, codec.Types.none, "what holdfast.emit() is given", root="chunk")
    if len(data) > CHUNK_MAX_BYTES:
        raise CodecError(
            f"what holdfast.emit() is given takes {len(data)} bytes, and a chunk at most {CHUNK_MAX_BYTES}: emit it in "
            "parts, or put it in a file and emit its path."
        )
    return data


class Bulletin:
    """What one run, under one epoch, has told since it was written last. Any thread adds, the journal's takes."""

    def __init__(self, run_no: int, epoch: int) -> None:
        self.run_no = run_no
        self.epoch = epoch
        self._lock = threading.Lock()
        self._told: OrderedDict[object, Told] = OrderedDict()
        self._bytes = 0
        self._n = 0
        self._dropped = 0
        self._segments: deque[tuple[int, int]] = deque()  # of those kept in the store, the last number and the bytes
        self._kept_bytes = self._segment_bytes = 0

    def add(self, told: Told) -> bool:
        """Whether it is the first one since they were taken, so that the journal has to be told of it."""
        is_chunk = isinstance(told.said, bytes)
        size = _TOLD_BYTES + len(told.said) if is_chunk else _TOLD_BYTES
        with self._lock:
            first = not self._told
            # Of a bar only its last state is worth telling.
            key = object() if is_chunk else told.place
            if key in self._told:
                self._told.move_to_end(key)
            else:
                self._bytes += size
            self._told[key] = told
            while self._bytes > WAITING_MAX_BYTES:
                _, oldest = self._told.popitem(last=False)
                self._bytes -= _TOLD_BYTES + (len(oldest.said) if isinstance(oldest.said, bytes) else 0)
                self._dropped += 1
            return first

    def take(self) -> News:
        with self._lock:
            told, self._told = self._told, OrderedDict()
            self._n += self._dropped + len(told)
            self._bytes = self._dropped = 0
        data = codec.seal(_encode(list(told.values())), self.run_no, self.epoch, self._n, len(told))
        news = News(run_no=self.run_no, epoch=self.epoch, n=self._n, count=len(told), data=data)
        if news.n == news.count:
            news.forget = 0  # the first of this epoch: those of the last but one go
        self._segment_bytes += len(data) + _ROW_BYTES
        if self._segment_bytes >= _SEGMENT_BYTES:
            self._segments.append((self._n, self._segment_bytes))
            self._kept_bytes += self._segment_bytes
            self._segment_bytes = 0
            while self._kept_bytes - self._segments[0][1] >= KEPT_BYTES:
                news.forget, size = self._segments.popleft()
                self._kept_bytes -= size
        return news


class Newsroom:
    """Writes what bulletins hold, at most every 50 ms, but always before the checkpoint that came after it.

    Only ``add`` may be called from any thread; the rest is the journal's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._arrived: deque[Bulletin] = deque()
        self._waiting: dict[int, Bulletin] = {}
        self._written = self._cleared = float("-inf")
        self._complained = False

    def add(self, bulletin: Bulletin) -> None:
        self._arrived.append(bulletin)

    def due(self, otherwise: float) -> float:
        """When (``time.monotonic``) there is something to write, at the latest at ``otherwise``."""
        return min(otherwise, self._written + FLUSH_EVERY_S) if self._arrived or self._waiting else otherwise

    def write_due(self) -> None:
        if (self._arrived or self._waiting) and time.monotonic() >= self._written + FLUSH_EVERY_S:
            self._write()

    def write_before(self, rows: Iterable[RunRow | Checkpoint | Revision | Finish | Extension]) -> None:
        """A watcher that sees one of these has seen what its run told before."""
        if not (self._arrived or self._waiting):
            return
        self._collect()
        if any(not isinstance(row, (RunRow, Extension)) and row.run_no in self._waiting for row in rows):
            self._write()

    def _collect(self) -> None:
        while self._arrived:
            bulletin = self._arrived.popleft()
            self._waiting[bulletin.run_no] = bulletin

    def _write(self) -> None:
        self._collect()
        waiting, self._waiting = self._waiting, {}
        rows: list[News] = []
        for bulletin in waiting.values():
            try:
                rows.append(bulletin.take())
            except Exception as error:  # one run's trouble is not the next one's
                self._complain(error)
        try:
            self._store.tell(rows)
            if time.monotonic() >= self._cleared + KEPT_MS / 1000:
                self._cleared = time.monotonic()
                self._store.clear_news(idle_ms=KEPT_MS)
        except Exception as error:  # nothing that was promised is lost
            self._complain(error)
        self._written = time.monotonic()

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning("news of running steps cannot be written; they are dropped, and this is said once: %s", error)
