"""One live run: what its record holds, which call each record belongs to, and why the run must stop.

It decides and performs no I/O: rows go out through ``submit`` and come back through ``committed``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from . import branches, clock, resting
from .blobs import hashes_in
from .bringing import Bringing
from .delivery import Delivery, Pending, Stop
from .doubt import Irreversible
from .errors import CodecError, Diverged, Fenced, HoldfastError
from .flying import encode_doing
from .folding import TURN, Folding, is_irreversible
from .logical_time import LogicalTime
from .logs import RunLog
from .news import Bulletin, Told
from .past import present
from .patience import Patience
from .recall import OPEN, Records, blank_row, is_inside
from .records import encode_unclaimed
from .salvage import Pool, Sought
from .state import Change, encode_change, initial_state
from .store import Checkpoint, RunRow
from .views import BodyView
from .waits import Waits

if TYPE_CHECKING:
    from .branches import Frame
    from .rehearsal import Rehearsal

_CALLS = frozenset({"step", "workflow"})
_REFUSALS_MAX = 100
_TOLD_MAX = 8  # steps in flight that are named to those who look from outside
_TOLD_AFTER_MS = 300  # shorter ones are not worth a write


class LiveRun:
    """A run being advanced by this process, under the lease ``epoch``."""

    # What it stands at when it begins.
    pool: Pool | None = None  # what may be kept of earlier attempts
    root: Frame | None = None  # of the body
    stop: Stop | None = None
    finished = False
    tasks = 1  # live tasks of the run, the root (task or thread) among them
    delivered = 0
    kept = 0
    executed = 0
    recalled = 0
    refusals = 0
    lease_deadline = 0.0
    durable = True
    expensive = 0
    warned = False
    rehearsal: Rehearsal | None = None  # where a plan rests instead of executing
    quiet: Callable[[], None] | None = None
    waiting_changed: Callable[[], None] | None = None
    # Told ("began" | "executed" | "recalled", run, row) on the run's loop; a row that began is filled in as it goes.
    # Told ("told", run, news) on whichever thread tells.
    observer: Callable[[str, LiveRun, Any], None] | None = None
    _calls_recorded = 0  # by this process
    _told: bytes | None = b""

    def __init__(
        self,
        row: RunRow,
        rows: list[Checkpoint],
        loop: asyncio.AbstractEventLoop,
        *,
        submit: Callable[[Checkpoint, Callable[[Any, HoldfastError | None], None]], None],
        announce: Callable[[Bulletin], None],
        home: Any,
        ignored: set[int] | None = None,
    ) -> None:
        self.id = row.id
        self.log = RunLog(row.id)
        self.workflow = row.workflow
        self.version = row.version
        self.no = row.no
        self.epoch = row.epoch
        self.seed = row.seed
        self.loop = loop
        self.home = home  # the Holdfast, for current()
        self.whole, rows = rows, present(rows)
        self._has_past = len(rows) < len(self.whole)
        self._schema = row.schema_version
        self.ignored = (ignored or set()) & {each.seq for each in rows}
        self.folding = Folding(self.whole)
        self.records = self._records_of(rows)
        self.cancelled = {each.seq for each in rows if each.status == "cancelled"} - self.ignored
        self.recorded_until = self._seq = self.whole[-1].seq if self.whole else 0
        self.time = LogicalTime(row.created_ms)
        self.patience = Patience(self.records, loop, lambda: branches.has_moving_thread(self))
        self.delivery = Delivery(loop, self.patience.must_wait)
        self.delivery.rests = self._rests
        self.bringing = Bringing()
        self.members: set[asyncio.Task[Any]] = set()  # its tasks
        self.waits = Waits(self, row, rows)
        self.irreversible = Irreversible(self)
        self.looks = resting.Looks(self)
        self.started = clock.monotonic()
        self.view = BodyView(initial_state(row), rows)
        self._submit = submit
        self._announce = announce
        self._bulletin = Bulletin(row.no, row.epoch)
        self.names: dict[str, Any] = {}  # of the steps called so far, and the code of each
        self.pendings: set[Pending] = set()
        self.under_way: dict[int, tuple[Checkpoint, asyncio.Task[Any]]] = {}  # calls not delivered, and in which task
        self.serving: set[asyncio.Task[None]] = set()  # what answers calls made in threads
        self.stops: list[Callable[[], None]] = []
        self.confirm_lease: Callable[[], Any] = lambda: None
        self.driver_is_cancelled: Callable[[], bool] = lambda: False

    def _records_of(self, rows: list[Checkpoint]) -> Records:
        taken = set(self.folding.taken)
        records = Records(self.id, [each for each in rows if each.seq not in taken], self.ignored)
        for each in rows:
            if each.kind == TURN and is_irreversible(each):
                records.must_be_met(each)
        return records

    # -- tasks ---------------------------------------------------------------------------------------------

    @property
    def recorded(self) -> int:
        """Steps that are committed, or on their way to it."""
        found = sum(each.kind in _CALLS and each.status not in OPEN for each in self.records.rows)
        return found + self._calls_recorded

    def root_frame(self) -> Frame:
        self.root = branches.Frame(self, "", "", self.view, depth=1, step=None)
        return self.root

    @property
    def alone(self) -> bool:
        """Nothing but the caller is running in this run, so order takes care of itself."""
        return self.tasks == 1

    def task_started(self, task: asyncio.Task[Any], depth: int) -> None:
        self.tasks += 1
        self.members.add(task)
        self.delivery.deepen(depth)

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        if (self.stop is not None or self.finished) and not task.cancelled():
            task.exception()  # hf.run tells what stopped the run; asyncio need not report it once more
        self.tasks -= 1
        self.members.discard(task)
        self.delivery.stir()
        self.looks.ask()

    def call_ended(self, row: Checkpoint) -> None:
        """A call is under way no longer: its outcome has reached the program, or never will."""
        self.under_way.pop(id(row), None)
        self.irreversible.ended(row)
        if self.quiet is not None:
            self.tell_if_quiet()
        self.looks.ask()

    # -- waiting -------------------------------------------------------------------------------------------

    @property
    def rest(self) -> resting.Rest:
        """How much nothing goes on in it until something outside comes about."""
        return self.delivery.rest if self.stop is None and not self.finished else resting.Rest.WORKS

    def _rests(self, rest: resting.Rest) -> None:
        self.waits.rests(rest is not resting.Rest.WORKS)
        if self.waiting_changed is not None:
            self.waiting_changed()

    def told_anew(self) -> bytes | None:
        """What is in flight, for those who look from outside; None if that is what was told last. Asked by the
        heartbeat, on its thread."""
        since = clock.now_ms() - _TOLD_AFTER_MS
        flying = [row for row, _ in list(self.under_way.values()) if row.seq == 0 and row.started_ms <= since]
        steps = [[row.name, row.scope, row.started_ms, row.attempts] for row in flying[:_TOLD_MAX]]
        try:
            told = encode_doing(len(flying), steps) if flying else b""
        except CodecError:  # a name that no text can hold: the step itself will say so when it is recorded
            return None
        if told == self._told:
            return None
        self._told = told
        return told

    def was_not_told(self) -> None:
        """What was to be told could not be written."""
        self._told = None
        self.waits.was_not_told()

    def tasks_inside(self, scope: str) -> set[asyncio.Task[Any]]:
        """Those other tasks that are inside the call with this scope, in a call of its insides or between two."""
        found = {task for row, task in self.under_way.values() if is_inside(row.scope, scope)}
        for task in asyncio.all_tasks(self.loop):
            frame = branches.frame_of(task)
            if frame is not None and frame.run is self and is_inside(frame.scope, scope):
                found.add(task)
        return found - {asyncio.current_task()}

    # -- stopping ------------------------------------------------------------------------------------------

    @property
    def is_leaving(self) -> bool:
        """Whether a cancellation that arrives now comes from outside the program: such a one is not its history.

        A loop that ends cancels all its tasks at once, so a step may see its cancellation before the run has seen its
        own."""
        return self.stop is not None or self.finished or self.driver_is_cancelled()

    def check(self) -> None:
        """Every call passes here: in a run that must stop, nothing more starts."""
        if self.stop is not None:
            self.refusals += 1
            raise Stop(self.stop.error)
        if self.finished:
            raise Stop(Fenced(f"run {self.id!r} is over; a step was called from a task that outlived it"))

    def poison(self, error: HoldfastError) -> Stop:
        """From now on no step starts and no write is accepted, whatever the program catches."""
        if self.stop is None:
            self.stop = Stop(error)
            self.delivery.clear()
            for pending in list(self.pendings):
                pending.settle(self.stop)
            self.waits.stop(self.stop)
            self.cancel_calls()
            for stopped in self.stops:
                stopped()
        return self.stop

    def drain(self, quiet: Callable[[], None]) -> None:
        """From now on no step begins, but those that a step in flight calls; ``quiet`` is called when none is left."""
        self.quiet = quiet
        self.tell_if_quiet()

    def tell_if_quiet(self) -> None:
        if self.quiet is not None and not any(
            row.kind == "step" and row.seq == 0 for row, _ in list(self.under_way.values())
        ):
            self.quiet()

    async def hold(self) -> None:
        """Where something would begin in a run that is being drained or closed: wait until it is stopped. Raises
        ``Stop``."""
        loop = asyncio.get_running_loop()  # who waits may be on another one than the run's
        stopped = loop.create_future()  # not of a thread: for whoever waits for threads that move, this one does not

        def stop() -> None:
            if not stopped.done():
                stopped.set_result(None)

        def stop_there() -> None:
            with suppress(RuntimeError):  # that loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(stop)

        self.stops.append(stop_there)
        if self.stop is None:
            await stopped
        self.check()

    @property
    def is_ignoring(self) -> bool:
        """Whether the program catches every refusal and calls again. Then a call waits for ever, or it would never let
        go of the loop."""
        return self.stop is not None and self.refusals >= _REFUSALS_MAX

    async def halt(self) -> None:
        await self.loop.create_future()

    def end(self) -> None:
        """It is over here: what its tasks still do counts for nothing."""
        self.finished = True
        self.looks.end()
        self.cancel_calls()
        self.waits.end()

    def cancel_calls(self) -> None:
        """Cancel the tasks that are inside a step; what else the program runs is its own."""
        try:
            current = asyncio.current_task()
        except RuntimeError:
            current = None
        for task in {task for _, task in self.under_way.values()}:
            if task is not current:
                task.cancel()

    # -- identity ------------------------------------------------------------------------------------------

    def name_belongs_to(self, name: str, code: Any) -> None:
        """Two different steps of one name would take each other's records."""
        known = self.names.setdefault(name, code)
        if known is not code and (known.co_filename, known.co_firstlineno) != (
            code.co_filename,
            code.co_firstlineno,
        ):
            raise HoldfastError(
                f"run {self.id!r}: two different steps are named {name!r} "
                f"({known.co_filename}:{known.co_firstlineno} and {code.co_filename}:{code.co_firstlineno}), so "
                "their records could not be told apart. Give one of them a name of its own: @step(name=…)."
            )

    def recall(
        self,
        frame: Frame,
        name: str,
        key: str | None,
        n: int,
        version: str,
        inputs: bytes,
        digest: bytes,
        older: Collection[str] = (),
    ) -> Checkpoint | None:
        """The record this call is to be answered with, or None if this attempt has none. Raises ``Stop``."""
        try:
            return self.records.find(frame, name, key, n, version, inputs, digest, older)
        except Diverged as error:
            raise self.poison(error) from None

    def begun(
        self, frame: Frame, name: str, key: str | None, n: int, version: str, inputs: bytes, digest: bytes
    ) -> Checkpoint | None:
        """The row with which another process began what has no outcome; None if it begins now. Raises ``Stop``."""
        try:
            return self.records.begun(frame, name, key, n, version, inputs, digest)
        except Diverged as error:
            raise self.poison(error) from None

    def keep(self, sought: Sought) -> Checkpoint | None:
        """What this call keeps of an earlier attempt; None if it must be executed. Raises ``Stop``."""
        assert self.pool is not None
        try:
            return self.pool.find(sought)
        except Diverged as error:
            raise self.poison(error) from None

    def look_back(self) -> None:
        """Before the program begins: what may be kept of earlier attempts, if there are any."""
        if self._has_past:
            self.pool = Pool(self.id, self.whole, self._schema)

    def cannot_read(self, row: Checkpoint, error: CodecError) -> Stop:
        self.log.error("checkpoint %s (%s) cannot be read: %s", row.seq, row.name, error)
        text = f"run {self.id!r}, checkpoint {row.seq} ({row.name}) cannot be read: {error}"
        return self.poison(CodecError(text, path=error.path))

    # -- outcomes ------------------------------------------------------------------------------------------

    def record(self, pending: Pending, change: dict[str, Any] | None, kept: int = 0) -> None:
        """Number its row and send it to be committed; once it is, and its turn has come, it is delivered. ``kept``:
        the row of an earlier attempt that it is taken from."""
        self.check()
        row = pending.row
        self._carry(row, change, kept)
        self._number(row)
        self._calls_recorded += row.kind in _CALLS
        if row.status == "cancelled":
            self.cancelled.add(row.seq)
        if row.scope or self.records.begun_at(row) is not None:
            self.records.add(row)
        self._submit(row, pending.committed)

    def _carry(self, row: Checkpoint, change: dict[str, Any] | None, kept: int = 0) -> None:
        """Let it carry the change it makes, and what the body has changed since the row before."""
        # Not on the rows inside a call: these are no longer read once it is finished.
        chunk = None if row.scope else self.view.carry(self.delivered)
        body, full = chunk or (None, None)
        if change or body or full or kept:
            where = f"the state change of {row.kind} {row.name!r}"
            after = self.delivered if body or full else 0
            row.delta = encode_change(Change(step=change, body=body, full=full, after=after, kept=kept), where)
        if chunk is not None:
            self.view.carried(chunk)

    def _number(self, row: Checkpoint) -> None:
        self._seq += 1
        row.seq = self._seq
        row.blobs = hashes_in(row.result, row.delta, known=row.blobs)
        row.checksum = row.compute_checksum()
        self.folding.numbered(row)

    def note(self, row: Checkpoint, committed: Callable[[], None] = lambda: None, kept: int = 0) -> None:
        """Record what is no outcome, and so is delivered to nobody. ``committed`` is told when it is, or never will be:
        then the run must stop. ``kept``: the row of an earlier attempt that it is taken from."""
        self.check()
        assert row.status in OPEN
        self._carry(row, None, kept)
        self._number(row)
        if row.scope or row.kind == "step":
            self.records.add(row)

        def told(_: Any, error: HoldfastError | None) -> None:
            if error is not None:
                self.poison(error)
            committed()

        self._submit(row, told)

    def close_intents(self) -> None:
        """Before a stopped run is handed back: attempts that have not begun never will, and are no doubts."""
        for intent in self.irreversible.intended:
            row = replace(intent, status="not_done", result=None, delta=None, started_ms=clock.now_ms())
            self._number(row)
            self._submit(row, lambda _, error: None)

    def record_leftovers(self, unclaimed: list[Checkpoint]) -> None:
        """Before the run ends: what the body changed since the last row, and which records it never asked for."""
        chunk = self.view.carry(self.delivered)
        if not chunk.body and not unclaimed:
            return
        row = blank_row(self.no, self.epoch, kind="save")
        if chunk.body:
            row.delta = encode_change(Change(body=chunk.body, full=chunk.full, after=self.delivered), "the state")
        row.result = encode_unclaimed(unclaimed) if unclaimed else None
        self._number(row)
        self._submit(row, lambda _, error: None)

    def tell(self, frame: Frame, said: bytes | tuple[float, float]) -> None:
        """News for those who watch, from any thread. Nothing waits for it, and nothing depends on it."""
        if self.stop is not None or self.finished:
            return
        row = frame.step.row if frame.step is not None else None
        name, attempt = (row.name, row.attempts) if row is not None else (self.workflow, 1)
        told = Told(self._seq, name, frame.scope, attempt, said)
        if self.observer is not None:
            self.observer("told", self, told)
        if self._bulletin.add(told):
            self._announce(self._bulletin)

    def in_turn(self, pending: Pending) -> None:
        """Deliver an outcome when all that came before it has been: at once if the run has no other task."""
        if self.tasks == 1:
            pending.deliver()
        else:
            self.delivery.push(pending)

    def delivering(self, row: Checkpoint) -> None:
        """An outcome is about to reach the workflow."""
        if not row.scope and row.seq > self.delivered:
            self.delivered = row.seq
        self.time.delivering(row)
