"""A worker: claims runs of its queues, submitted and abandoned ones, and advances so many of them at once.

It works in rounds: which owners on this host are dead, then what each queue has for the slots that are free. Between
two rounds it listens to the store. All of that is done in threads, since the loop is that of the runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import branches, clock, known, lease
from .body import UNWIND_S
from .errors import StoreError
from .records import count
from .served import Served
from .store import Code, RunRow, Taken

if TYPE_CHECKING:
    from .app import Holdfast
    from .execution import Execution

LISTEN_S = 0.5  # so soon a dead owner on this host is noticed
PACE_S = 0.05  # between two rounds, where the store tells of changes all the time
SUSPEND_AFTER_S = 1.0  # of waiting
WAITING_MAX = 4  # times as many as there are slots may wait in memory; whoever comes to a crowd goes at once
AWAY_FIRST_S, AWAY_MAX_S = 0.5, 15.0
UNKNOWN_EVERY_S = 30.0  # how often runs are looked for that nobody here knows
PAGE = 200  # rows looked at at once
FAILED_KEPT = 10_000

_log = logging.getLogger("holdfast")


class Queue(NamedTuple):
    """``limit``: at most so many of its runs have a living owner at once, over all workers that say so."""

    name: str
    limit: int | None = None


class Adapted(NamedTuple):
    """Runs that another framework's code advances. ``code`` is what must have recorded them, None if any may have."""

    code: Code | None
    serve: Callable[[Holdfast, Taken, float, int], Served]


class Worker:
    """Lives on one loop, from ``serve`` to its end; ``drain`` is called on that loop."""

    def __init__(
        self,
        home: Holdfast,
        queues: list[Queue],
        *,
        concurrency: int,
        grace_s: float,
        alive: Callable[[], None] | None = None,
        adapted: Mapping[str, Adapted] = {},
    ) -> None:
        self._home = home
        self._queues = queues
        self._concurrency = concurrency
        self._grace_s = grace_s
        self._adapted = adapted  # by name of the workflow
        self._alive = alive  # called after each heartbeat that the store has answered, on the journal's thread
        self._loop = asyncio.get_running_loop()
        self._served: dict[asyncio.Task[None], Served] = {}
        self._failed: dict[str, int] = {}  # by id, how often in a row a run was handed back here
        self._unknown: set[str] = set()  # workflows that were told of
        self._unknown_at = -UNKNOWN_EVERY_S
        self._strange: set[int] = set()  # runs that the last heartbeat found to be ours, and nobody here advances
        self._lost: set[int] = set()  # and the one before it, too
        self._woken = asyncio.Event()  # there is reason for a round: a slot is free, or the end has come
        self._ending, self._at_once = asyncio.Event(), asyncio.Event()
        self._listener = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="holdfast-listen")
        self._listening: asyncio.Future[Any] | None = None
        self._others: set[asyncio.Task[Any]] = set()  # kept, or they might be collected while they wait

    async def serve(self) -> bool:
        """Until it has been drained; whether every step that was in flight could finish. Raises ``StoreError`` if the
        store cannot be read when it begins; later trouble is waited out."""
        branches.install(self._loop)
        self._home._serving, self._home._heard = True, self._hear
        self._home._journal.serve(self._loop)
        try:
            await self._round()
            if self._alive is not None:
                await self._home._read(self._alive)
            await self._go_on()
            return await self._drained()
        finally:
            self._home._heard = None
            await self._loop.run_in_executor(None, self._listener.shutdown)

    def drain(self) -> None:
        """Begin no run and no step any more, let what is in flight finish, and end. Asked again: end at once."""
        if self._ending.is_set():
            self._at_once.set()
        self._ending.set()
        self._woken.set()

    async def _go_on(self) -> None:
        away_s = 0.0
        while not self._ending.is_set():
            self._woken.clear()
            try:
                await self._rest()
                self._home._journal.serve(self._loop)  # the one before it may have failed
                await self._round()
            except StoreError as error:
                away_s = min(2 * away_s or AWAY_FIRST_S, AWAY_MAX_S)
                _log.warning("worker: the store does not answer, asking again in %.1f s: %s", away_s, error)
                await self._pause(away_s * random.uniform(0.5, 1.0))
            else:
                if away_s and not self._ending.is_set():  # then nobody asked
                    _log.warning("worker: the store answers again")
                away_s = 0.0

    # -- rounds --------------------------------------------------------------------------------------------

    @property
    def _free(self) -> int:
        """Slots for runs. One that waits needs none; when it goes on there may be more at work than there are slots."""
        return self._concurrency - len(self._served) + self._idle

    @property
    def _idle(self) -> int:
        return sum(served.is_idle for served in self._served.values())

    async def _round(self) -> None:
        free, accepted = self._free, self._accepted()
        if self._lost:
            await self._adopt()
        if free > 0 and not self._ending.is_set():
            began = clock.monotonic()
            claimed: list[Taken] = []
            try:
                await self._home._read(self._claim, accepted, free, claimed)
            finally:  # what was claimed before the store failed is ours all the same
                for taken in claimed:
                    self._begin(taken, began)
        if clock.monotonic() - self._unknown_at >= UNKNOWN_EVERY_S:
            self._unknown_at = clock.monotonic()
            self._tell_unknown(await self._home._read(self._others_runs, set(accepted)))

    @property
    def names(self) -> set[str]:
        """The workflows whose runs it takes."""
        return set(self._accepted())

    def _accepted(self) -> dict[str, Code | None]:
        return known.accepted() | {name: each.code for name, each in self._adapted.items()}

    def _claim(self, accepted: dict[str, Code | None], free: int, claimed: list[Taken]) -> None:
        store, owner = self._home._store, self._home.owner
        dead = [each for each in store.owners() if each != owner and lease.is_dead(each)]
        for queue in self._queues:
            if free > len(claimed):
                claimed += store.claim_due(
                    owner,
                    ttl_ms=self._home._lease.ttl_ms,
                    queue=queue.name,
                    workflows=accepted,
                    dead=dead,
                    limit=free - len(claimed),
                    at_once=queue.limit,
                )

    def _begin(self, taken: Taken, began: float) -> None:
        adapted = self._adapted.get(taken.row.workflow)
        serve = Served if adapted is None else adapted.serve
        served = serve(self._home, taken, began, self._failed.get(taken.row.id, 0))
        task = self._loop.create_task(self._advance(served), name=f"holdfast serve {taken.row.id}")
        self._served[task] = served

    async def _advance(self, served: Served) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await served.live(self._waiting_changed)
        except Exception:  # a mistake of ours must not go unseen
            served.log.exception("cannot be advanced")
        finally:
            del self._served[task]
            times = self._failed.pop(served.row.id, 0)
            if served.passing and len(self._failed) < FAILED_KEPT:
                self._failed[served.row.id] = times + 1
            self._woken.set()

    async def _rest(self) -> None:
        """Until there is reason to look again."""
        if self._free <= 0:
            await self._woken.wait()
        if self._woken.is_set():
            return
        if self._listening is None:
            self._listening = self._loop.run_in_executor(self._listener, self._home._store.listen, LISTEN_S)
        woken: asyncio.Future[Any] = self._loop.create_task(self._woken.wait())
        await asyncio.wait({self._listening, woken}, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()
        if self._listening.done():
            heard, self._listening = self._listening, None
            heard.result()
            await self._pause(PACE_S)

    async def _pause(self, seconds: float) -> None:
        """So long, or until the end has come."""
        await self._until(self._ending, seconds)

    async def _until(self, event: asyncio.Event, seconds: float, others: set[asyncio.Task[None]] | None = None) -> bool:
        """Until the event, or all of ``others`` are done, or so long; whether all of them are."""
        left: set[asyncio.Task[Any]] = set(others or ())
        ends: set[asyncio.Task[Any]] = {self._loop.create_task(event.wait()), self._loop.create_task(_slept(seconds))}
        try:
            while others is None or left:
                done, _ = await asyncio.wait({*left, *ends}, return_when=asyncio.FIRST_COMPLETED)
                if done & ends:
                    break
                left -= done
        finally:
            for each in ends:
                each.cancel()
        return not {each for each in left if not each.done()}

    # -- waiting runs --------------------------------------------------------------------------------------

    def _waiting_changed(self, execution: Execution) -> None:
        for served in self._served.values():
            if served.execution is execution:
                served.waits += 1
                if execution.is_waiting:
                    self._keep(self._suspend(served, served.waits))
        self._woken.set()

    async def _suspend(self, served: Served, waits: int) -> None:
        """A run that has waited for a while is written down and let go of."""
        if not self._ending.is_set() and self._idle <= WAITING_MAX * self._concurrency:
            await self._until(self._ending, SUSPEND_AFTER_S)
        if served.waits == waits and served.execution is not None and served.is_waiting:
            await served.execution.suspend()

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not in the context of the run that may have asked for it: it would look as if the run's code had made it.
        task = branches.unlabelled_task(self._loop, work, "holdfast worker")
        self._others.add(task)
        task.add_done_callback(self._others.discard)
        return task

    # -- runs that are ours, and nobody here knows of them -------------------------------------------------

    def _hear(self, held: set[int] | None) -> None:
        """Told by the heartbeat, on the journal's thread: which runs are ours.

        A claim whose answer was lost with the connection would be prolonged for ever, and nobody advance the run."""
        if held is None:
            return
        if self._alive is not None:
            self._alive()
        home = self._home
        ours = {served.row.no for served in list(self._served.values())} | set(home._sessions)
        ours |= {live.run.no for live in list(home._live.values()) if live.run is not None}
        before, self._strange = self._strange, held - ours
        if lost := before & self._strange:
            self._loop.call_soon_threadsafe(self._look_for, lost)

    def _look_for(self, lost: set[int]) -> None:
        self._lost |= lost
        self._woken.set()

    async def _adopt(self) -> None:
        lost, self._lost = self._lost, set()
        began = clock.monotonic()
        rows = await self._home._read(lambda: [row for row in self._pages("running") if row.no in lost])
        served = {each.row.no for each in self._served.values()}
        for row in rows:
            is_known = row.no in served or row.id in self._home._live or not row.workflow  # a session knows of itself
            if row.owner == self._home.owner and not is_known:
                self._begin(Taken(row, row, None), began)

    def _pages(self, status: str) -> Iterator[RunRow]:
        after: int | None = None
        while rows := self._home._store.runs(status=status, workflow=None, limit=PAGE, after=after):
            yield from rows
            after = rows[-1].no

    # -- runs of unknown workflows -------------------------------------------------------------------------

    def _others_runs(self, names: set[str]) -> list[RunRow]:
        """Runs that stand in one of our queues, and that no code here belongs to."""
        queues = {queue.name for queue in self._queues}
        found: list[RunRow] = []
        for status in ("queued", "running", "waiting"):
            rows = self._home._store.runs(status=status, workflow=None, limit=PAGE, after=None)
            found += [row for row in rows if row.owner is None and row.queue in queues and row.workflow not in names]
        return found

    def _tell_unknown(self, rows: list[RunRow]) -> None:
        for row in rows:
            if row.workflow not in self._unknown:
                self._unknown.add(row.workflow)
                _log.warning(
                    "worker: run %s in queue %r is one of workflow %r (%s), which no module of this worker has; runs "
                    "of it are left alone",
                    row.id, row.queue, row.workflow, row.module,
                )  # fmt: skip

    # -- the end -------------------------------------------------------------------------------------------

    async def _drained(self) -> bool:
        tasks = set(self._served)
        if tasks:
            _log.info("worker: draining %s, at most %g s", count(len(tasks), "run"), self._grace_s)
        for served in list(self._served.values()):
            self._keep(served.leave())
        finished = await self._until(self._at_once, self._grace_s, tasks)
        if not finished:
            _log.warning("worker: stopping %s with a step in flight", count(len(self._served), "run"))
            for served in list(self._served.values()):
                self._keep(served.unload())
            if not await self._until(asyncio.Event(), UNWIND_S + 1, tasks):
                for task in tasks:
                    task.cancel()  # it cannot be handed back: the lease lapses, or is seen to be a dead process's
                await asyncio.wait(tasks)
        for task in self._others:
            task.cancel()
        return finished


async def _slept(seconds: float) -> bool:
    await clock.sleep(seconds)
    return True
