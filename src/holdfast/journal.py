"""Group commit: one thread writes what many runs have queued, in one transaction, and wakes each loop once.

There is no batching delay: the next batch starts when the last ends, so it grows by itself when the disk is the
bottleneck. The event loop's thread does no disk I/O. It only hands over and is woken through an eventfd, which costs
less than ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from . import clock
from .errors import Fenced, HoldfastError, StoreError
from .lease import Lease
from .news import Bulletin, Newsroom
from .port import Entry, Finished, Outcome, Port, Row
from .store import FINISHED, Batch, Checkpoint, Committed, Extension, Finish, Revision, RunRow, Store, Verdict

BATCH_MAX = 1024  # rows a transaction
_HALVED_FROM = 16  # fewer rows than this are not worth a second fsync
LOOK_EVERY_S = 0.5  # whether a step is in flight that others have not been told of

_log = logging.getLogger("holdfast")

T = TypeVar("T")


class Standing(NamedTuple):
    """What has changed, by run, of what is in flight and of what is waited for: it goes along with the leases."""

    doing: dict[int, bytes]
    waiting: dict[int, bytes | None]


def _END() -> None:
    """The thread ends here."""


def _NEWS() -> None:
    """The thread wakes up to see that a run has told something."""


class Journal:
    """The committer thread of one ``Holdfast``, and the heartbeat of its leases."""

    def __init__(
        self,
        store: Store,
        owner: str,
        lease: Lease,
        renewed: Callable[[set[int] | None, float, float], None],
        standing: Callable[[], Standing],
    ) -> None:
        self.store = store
        self.owner = owner
        self.lease = lease
        # They must not keep an abandoned Holdfast alive.
        self._renewed = _weakly(renewed, None)
        self._standing = _weakly(standing, Standing({}, {}))
        self._queue: SimpleQueue[Entry | Callable[[], None]] = SimpleQueue()
        self._ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Port] = weakref.WeakKeyDictionary()
        self._newsroom = Newsroom(store)
        self._last_size = 0
        self._failed: Exception | None = None
        self._not_renewed = ""  # why, as it was told last
        self._refused: dict[int, tuple[int, HoldfastError]] = {}  # by run, under which epoch and why
        self._closed = self._ended = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, row: Row, loop: asyncio.AbstractEventLoop, done: Outcome) -> None:
        """Queue a row; ``done`` is called on ``loop``, in the order of submission. Called on the loop's thread."""
        if self._closed:  # its thread ends, or has ended: who asks is told, not left waiting
            closed = StoreError(f"{self.store.url}: this Holdfast is closed; open another one.")
            loop.call_soon(done, None, closed)
            return
        port = self._ports.get(loop)
        if port is None:
            self._start(loop)
            port = self._ports[loop]
        port.expect()
        self._queue.put(Entry(row, loop, done))
        if self._ended:  # closed since it was looked at, by another thread
            self._refuse_what_is_left()

    async def committed(self, row: Row, loop: asyncio.AbstractEventLoop) -> Any:
        """Commit a row and wait for that: the new row of a created run (None if its id existed), whether an event of a
        dialog was written, else None."""
        waiting: asyncio.Future[Any] = loop.create_future()

        def done(result: Any, error: HoldfastError | None) -> None:
            if waiting.done():
                return
            if error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result(result)

        self.submit(row, loop, done)
        return await waiting

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep the heartbeat going from now on, also while there is nothing to commit."""
        if loop not in self._ports:
            self._start(loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.store.url}: this Holdfast is closed; open another one.")
            for gone in [known for known in self._ports if known.is_closed()]:
                self._ports.pop(gone).close()
            self._ports[loop] = Port(loop)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="holdfast-journal", daemon=True)
                self._thread.start()

    def announce(self, bulletin: Bulletin) -> None:
        """There is something in a bulletin that was empty. From any thread."""
        self._newsroom.add(bulletin)
        self._queue.put(_NEWS)

    async def renewed(self, loop: asyncio.AbstractEventLoop) -> None:
        """Renew the leases out of turn, and wait until that was tried: whose they are now, each run was told."""
        tried: asyncio.Future[None] = loop.create_future()

        def then() -> None:
            loop.call_soon_threadsafe(lambda: None if tried.done() else tried.set_result(None))

        self.renew_now(then)
        await tried

    def renew_now(self, then: Callable[[], None]) -> None:
        """Renew the leases out of turn, for a run whose local deadline has passed."""

        def renew() -> None:
            self._renew(self._standing())
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                then()

        if self._closed:
            renew()
        else:
            self._queue.put(renew)

    def close(self) -> None:
        """Commit what is queued and end the thread."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(_END)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            self._ended = True
            self._refuse_what_is_left()
        for port in list(self._ports.values()):
            port.close()

    def _refuse_what_is_left(self) -> None:
        """What a loop queued behind the end, while another thread closed this: told, not left waiting for ever."""
        left: list[Entry] = []
        self._failed = self._failed or StoreError(f"{self.store.url}: this Holdfast is closed; open another one.")
        with suppress(Empty):
            while True:  # two threads may be here at once
                item = self._queue.get_nowait()
                if isinstance(item, Entry):
                    left.append(item)
                elif item is not _END:
                    item()
        self._tell(left, Committed())

    # -- the committer's thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        due = time.monotonic() + self.lease.renew_every_s
        look = time.monotonic() + LOOK_EVERY_S
        while True:
            entries, other = self._next(self._newsroom.due(min(due, look)))
            if entries:
                try:
                    self._newsroom.write_before(entry.row for entry in entries)
                    self._commit(entries)
                except Exception as error:  # a mistake of ours: whoever waits is told, rather than waiting for ever
                    self._failed = error
                    self._tell(entries, Committed())
            if other is _END:
                return
            try:
                self._newsroom.write_due()
                if (now := time.monotonic()) >= min(due, look):
                    look = now + LOOK_EVERY_S
                    standing = self._standing()
                    if now >= due or standing.doing or standing.waiting:
                        self._renew(standing)
                        due = time.monotonic() + self.lease.renew_every_s
                if other is not None:
                    other()
            except Exception as error:  # likewise: were this thread to end, the next row would be waited for in vain
                self._failed = error

    def _next(self, due: float) -> tuple[list[Entry], Callable[[], None] | None]:
        """What is queued, up to the first thing that is no row; waits for the first until ``due``.

        Callers that are answered together ask again together, so with all of them in one batch the loop would be idle
        while the disk works, and the disk while the loop does. Those of the last batch are what the loop works at now:
        half of them all, two batches in turns, keep both busy.
        """
        entries: list[Entry] = []
        last = 0 if self._queue.empty() else self._last_size  # the loop has nothing to do when nothing came from it
        try:
            item = self._queue.get(timeout=max(0.0, due - time.monotonic()))
            half = (last + self._queue.qsize() + 2) // 2
            most = min(BATCH_MAX, max(_HALVED_FROM, half))
            while isinstance(item, Entry):
                entries.append(item)
                self._last_size = len(entries)
                if self._last_size == most:
                    return entries, None
                item = self._queue.get_nowait()
            return entries, item
        except Empty:
            return entries, None

    def _commit(self, entries: list[Entry]) -> None:
        committed = Committed()
        verdicts: dict[int, Verdict] = {}
        if self._failed is None:
            extensions = [entry.row for entry in entries if isinstance(entry.row, Extension)]
            try:
                if len(extensions) < len(entries):
                    sent = [entry.row for entry in entries if self._refusal(entry) is None]
                    committed = self.store.commit(_batch(sent))
                if extensions:
                    verdicts = dict(zip(map(id, extensions), self.store.extend(extensions), strict=True))
            except Exception as error:
                self._failed = error
        self._tell(entries, committed, verdicts)

    def _tell(self, entries: list[Entry], committed: Committed, verdicts: Mapping[int, Verdict] = {}) -> None:
        """``verdicts``: on the extensions among the rows, by the identity of each."""
        finished: dict[asyncio.AbstractEventLoop, list[Finished]] = {}
        special = (
            self._failed or self._refused or committed.fenced or committed.created or committed.refused or verdicts
        )
        for entry in entries:
            outcome = self._outcome(entry, committed, verdicts) if special else (entry, None, None)
            finished.setdefault(entry.loop, []).append(outcome)
        for loop, outcomes in finished.items():
            port = self._ports.get(loop)
            if port is not None:
                port.post(outcomes)

    def _outcome(self, entry: Entry, committed: Committed, verdicts: Mapping[int, Verdict]) -> Finished:
        row = entry.row
        if self._failed is not None:
            # Whether the failed transaction reached the disk is unknown, so nothing behind it may be acknowledged;
            # the next journal reads what stands.
            error = StoreError(str(self._failed) or repr(self._failed))
            error.__cause__ = self._failed
            return entry, None, error
        if isinstance(row, Extension):
            verdict = verdicts[id(row)]
            return (entry, verdict, None) if isinstance(verdict, bool) else (entry, None, verdict)
        if isinstance(row, RunRow):
            return entry, committed.created.get(row.id), committed.refused.get(row.id)
        refused = committed.refused.get(row.run_no)
        if refused is not None:
            self._refused[row.run_no] = row.epoch, refused
        else:
            refused = self._refusal(entry)
        if refused is not None:
            return entry, None, refused
        if row.run_no in committed.fenced:
            return entry, None, Fenced("another owner has taken the run over")
        return entry, None, None

    def _refusal(self, entry: Entry) -> HoldfastError | None:
        """Why nothing more of a run is written under this epoch: rows behind one that was refused would leave a gap. It
        can still be handed back, and is begun anew from what stands."""
        row = entry.row
        if (
            not self._refused
            or isinstance(row, (RunRow, Extension))
            or (isinstance(row, Finish) and row.status not in FINISHED)
        ):
            return None
        epoch, error = self._refused.get(row.run_no, (0, None))
        return error if row.epoch <= epoch else None

    @property
    def failed(self) -> bool:
        return self._failed is not None

    def _renew(self, standing: Standing) -> None:
        began = clock.monotonic()
        try:
            alive = self._failed is None
            held = self.store.renew(self.owner, ttl_ms=self.lease.ttl_ms, **standing._asdict()) if alive else None
            self._not_renewed = ""
        except StoreError as error:
            held = None  # the holder stops by itself at its deadline
            if str(error) != self._not_renewed:  # what to do about it (upgrade holdfast, say) is in no other message
                self._not_renewed = str(error)
                _log.warning("the leases of this process could not be renewed: %s", error)
        self._renewed(held, began, began + self.lease.trusted_s)


def _weakly(method: Callable[..., T], otherwise: T) -> Callable[..., T]:
    there = weakref.WeakMethod(method)

    def call(*args: Any) -> T:
        method = there()
        return otherwise if method is None else method(*args)

    return call


def _batch(rows: list[Row]) -> Batch:
    creates: list[RunRow] = []
    appends: list[Checkpoint] = []
    revisions: list[Revision] = []
    finishes: list[Finish] = []
    for row in rows:
        if isinstance(row, Checkpoint):
            appends.append(row)
        elif isinstance(row, Finish):
            finishes.append(row)
        elif isinstance(row, Revision):
            revisions.append(row)
            appends.append(row.begins)
        elif isinstance(row, RunRow):
            creates.append(row)
    return Batch(creates=creates, appends=appends, revisions=revisions, finishes=finishes)
