"""``Holdfast``: where a program starts, resumes, looks up and ends its runs."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar, cast

from . import codec, known
from .admission import refuse_id
from .background import BackgroundLoop
from .buckets import Bucket
from .cancelling import cancel
from .children import look_after
from .circles import refuse_circle_from_here
from .ended import outcome_of
from .errors import HoldfastError, NotFound
from .execution import Execution
from .forks import fork
from .home import Home
from .lazy import Later, LazyCoroutine
from .lease import Lease
from .logs import RunLog
from .mapped import MapCall
from .records import Checkpoint, Event, Run, checkpoints_of, refuse_damaged, run_of
from .resolving import resolve
from .sending import send
from .session import Session
from .store import open_store
from .submitting import submit
from .waiting import WaitCall, child_run
from .waits import Wait
from .watching import watch
from .workflow import Call, no_call

R = TypeVar("R")
T = TypeVar("T")

DEFAULT_URL = "sqlite:///holdfast.db"


def open(url: str | os.PathLike[str] | None = None, *, blobs: str | None = None, lease: float = 10) -> Holdfast:
    """A ``Holdfast`` on the store that ``url`` names; nothing is opened before its first use.

    ``url``: a path, ``sqlite:///…``, ``postgresql://…``, or ``memory://`` for tests; None reads ``HOLDFAST_URL``, else
    ``sqlite:///holdfast.db``. Raises ``StoreError`` for any other.

    ``blobs``: the folder or bucket for values that are too big for a row: ``file:///…``, ``s3://bucket/prefix``,
    ``gs://…`` or ``az://account/container/…``; None reads ``HOLDFAST_BLOBS``, else they are inside the database.

    ``lease``: seconds (from 1) that a run stays with this process without a sign of life from it. It is renewed every
    third of them; where another machine has to take over, it waits so long.
    """
    term = Lease(lease)
    store = open_store(url if url is not None else os.environ.get("HOLDFAST_URL") or DEFAULT_URL)
    place = blobs if blobs is not None else os.environ.get("HOLDFAST_BLOBS")
    return Holdfast(store, term, Bucket(store, place) if place else None)


class Holdfast(Home):
    """A store, and the runs this process advances on it. One per program is enough; any thread and loop may use it.

    ``async with``, ``with``, or ``aclose()``/``close()``. Closing unloads what still runs: the same line resumes it.
    """

    # -- running -------------------------------------------------------------------------------------------

    def run(
        self, call: Call[R], *, id: str, state: Mapping[str, Any] | None = None, wait: bool = True
    ) -> LazyCoroutine[R]:
        """Start the run, resume it, or return its saved result: the same line.

        ``state`` is the initial state, used when the run is new. If another owner holds the run, its outcome is
        waited for and the run taken over should that owner die or stall; ``wait=False`` raises ``Busy`` instead.
        Raises ``Mismatch`` if the id belongs to other work, ``VersionMismatch``, ``Diverged``, ``Cancelled``,
        ``Fenced``, ``StoreError``, or what the workflow raised.

        In the body of a workflow on this store it begins a child: a run of its own, whose outcome is recorded and
        recalled like a step's. Any failure of it, its being cancelled among them, is ``StepFailed`` there, and
        ``cancel`` of the run that began it reaches it."""
        child = None
        if isinstance(call, Call):
            call.take()  # also where it is refused below: that is told by an error already
            refuse_id(id)
            child = child_run(self, call, id, state)
        return child if child is not None else Later("Holdfast.run", lambda: self._run(call, id, state, wait))

    async def _run(self, call: Call[R], id: str, state: Mapping[str, Any] | None, wait: bool) -> R:
        await refuse_circle_from_here(self, id)
        execution = await self._begun(call, id, state, wait)
        result: R = await execution.joined()
        return result

    async def start(self, call: Call[Any], id: str | None = None) -> Run:
        """Start (or resume) the run in the background of this loop. A missing id is a new random one."""
        if id is None:
            id = uuid.uuid4().hex
            RunLog(id).info("new; resume it with hf.run(…, id=%r)", id)
        execution = await self._begun(call, id, None, True, detached=True)
        await asyncio.shield(asyncio.wrap_future(execution.claimed))
        if execution.run is None and execution.outcome.done():
            execution.outcome.result()  # it could not be claimed: say so here
        return await self.get(id)

    async def submit(
        self, call: Call[Any], id: str | None = None, *, queue: str | None = None, priority: int = 0, delay: float = 0
    ) -> Run:
        """Leave a run to the workers; it is ``queued`` until one of them (or ``hf.run``) begins it.

        The same id with the same work is the same run: it is returned as it is. A missing id is a new random one, the
        same on every resume where a run's own code submits. ``queue``: default that of the workflow. ``priority``:
        higher ones are begun first. ``delay``: seconds until a worker may begin it. Raises ``Mismatch``,
        ``CodecError``, ``StoreError``."""
        return await submit(self, call, id, queue=queue, priority=priority, delay=delay)

    async def _begun(
        self,
        call: Call[Any],
        id: str,
        state: Mapping[str, Any] | None,
        wait: bool,
        detached: bool = False,
        parent_no: int | None = None,
    ) -> Execution:
        while (execution := self._execution(call, id, state, wait, detached, parent_no)).leaving:
            await execution.outcome.over()
        return execution

    def _execution(
        self,
        call: Call[Any],
        id: str,
        state: Mapping[str, Any] | None,
        wait: bool,
        detached: bool,
        parent_no: int | None,
    ) -> Execution:
        if not isinstance(call, Call):
            raise TypeError(no_call(call))
        call.take()  # also where it is refused below: that is told by an error already
        refuse_id(id)
        if state is not None and not isinstance(state, Mapping):
            raise TypeError(f"state= must be a mapping, the initial state of a new run, got {state!r}")
        self._check_open(for_more=True)
        with self._lock:
            live = self._live.get(id)
            if live is not None and not live.outcome.done():
                same = live.definition.name == call.definition.name
                if not same or live.fingerprint != codec.fingerprint(call.inputs()):
                    live.refuse_other(call)
                live.detached = live.detached or detached
                return live
            execution = Execution(self, call, id, dict(state) if state else None, wait, parent_no)
            execution.detached = detached
            self._begin(execution)
        return execution

    def _begin(self, execution: Execution) -> None:
        self._live[execution.id] = execution
        known.note(execution.definition)
        execution.launch()

    def _ended(self, execution: Execution) -> None:
        with self._lock:
            if self._live.get(execution.id) is execution:
                del self._live[execution.id]

    def wait(self, awaitable: Awaitable[T]) -> T:
        """For programs without an event loop: run what ``run``, ``start`` … give, and return its value.

        Runs begun with ``start`` go on in the background between two calls. In a plain ``def`` workflow it waits for
        what its run waits for: ``hf.wait(holdfast.sleep(3))``.
        """
        try:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                self._check_open()
                given: Any = awaitable
                if isinstance(given, (WaitCall, MapCall)) and given.is_in_run:
                    return cast("T", given.perform_in_thread())
            else:
                raise HoldfastError("hf.wait() is for programs without an event loop; here, write: await hf.run(…)")
        except HoldfastError:
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()
            raise
        with self._lock:
            if self._background is None:
                self._background = BackgroundLoop()
        return self._background.wait(awaitable)

    def session(
        self,
        id: str,
        initial: Mapping[str, Any] | None = None,
        *,
        schema_version: int | None = None,
        migrate: Callable[[dict[str, Any], int], dict[str, Any]] | None = None,
        on_change: Literal["restart", "refuse"] | None = None,
    ) -> Session:
        """The explicit style: ``async with hf.session(id) as session:`` loads ``session.state``, ``save()`` commits
        what changed.

        ``schema_version``: of the shape of the state, from 1; recorded with each save. A state of another one is
        brought along by ``migrate(state, from_version)``; without it ``on_change`` says whether to begin anew from
        ``initial`` ("restart") or to raise ``VersionMismatch`` ("refuse", the default).
        """
        self._check_open(for_more=True)
        given = dict(initial or {})
        return Session(self, id, given, schema_version=schema_version, migrate=migrate, on_change=on_change)

    # -- looking -------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Run:
        """The run as it stands. Raises ``NotFound``, and ``CodecError`` if its row was damaged."""
        row = await self._read(self._store.get, id)
        if row is None:
            raise NotFound(f"{self.url}: there is no run {id!r}")
        refuse_damaged(row)
        spent = await self._read(self._store.spent, [row.no])
        with self._blobs.nearest():
            return run_of(row, spent[row.no], known.result_types(row.workflow), lambda: outcome_of(self, id))

    async def runs(
        self,
        *,
        status: str | None = None,
        workflow: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[Run]:
        """Runs, newest first, at most ``limit``; ``after`` is the id of the last one already seen."""
        no = None
        if after is not None:
            row = await self._read(self._store.get, after)
            if row is None:
                raise NotFound(f"{self.url}: there is no run {after!r} to list on from")
            no = row.no
        rows = await self._read(lambda: self._store.runs(status=status, workflow=workflow, limit=limit, after=no))
        spent = await self._read(self._store.spent, [row.no for row in rows])
        with self._blobs.nearest():
            return [
                run_of(row, spent[row.no], known.result_types(row.workflow), lambda id=row.id: outcome_of(self, id))  # type: ignore[misc]
                for row in rows
            ]

    async def history(self, id: str) -> list[Checkpoint]:
        """The run's checkpoints, oldest first; of a step marked ``once`` the intent only as long as it has no outcome.
        Raises ``NotFound``."""
        row = await self._read(self._store.get, id)
        if row is None:
            raise NotFound(f"{self.url}: there is no run {id!r}")
        return await self._read(lambda: checkpoints_of(self._store.load(row.no), self._blobs))

    def watch(self, id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """What happens in a run, from any process: ``async for event in hf.watch(id):``, until the run is done, failed,
        cancelled, in doubt or parked.

        Yields each ``Checkpoint`` with ``seq > after``, exactly once and in order, and between them ``Progress`` and
        ``Emitted``, as far as they are kept; ``Skipped`` where they are not. It waits through the death of the run's
        owner. To go on where another watcher ended, give the ``seq`` of its last checkpoint. Raises ``NotFound``.
        """
        return watch(self, id, after)

    async def send(self, id: str, name: str, value: Any, *, key: str | None = None) -> None:
        """Send a signal to a run: what its ``wait_for(name, …)`` returns, now or when it comes to that.

        ``value`` is anything a step could return. Sent again with the same ``key`` it is the same signal. Raises
        ``NotFound``, ``Cancelled`` or ``HoldfastError`` if the run takes no signals any more, ``CodecError`` if the
        value cannot be stored or the run waits for this signal now with another type; then nothing was sent.
        """
        await send(self, id, name, value, key)

    async def fork(self, id: str, *, at: int, new_id: str, state: Mapping[str, Any] | None = None) -> Run:
        """A new run that shares the history of another one up to checkpoint ``at`` (0: none) and goes its own way from
        there: ``hf.run(call, id=new_id)``, or a worker, since it is ``queued``. ``state``: another initial state.
        Raises ``NotFound``, ``Mismatch`` if the new id is taken, ``ValueError`` if there is no such checkpoint."""
        await fork(self, id, at, new_id, state)
        return await self.get(new_id)

    async def resolve(self, id: str, seq: int, *, result: Any = codec.MISSING, retry: bool = False) -> None:
        """Say what became of a step that is in doubt, the one of checkpoint ``seq`` (``InDoubt.seq``): it took effect
        and would have returned ``result``; or ``retry=True``, it certainly did not and may be executed again. The same
        of a step whose checkpoint is damaged.

        Workers then go on with the run by themselves, ``hf.run`` otherwise. Raises ``NotFound``, ``Busy`` if somebody
        advances the run, ``CodecError`` if the result is none of the step's type, ``HoldfastError`` if the step is not
        in doubt; then nothing was changed."""
        await resolve(self, id, seq, result, retry)

    async def cancel(self, id: str) -> None:
        """End a run for good, and the runs it has begun as children; their owners, wherever they are, are stopped. A
        run that is done stays done. Raises ``NotFound``.
        """
        await cancel(self, id)

    def _look_after(self, wait: Wait) -> None:
        look_after(self, wait)
