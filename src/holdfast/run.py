"""One live run: what its record holds, which call each record belongs to, and why the run must stop.

It decides and performs no I/O: rows go out through ``submit`` and come back through ``committed``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import branches, clock, codec
from .delivery import Delivery
from .errors import CodecError, Diverged, Fenced, HoldfastError, StoreError
from .state import BodyView, Change, encode_change
from .store import Checkpoint, RunRow

if TYPE_CHECKING:
    from .branches import Frame


_REFUSALS_MAX = 100
_PATIENCE_S = 5.0  # how long a resume waits, all in all, for calls that its record says come first


class Stop(BaseException):
    """What carries a public error out of a run past every ``except Exception``; ``hf.run`` raises the error inside."""

    def __init__(self, error: HoldfastError) -> None:
        self.error = error
        super().__init__(f"{type(error).__name__}: {error}")


class Records:
    """The checkpoints a run began with (and those of nested scopes since), by the place of their call."""

    def __init__(self, rows: list[Checkpoint], ignored: set[int]) -> None:
        self.rows = rows
        self._claimed: set[int] = set()
        self._at: dict[tuple[str, str, str, str | None, int], Checkpoint] = {}
        self._of_name: dict[tuple[str, str, str], list[Checkpoint]] | None = None
        self._missing: list[Checkpoint] | None = None
        self._retried = {_place(row) for row in rows if row.seq in ignored}
        self._retried_from = min(ignored, default=None)
        for row in rows:
            if row.kind != "save":
                self.add(row)
        for row in rows:
            # The last row of a place speaks for it: behind a failure tried anew stands no earlier failure.
            if row.seq in ignored and self._at.get(_place(row)) is row:
                del self._at[_place(row)]

    def add(self, row: Checkpoint) -> None:
        """A later row of the same place (a failure tried anew) replaces the earlier one."""
        self._at[_place(row)] = row
        self._of_name = None

    def retries(self, frame: Frame, name: str, key: str | None, n: int) -> bool:
        """Whether this call is tried anew because its recorded failure ended the run."""
        return bool(self._retried) and (frame.scope, frame.branch, name, key, n) in self._retried

    def find(
        self, frame: Frame, name: str, key: str | None, n: int, version: str, fingerprint: bytes
    ) -> Checkpoint | None:
        """The record of this call, now claimed by it; None if it has none. Raises ``Diverged``."""
        if not self._at:
            return None
        here = self._at.get((frame.scope, frame.branch, name, key, n))
        if here is not None and _fits(here, version, fingerprint) and here.seq not in self._claimed:
            self._claimed.add(here.seq)
            return here
        if here is None:
            return None  # it was in flight; a later call with the same inputs keeps its own record
        for row in self._named(frame.scope, frame.branch, name):
            if row.seq not in self._claimed and _fits(row, version, fingerprint):
                self._claimed.add(row.seq)
                return row
        if not _fits(here, version, fingerprint):
            raise Diverged(_divergence(here, name, version))
        return None

    def _named(self, scope: str, branch: str, name: str) -> list[Checkpoint]:
        if self._of_name is None:
            self._of_name = {}
            for row in sorted(self._at.values(), key=lambda row: row.n):
                self._of_name.setdefault((row.scope, row.branch, row.name), []).append(row)
        return self._of_name.get((scope, branch, name), [])

    def try_anew(self, scope: str) -> None:
        """A new attempt of the call whose scope this is: what succeeded inside it is recalled again, what failed is
        not.
        """
        inside = scope + " > "
        for place, row in list(self._at.items()):
            if row.scope == scope or row.scope.startswith(inside):
                self._claimed.discard(row.seq)
                if row.status != "done":
                    del self._at[place]
        self._of_name = None

    def _expected(self) -> list[Checkpoint]:
        """The records the program will ask for, last first: not those inside a finished call, which stands for them.

        Behind a failure that ended the run everything may go another way, now that it is tried anew.
        """
        closed = {scope_of(row.scope, row.branch, row.name, row.key, row.n) for row in self._at.values()}
        found = [
            row
            for row in self._at.values()
            if (self._retried_from is None or row.seq < self._retried_from)
            and not (row.scope and any(scope in closed for scope in enclosing(row.scope)))
        ]
        return sorted(found, key=lambda row: -row.seq)

    def missing_before(self, seq: int) -> Checkpoint | None:
        """The first record before ``seq`` that the program has not asked for yet."""
        if self._missing is None:
            self._missing = self._expected()
        while self._missing:
            row = self._missing[-1]
            if row.seq >= seq:
                return None
            if row.seq not in self._claimed and self._at.get(_place(row)) is row:
                return row
            self._missing.pop()
        return None

    def give_up(self, row: Checkpoint) -> None:
        """The program seems not to ask for ``row`` any more; nothing waits for it."""
        if self._missing and self._missing[-1] is row:
            self._missing.pop()

    @property
    def unclaimed(self) -> list[Checkpoint]:
        return [row for row in self._at.values() if row.seq not in self._claimed and not row.scope]


def _place(row: Checkpoint) -> tuple[str, str, str, str | None, int]:
    return row.scope, row.branch, row.name, row.key, row.n


def scope_of(scope: str, branch: str, name: str, key: str | None, n: int) -> str:
    """The name of the scope that the body of a call opens."""
    here = f"{name}#{n}" if key is None else f"{name}[{key}]#{n}"
    if branch:
        here = f"{branch}: {here}"
    return f"{scope} > {here}" if scope else here


def enclosing(scope: str) -> list[str]:
    """``scope`` and all that it is inside of, outermost first."""
    parts = scope.split(" > ")
    return [" > ".join(parts[: k + 1]) for k in range(len(parts))]


def _fits(row: Checkpoint, version: str, fingerprint: bytes) -> bool:
    return row.fingerprint == fingerprint and row.version == version


def _divergence(row: Checkpoint, name: str, version: str) -> str:
    place = f"call {row.n} of step {name!r}" if row.key is None else f"call {row.key!r} of step {name!r}"
    if row.version != version:
        return f"{place} was recorded by version {row.version!r} of the step, the code is version {version!r}"
    return f"{place} was recorded with other inputs"


class Pending:
    """An outcome under way to its caller: recorded or being recorded, not delivered yet."""

    __slots__ = ("_future", "_loop", "error", "settled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self.settled = False
        self.error: BaseException | None = None

    def settle(self, error: BaseException | None = None) -> None:
        if not self.settled:
            self.settled, self.error = True, error
            if self._future is not None and not self._future.done():
                self._future.set_result(None)

    async def wait(self, run: LiveRun) -> bool:
        """Wait for delivery; whether somebody tried to cancel the wait meanwhile.

        An outcome that is recorded wins over a cancellation that comes after it, else the record and the program
        would tell two stories; the caller passes the cancellation on once the outcome is delivered."""
        interrupted = False
        while not self.settled:
            self._future = self._loop.create_future()
            try:
                await self._future
            except asyncio.CancelledError:
                if run.is_leaving and not isinstance(self.error, Stop):
                    raise
                interrupted = True
        if isinstance(self.error, Stop):
            raise Stop(self.error.error)  # one of its own for each task that meets it
        if self.error is not None:
            raise self.error
        return interrupted


class LiveRun:
    """A run being advanced by this process, under the lease ``epoch``."""

    def __init__(
        self,
        row: RunRow,
        rows: list[Checkpoint],
        loop: asyncio.AbstractEventLoop,
        *,
        submit: Callable[[Checkpoint, Callable[[Any, HoldfastError | None], None]], None],
        home: Any,
        ignored: set[int] | None = None,
    ) -> None:
        self.id = row.id
        self.no = row.no
        self.epoch = row.epoch
        self.seed = row.seed
        self.loop = loop
        self.home = home  # the Holdfast, for current()
        self.records = Records(rows, ignored or set())
        self.ignored = ignored or set()
        self.cancelled = {each.seq for each in rows if each.status == "cancelled"} - self.ignored
        self.refusals = 0
        self.recorded_until = rows[-1].seq if rows else 0
        self.delivered = 0
        self._delivered_ms = {"": row.created_ms}  # by scope, when the last outcome delivered in it had ended
        self.delivery = Delivery(loop, self._must_wait)
        self._awaited: Checkpoint | None = None
        self._awaited_since = 0.0
        self._patience_s = _PATIENCE_S
        self._began_ms: dict[int, int] = {}  # by epoch, when the first of the recorded calls began
        self.stop: Stop | None = None
        self.finished = False
        self.tasks = 1  # live tasks of the run, the root (task or thread) among them
        self.executed = 0
        self.recalled = 0
        self.started = clock.monotonic()
        self.lease_deadline = 0.0
        self.confirm_lease: Callable[[], Any] = lambda: None
        # Told ("began" | "executed" | "recalled", run, row) on the run's loop; a row that began is filled in as it
        # goes.
        self.observer: Callable[[str, LiveRun, Checkpoint], None] | None = None
        self.durable = True
        self.expensive = 0
        self.warned = False
        initial = codec.decode(row.state, codec.Types.none, "the initial state", root="state") if row.state else {}
        self.view = BodyView(initial, rows)
        self._submit = submit
        self._seq = self.recorded_until
        self._names: dict[str, Any] = {}
        self._pendings: set[Pending] = set()
        self._calls: dict[asyncio.Task[Any], list[str]] = {}  # tasks inside step calls, and the scopes of these
        self.serving: set[asyncio.Task[None]] = set()  # what answers calls made in threads
        self.stops: list[Callable[[], None]] = []
        self.driver_is_cancelled: Callable[[], bool] = lambda: False

    # -- tasks ---------------------------------------------------------------------------------------------

    def root_frame(self) -> Frame:
        return branches.Frame(self, "", "", self.view, depth=1, step=None)

    @property
    def alone(self) -> bool:
        """Nothing but the caller is running in this run, so order takes care of itself."""
        return self.tasks == 1

    def task_started(self, depth: int) -> None:
        self.tasks += 1
        self.delivery.deepen(depth)

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        if self.stop is not None and not task.cancelled():
            task.exception()  # hf.run tells what stopped the run; asyncio need not report it once more
        self.tasks -= 1
        self.delivery.stir()

    def call_began(self, task: asyncio.Task[Any], scope: str) -> None:
        self._calls.setdefault(task, []).append(scope)

    def call_ended(self, task: asyncio.Task[Any]) -> None:
        scopes = self._calls[task]
        scopes.pop()
        if not scopes:
            del self._calls[task]

    def tasks_inside(self, scope: str) -> set[asyncio.Task[Any]]:
        """Those of other tasks in whose calls the insides of the call with this scope are under way."""
        inside, current = scope + " > ", asyncio.current_task()
        return {
            task
            for task, scopes in self._calls.items()
            if task is not current and any(each.startswith(inside) for each in scopes)
        }

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
            for pending in list(self._pendings):
                pending.settle(self.stop)
            self._pendings.clear()
            self.cancel_calls()
            for stopped in self.stops:
                stopped()
        return self.stop

    @property
    def is_ignoring(self) -> bool:
        """Whether the program catches every refusal and calls again. Then a call waits for ever, or it would never let
        go of the loop."""
        return self.stop is not None and self.refusals >= _REFUSALS_MAX

    async def halt(self) -> None:
        await self.loop.create_future()

    def cancel_calls(self) -> None:
        """Cancel the tasks that are inside a step; what else the program runs is its own."""
        current = None
        try:
            current = asyncio.current_task()
        except RuntimeError:
            pass
        for task in list(self._calls):
            if task is not current:
                task.cancel()

    # -- identity ------------------------------------------------------------------------------------------

    def name_belongs_to(self, name: str, code: Any) -> None:
        """Two different steps of one name would take each other's records."""
        known = self._names.setdefault(name, code)
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
        self, frame: Frame, name: str, key: str | None, n: int, version: str, inputs: bytes, digest: bytes
    ) -> Checkpoint | None:
        """The record this call is to be answered with, or None if it must be executed. Raises ``Stop``."""
        try:
            row = self.records.find(frame, name, key, n, version, digest)
        except Diverged as error:
            here = self.records._at[frame.scope, frame.branch, name, key, n]
            raise self.poison(Diverged(_explain(self.id, error, here, inputs))) from None
        if row is not None and row.checksum != row.compute_checksum():
            raise self.poison(
                CodecError(
                    f"run {self.id!r}, checkpoint {row.seq} ({row.name}): the row's checksum does not match its "
                    "content. It was changed or damaged since it was written; it is kept as it is. Restore the store "
                    "from a backup, or start the work again under a new id."
                )
            )
        return row

    # -- outcomes ------------------------------------------------------------------------------------------

    def pending(self) -> Pending:
        pending = Pending(self.loop)
        self._pendings.add(pending)
        return pending

    def record(self, row: Checkpoint, change: dict[str, Any] | None, deliver: Callable[[], None]) -> None:
        """Number a row, send it to be committed, and have ``deliver`` called once it is and its turn has come."""
        self.check()
        # Not on the rows inside a call: these are no longer read once it is finished.
        body = None if row.scope else self.view.carry(self.delivered)
        if change or body:
            where = f"the state change of step {row.name!r}"
            row.delta = encode_change(Change(step=change, body=body, after=self.delivered if body else 0), where)
        if body:
            self.view.carried(body)
        self._seq += 1
        row.seq = self._seq
        row.checksum = row.compute_checksum()
        if row.status == "cancelled":
            self.cancelled.add(row.seq)
        if row.scope:
            self.records.add(row)
            self.records._claimed.add(row.seq)

        def committed(_: Any, error: HoldfastError | None) -> None:
            if error is not None:
                self.poison(error)
            elif self.stop is None:
                self.in_turn(row, deliver)

        self._submit(row, committed)

    def record_leftovers(self) -> None:
        """What the body changed since the last row, before the run ends."""
        body = self.view.carry(self.delivered)
        if not body:
            return
        row = blank_row(self.no, self.epoch, kind="save")
        row.delta = encode_change(Change(body=body, after=self.delivered), "the state")
        self._seq += 1
        row.seq = self._seq
        row.checksum = row.compute_checksum()
        self._submit(row, lambda _, error: None)

    def in_turn(self, row: Checkpoint, deliver: Callable[[], None]) -> None:
        """Deliver an outcome when all that came before it has been: at once if the run has no other task."""

        if self.tasks == 1:
            self._turn(row, deliver)
        else:
            self.delivery.push(row.seq, lambda: self._turn(row, deliver))

    def _turn(self, row: Checkpoint, deliver: Callable[[], None]) -> None:
        scope, ended = row.scope, row.started_ms + int(row.duration_ms)
        if not scope and row.seq > self.delivered:
            self.delivered = row.seq
        if ended > self._delivered_ms.get(scope, 0):
            self._delivered_ms[scope] = ended
        deliver()

    def logical_ms(self, scope: str) -> int:
        """The time that now() tells a workflow's body in ``scope``.

        The insides of other calls are left out: once these are finished, a resume does not live through them again.
        """
        told = self._delivered_ms
        return max(told[""], *(told.get(outer, 0) for outer in enclosing(scope))) if scope else told[""]

    def _must_wait(self, seq: int) -> bool:
        """Whether an earlier record has not been asked for, although the code seems to be at rest.

        Then a thread, a timer or a socket of the program is still on its way to that call, or the code has changed.
        Threads are waited for; the others for about as long as they took before, and within the run's patience."""
        row = self.records.missing_before(seq)
        if row is None:
            self._awaited = None
            return False
        now = self.loop.time()
        if row is not self._awaited:
            self._awaited, self._awaited_since = row, now
        if branches.has_moving_thread(self):
            return True
        waited = now - self._awaited_since
        if waited < min(self.usual_s(row), self._patience_s):
            return True
        self._patience_s -= waited
        self._awaited = None
        self.records.give_up(row)
        return self._must_wait(seq)

    def usual_s(self, row: Checkpoint) -> float:
        """How long after its start a process came to this call, and half as much again."""
        if not self._began_ms:
            for each in self.records.rows:
                self._began_ms[each.epoch] = min(each.started_ms, self._began_ms.get(each.epoch, each.started_ms))
        return 1.5 * (row.started_ms - self._began_ms[row.epoch]) / 1000 + 0.25

    def settled(self, pending: Pending, error: BaseException | None = None) -> None:
        self._pendings.discard(pending)
        pending.settle(error)

    def refused(self, error: Exception) -> Stop:
        """The journal did not take a row: the run is fenced, or the store is lost."""
        return self.poison(error if isinstance(error, HoldfastError) else StoreError(str(error)))


def blank_row(run_no: int, epoch: int, *, kind: str) -> Checkpoint:
    return Checkpoint(
        run_no=run_no,
        seq=0,
        epoch=epoch,
        kind=kind,
        scope="",
        branch="",
        name="",
        key=None,
        n=0,
        version="",
        status="done",
        attempts=1,
        started_ms=clock.now_ms(),
        duration_ms=0.0,
        tokens=None,
        usd=None,
        fingerprint=b"",
        inputs=None,
        result=None,
        delta=None,
    )


def _explain(id: str, error: Diverged, row: Checkpoint, inputs: bytes) -> str:
    recorded = codec.readable(row.inputs) if row.inputs else {}
    new = codec.readable(codec.preview(inputs))
    lines = [f"run {id!r}, checkpoint {row.seq}: {error}."]
    if isinstance(recorded, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*recorded, *new]):
            before, now = recorded.get(name, "(its default)"), new.get(name, "(its default)")
            if before != now:
                lines.append(f"  {name}: recorded {before!r}, now {now!r}")
    if row.scope or row.branch:
        lines.append(f"  in {' / '.join(part for part in (row.scope, row.branch) if part)}")
    lines.append(
        "The code between steps gave another result than when this was recorded. Either make it deterministic again "
        "(no clock, randomness or I/O outside of steps), or put what may differ in ignore=, or start the work again "
        "under a new id."
    )
    return "\n".join(lines)
