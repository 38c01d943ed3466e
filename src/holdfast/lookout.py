"""Looks after the runs of one loop that wait for something outside: signals, and children that others advance.

What it looks at is how often a run was woken; only where that has moved does it read the mail. All of it off the
loop's thread, a few times a second, and only as long as something waits.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from . import branches
from .admission import was_cancelled
from .errors import HoldfastError, StoreError
from .failure import Failure
from .records import refuse_damaged
from .run import LiveRun
from .store import RunRow, Signal, Store
from .waits import Wait

if TYPE_CHECKING:
    from .home import Home

LOOK_EVERY_S = 0.1
_ENDED = frozenset({"done", "failed", "parked", "cancelled"})  # for whoever waits for it
_Seen = tuple[int, list[Signal], dict[str, RunRow | None]]


class _Watched(NamedTuple):
    """What one run waits for, in the order it was begun."""

    signals: dict[Wait, None]
    children: dict[Wait, None]


class Lookout:
    def __init__(self, home: Home, loop: asyncio.AbstractEventLoop) -> None:
        self._home = home
        self._loop = loop
        self._watched: dict[LiveRun, _Watched] = {}
        self._under_way: dict[LiveRun, asyncio.Task[None]] = {}
        self._again: set[LiveRun] = set()
        self._failed: set[LiveRun] = set()  # the store could not be read
        self._known: set[LiveRun] = set()  # all mail they had when they were claimed is read
        self._task: asyncio.Task[None] | None = None

    def watch(self, wait: Wait) -> None:
        """Until it is over, or ``stopped``."""
        run = wait.frame.run
        if wait.future.done():
            return
        watched = self._watched.setdefault(run, _Watched({}, {}))
        (watched.children if wait.row.kind == "run" else watched.signals)[wait] = None
        wait.stopped = partial(self._unwatch, wait)
        if self._task is None or self._task.done():
            self._task = branches.unlabelled_task(self._loop, self._work(), "holdfast lookout")
        self.look(run)

    def _unwatch(self, wait: Wait) -> None:
        run = wait.frame.run
        watched = self._watched.get(run)
        if watched is not None:
            (watched.children if wait.row.kind == "run" else watched.signals).pop(wait, None)
            if not (watched.signals or watched.children):
                del self._watched[run]

    def forget(self, run: LiveRun) -> None:
        """It has ended here."""
        self._known.discard(run)
        self._failed.discard(run)

    def look(self, run: LiveRun) -> None:
        """Look at what outside holds for a run, soon. Called on the loop."""
        if run in self._under_way:
            self._again.add(run)
        elif run.stop is None and not run.finished:
            looking = branches.unlabelled_task(self._loop, self._look(run), f"holdfast look {run.id}")
            self._under_way[run] = looking
            looking.add_done_callback(lambda _: self._looked(run))

    def _looked(self, run: LiveRun) -> None:
        self._under_way.pop(run, None)
        if run in self._again:
            self._again.discard(run)
            self.look(run)

    async def _look(self, run: LiveRun) -> None:
        waits = run.waits
        asked_ms = waits.now_ms()
        watched = self._watched.get(run, _Watched({}, {}))
        # One that comes while we look has not been looked for.
        looked_for = [wait for wait in waits.unlooked if wait in watched.signals or wait in watched.children]
        runs = list(watched.children)
        children = {wait.row.key or "" for wait in runs}
        unsure = {wait.row.key or "" for wait in runs if wait in waits.unlooked or not wait.is_own}
        known_wakes = waits.wakes if run in self._known or waits.wakes == 0 else -1
        see = partial(_see, self._home._store, run.no, known_wakes, waits.mailbox.last_n, children, unsure)
        try:
            wakes, signals, rows = await self._home._read(see)
        except StoreError as error:
            if run not in self._failed:
                run.log.warning("its signals cannot be read: %s", error)
            if run in self._watched:
                self._failed.add(run)
            return
        except HoldfastError:  # closed: the run is being unloaded
            return
        if run.stop is not None or run.finished:
            return
        self._failed.discard(run)
        self._known.add(run)
        for wait in runs if rows else ():
            _tell(wait, rows.get(wait.row.key or ""))
        waits.looked(looked_for, asked_ms, wakes, signals)

    async def _work(self) -> None:
        read, store = self._home._read, self._home._store
        stamp: object = None
        while self._watched:
            # In real time: what others do does not go by the clock of a test.
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                now = await read(store.stamp)
                if now == stamp and not self._failed:
                    continue
                wakes = await read(store.wakes, [run.no for run in self._watched])
            except StoreError:  # the heartbeat decides how long that may last
                continue
            except HoldfastError:
                return
            stamp = now
            for run in list(self._watched):
                unsure = any(not wait.is_own for wait in self._watched[run].children)
                if unsure or run in self._failed or wakes.get(run.no, 0) > run.waits.wakes:
                    self.look(run)


def _see(store: Store, no: int, known_wakes: int, after: int, children: set[str], unsure: set[str]) -> _Seen:
    """What was sent, and what has ended of the children. In this order: who goes to sleep tells the wakes it has
    seen, and what comes behind them wakes it again."""
    wakes = store.wakes([no]).get(no, 0)
    moved = wakes != known_wakes
    signals = store.signals(no, after=after) if moved else []
    stand = store.statuses(list(children if moved else unsure))
    return wakes, signals, {id: store.get(id) for id, status in stand.items() if status in _ENDED}


def _tell(wait: Wait, row: RunRow | None) -> None:
    try:
        if row is not None:
            refuse_damaged(row)
            tell_ended(wait, row)
    except HoldfastError as unreadable:
        wait.fail(unreadable)


def tell_ended(wait: Wait, row: RunRow | None) -> bool:
    """Whether a child's row says that it has ended; its wait is told how."""
    if row is None or row.status not in _ENDED:
        return False
    if row.status == "done":
        wait.settle("done", row.result)
    elif row.status == "cancelled":
        wait.settle("failed", Failure("Cancelled", str(was_cancelled(row.id))).encode())
    else:
        failure = Failure.decode(row.error or b"", f"run {row.id!r}, its error")
        wait.settle("failed", Failure(failure.type, failure.message).encode())
    return True
