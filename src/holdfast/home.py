"""What is behind a ``Holdfast``: its store, its threads, what is live in this process, and how it all ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from . import branches
from .admission import refuse_while_imported
from .background import BackgroundLoop
from .blobs import Blobs
from .errors import HoldfastError
from .journal import Journal, Standing
from .lease import Lease, owner_name
from .lookout import Lookout
from .store import Store
from .unreturned import Unreturned

if TYPE_CHECKING:
    from .execution import Execution
    from .watching import Pulse

T = TypeVar("T")

MOVERS = 4  # threads that move big values


class Held(Protocol):
    """What is owned under a lease and is no run that an ``Execution`` drives: a session, an invocation of ADK."""

    def renewed(self, held: set[int] | None, began: float, deadline: float) -> None:
        """Told by the heartbeat, on the journal's thread: the numbers of what is still ours, None if nobody knows."""

    async def unload(self) -> None:
        """The ``Holdfast`` is being closed."""


class Home:
    """The half of a ``Holdfast`` that its runs, sessions and watchers use."""

    def __init__(self, store: Store, lease: Lease | None = None, blobs: Blobs | None = None) -> None:
        self._store = store
        self._blobs = blobs or Blobs(store)
        self._lease = lease or Lease()
        self._lock = threading.RLock()
        self._observer: Any = None
        self._heard: Callable[[set[int] | None], None] | None = None  # told of each heartbeat, on the journal's thread
        self._closing = self._closed = False
        self._serving = False  # a worker: what its runs begin as runs of their own waits in the queue
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._live: dict[str, Execution] = {}
        self._sessions: dict[int, Held] = {}
        self._unreturned = Unreturned(self._store)
        self._session_ids: set[str] = set()  # of those that are open, and of those being opened
        self._owner: str | None = None
        self._journal_now: Journal | None = None
        self._readers: concurrent.futures.ThreadPoolExecutor | None = None
        self._movers: concurrent.futures.ThreadPoolExecutor | None = None  # of big values
        self._background: BackgroundLoop | None = None
        self._pulses: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pulse] = weakref.WeakKeyDictionary()
        self._lookouts: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lookout] = weakref.WeakKeyDictionary()
        self._finalizer: weakref.finalize[Any, Any] | None = None

    @property
    def url(self) -> str:
        """The store, as one would name it to open it again."""
        return self._store.url

    @property
    def owner(self) -> str:
        """The name under which this ``Holdfast`` owns runs."""
        if self._owner is None:
            self._owner = owner_name()
        return self._owner

    def _check_open(self, *, for_more: bool = False) -> None:
        if self._closed or (for_more and self._closing):
            raise HoldfastError(f"{self.url}: this Holdfast is closed; open another one with holdfast.open(…)")
        if for_more:
            refuse_while_imported(self)

    @property
    def _journal(self) -> Journal:
        journal = self._journal_now
        if journal is None or journal.failed:
            self._check_open()
            with self._lock:
                if self._journal_now is None or self._journal_now.failed:
                    gone = self._journal_now
                    asked = self._renewed, self._standing
                    self._journal_now = Journal(self._store, self.owner, self._lease, *asked)
                    if self._finalizer is not None:
                        self._finalizer.detach()
                    # Runs at exit too, so that a program that never closes ends its thread between two commits.
                    self._finalizer = weakref.finalize(self, _shut, self._journal_now, self._store)
                    if gone is not None:
                        threading.Thread(target=gone.close, daemon=True).start()
                journal = self._journal_now
        return journal

    async def _read(self, method: Callable[..., T], *args: Any) -> T:
        """Call the store off the loop's thread."""
        self._check_open()
        if self._readers is None:
            with self._lock:
                if self._readers is None:
                    self._readers = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="holdfast-read")
        return await asyncio.get_running_loop().run_in_executor(self._readers, method, *args)

    def _move(self, method: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Read or write a big value in a thread, where it is in nobody's way."""
        self._check_open()
        with self._lock:
            if self._movers is None:
                self._movers = concurrent.futures.ThreadPoolExecutor(MOVERS, thread_name_prefix="holdfast-blob")
        moving = asyncio.get_running_loop().run_in_executor(self._movers, method, *args)
        moving.add_done_callback(_seen)
        return moving

    def _lookout(self, loop: asyncio.AbstractEventLoop) -> Lookout:
        lookout = self._lookouts.get(loop)
        if lookout is None:
            lookout = self._lookouts[loop] = Lookout(self, loop)
        return lookout

    def _renewed(self, held: set[int] | None, began: float, deadline: float) -> None:
        for execution in list(self._live.values()):
            execution.renewed(held, began, deadline)
        for session in list(self._sessions.values()):
            session.renewed(held, began, deadline)
        self._unreturned.renewed(held)
        if self._heard is not None:
            self._heard(held)

    def _standing(self) -> Standing:
        """By number of the run: what it has in flight and waits for, where that is not what was told before."""
        runs = [execution.run for execution in list(self._live.values()) if execution.run is not None]
        doing = {run.no: told for run in runs if (told := run.told_anew()) is not None}
        waiting = {run.no: anew[0] for run in runs if (anew := run.waits.told_anew()) is not None}
        return Standing(doing, waiting)

    async def aclose(self) -> None:
        """Unload what still runs, commit what is queued, close the store."""
        if self._closed:
            return
        self._closing = True
        await self._unload_all()
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._close)

    def close(self) -> None:
        """The same for programs without a loop."""
        if self._closed:
            return
        if self._background is not None:
            self._closing = True
            self._background.wait(self._unload_all())
            self._background.close()
        elif self._live:
            raise HoldfastError(f"{self.url}: runs are live on an event loop; close with: await hf.aclose()")
        self._closed = True
        self._close()

    async def _unload_all(self) -> None:
        for execution in list(self._live.values()):
            await execution.unload()
        for session in list(self._sessions.values()):
            await session.unload()

    def _close(self) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._journal_now is not None:
            self._journal_now.close()
        for pool in (self._readers, self._movers):
            if pool is not None:
                pool.shutdown()
        self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _seen(moved: asyncio.Future[Any]) -> None:
    """Its error is told to whoever waits. Of a run that stopped meanwhile nobody does, and what stopped it was told."""
    if not moved.cancelled():
        moved.exception()


_all: weakref.WeakSet[Home] = weakref.WeakSet()


def _shut(journal: Journal, store: Store) -> None:
    journal.close()
    store.close()


def _forked() -> None:
    """In a forked child the parent's connections, threads and leases are not the child's: begin anew."""
    branches.forget_runs()
    for home in list(_all):
        if home._finalizer is not None:
            home._finalizer.detach()
        home._store.forget()
        home._lock = threading.RLock()
        home._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
