"""What a workflow's code would do with a run: the code is run against the record, and executes and writes nothing.

A call that is recorded is recalled, in the recorded order, as a resume would. At the first call that is not, the branch
that made it rests for ever; other branches go on. What comes behind such a call depends on an outcome that nobody has,
so nothing is said of it.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, cast

from . import body, branches, whereabouts
from .admission import only_planned
from .beginning import Beginning
from .blobs import Blobs
from .claiming import Claimed, Record, record_of
from .delivery import Stop
from .errors import Diverged, HoldfastError, StoreError
from .recall import enclosing
from .rehearsal import Rehearsal, Unrecorded
from .repairs import recorded
from .run import LiveRun
from .store import Batch, Checkpoint, Committed, RunRow, Store
from .store.blobs import BlobRows
from .store.dialogs import Dialogs
from .versions import refuse_other_version

if TYPE_CHECKING:
    from .app import Holdfast
    from .workflow import Call

Committing = Callable[[Any, HoldfastError | None], None]
LOOK_AGAIN_S = 0.005

# What only reads, named one by one, so that what a store learns to write later is not let through.
_RUNS = {"url", "durable", "now_ms", "get", "runs", "spent", "load", "claims", "owners", "signals", "wakes", "statuses"}
_NEWS = {"listen", "news", "stamp", "close", "forget"}
_DIALOGS = {"dialog", "dialogs", "dialog_events", "last_before", "shared"}
_READS = _RUNS | _NEWS | _DIALOGS | {"blob_part"}


@dataclass
class Plan:
    """What became of the code on its way through the record, up to where every branch of it rests or the program ends.

    ``ended``: "done" or "failed" if it came to its end, and ``error`` says how it failed. ``diverged`` is the text of
    ``Diverged``; ``stopped`` says what else stops the run, or this plan. ``unclaimed`` are checkpoints that no call has
    asked for although the program has passed them; ``unreached`` those that what it rests at may ask for; of another
    version's record both are the results that are kept or left. ``hanging``
    are the lines at which code neither went on nor rested. ``version`` says what other code recorded the run, and what
    becomes of it under this one; ``kept`` counts the results it keeps then.
    """

    run: RunRow
    recalled: int = 0
    kept: int = 0
    would: list[Unrecorded] = field(default_factory=list)
    unclaimed: list[Checkpoint] = field(default_factory=list)
    unreached: list[Checkpoint] = field(default_factory=list)
    version: str | None = None
    diverged: str | None = None
    stopped: str | None = None
    ended: str | None = None
    error: str | None = None
    hanging: list[str] = field(default_factory=list)


def plan_run(home: Holdfast, row: RunRow, call: Call[Any], *, timeout_s: float) -> Plan:
    """What the code of ``call`` would do with a run. ``home`` is on an ``Unwritten`` store. Blocks, for at most
    ``timeout_s`` seconds."""
    call.take()
    found = recorded(home._store, row)
    record = record_of(Claimed(row, found.usable, began=0.0, damage=found.damage))
    with only_planned(row.id, home):
        return _Planning(home, row, record, call).made(timeout_s)


class _Planning:
    """One plan being made, on a loop in a thread of its own: code that blocks its loop blocks nobody else's."""

    def __init__(self, home: Holdfast, row: RunRow, record: Record, call: Call[Any]) -> None:
        self._home = home
        self._row = row
        self._record = record
        self._call = call
        self._run: LiveRun | None = None
        self._thread = threading.Thread(target=self._work, name=f"holdfast-plan-{row.id}", daemon=True)
        self._over = threading.Event()
        self._is_late = False  # nobody waits for the plan any more
        self._plan = Plan(row)

    def made(self, timeout_s: float) -> Plan:
        self._thread.start()
        if not self._over.wait(timeout_s):
            self._is_late = True
            self._tell_where_it_hangs()
        return self._plan

    def _work(self) -> None:
        try:
            asyncio.run(self._follow())
        except BaseException as error:  # the program's own sys.exit would end the run's process as well
            if not self._over.is_set():
                self._plan.stopped = f"{type(error).__name__}: {error}"
        finally:
            self._over.set()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        branches.install(loop)
        loop.set_exception_handler(lambda *_: None)  # what is cut off in the middle at the end is nobody's loss
        rows, _, damage = self._record
        beginning = Beginning.of(self._row, rows, self._call.definition, damage)
        if beginning.before:
            self._plan.version = f"recorded {beginning.before}: {self._call.definition.on_change}"
        run = self._run = self._live_run(loop, beginning)
        run.rehearsal = rehearsal = Rehearsal(run)
        try:
            refuse_other_version(self._row, self._call.definition)
            if beginning.refusal is not None:
                raise beginning.refusal
            run.look_back()
        except HoldfastError as refused:
            run.poison(refused)
        except Stop:
            pass
        if run.stop is not None:
            self._tell(run, rehearsal, None)
            return
        root = body.start(run, self._call)
        while not (root.done() or run.stop is not None or rehearsal.is_at_rest or self._is_late):
            rehearsal.look()
            await asyncio.wait({root}, timeout=LOOK_AGAIN_S)
        if not self._is_late:
            self._tell(run, rehearsal, root)
        run.poison(HoldfastError(f"run {run.id!r} was only planned"))
        self._over.set()  # nobody waits for the program's own cleanup
        await body.unwind(run, root, whole=True)

    def _live_run(self, loop: asyncio.AbstractEventLoop, beginning: Beginning) -> LiveRun:
        failure = self._record.failure

        def submit(checkpoint: Checkpoint, committed: Committing) -> None:
            loop.call_soon(committed, None, None)  # of a workflow inside this one, whose steps are all recorded

        run = LiveRun(
            beginning.row,
            beginning.rows,
            loop,
            submit=submit,
            announce=lambda bulletin: None,
            home=self._home,
            ignored=set(failure.seqs) if failure is not None else set(),
        )
        run.lease_deadline = math.inf
        return run

    def _tell(self, run: LiveRun, rehearsal: Rehearsal, root: asyncio.Future[Any] | None) -> None:
        plan, ended = self._plan, root is not None and root.done()
        plan.recalled, plan.kept, plan.would = run.recalled, run.kept, list(rehearsal.would)
        stop = run.stop
        if stop is None and ended and root is not None:
            raised = body.exception_of(root)
            if isinstance(raised, Stop):
                stop = raised
            else:
                plan.ended = "done" if raised is None else "failed"
                plan.error = None if raised is None else f"{type(raised).__name__}: {raised}"
        if stop is None:
            inside = {each.scope for each in plan.would}
            plan.unclaimed, ahead = run.records.left_over(is_over=ended)
            plan.unreached = [each for each in ahead if inside.isdisjoint(enclosing(each.scope))]
            if run.pool is not None:  # what may be kept of other versions lies at places that say nothing of these
                (plan.unclaimed if ended else plan.unreached).extend(run.pool.left)
        elif isinstance(stop.error, Diverged):
            plan.diverged = str(stop.error)
        else:
            plan.stopped = f"{type(stop.error).__name__}: {stop.error}"

    def _tell_where_it_hangs(self) -> None:
        run, plan = self._run, self._plan
        if run is not None:
            plan.recalled, plan.would = run.recalled, list(run.rehearsal.would) if run.rehearsal is not None else []
            resting = {each.line for each in plan.would}
            lines = whereabouts.lines_of(run, self._thread.ident or 0)
            plan.hanging = sorted({str(line) for line in lines if line not in resting})
        plan.hanging = plan.hanging or ["(no line of the program can be seen)"]


class Unwritten:
    """A store whose rows are read, and never written: whatever the planned code asks of it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name in _READS:
            return getattr(self._store, name)
        if name not in vars(Store) and name not in vars(Dialogs) and name not in vars(BlobRows):
            raise AttributeError(name)
        return lambda *args, **options: self._refuse(f"write to it ({name})")

    def commit(self, batch: Batch) -> Committed:
        known = all(self._store.get(row.id) is not None for row in batch.creates)
        if batch.appends or batch.finishes or not known:
            self._refuse(f"create {', '.join(repr(row.id) for row in batch.creates)}" if batch.creates else "write")
        return Committed()  # what was submitted before is found again

    def renew(self, *args: Any, **options: Any) -> set[int]:
        return set()  # it owns nothing

    def claim(self, *args: Any, **options: Any) -> Any:
        self._refuse("advance a run")

    def cancel(self, id: str) -> Any:
        self._refuse(f"cancel {id!r}")

    def send(self, id: str, name: str, *args: Any, **options: Any) -> Any:
        self._refuse(f"send {name!r} to {id!r}")

    def fork(self, *args: Any) -> Any:
        self._refuse("fork a run")

    claim_due = tell = clear_news = claim

    def _refuse(self, what: str) -> None:
        raise StoreError(f"{self._store.url}: the code would {what}, and it is only planned.")


def unwritten(store: Store) -> Store:
    return cast("Store", Unwritten(store))


class UnwrittenBlobs:
    """The same of where big values are kept, which may be a folder or a bucket."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def keep(self, content: object) -> NoReturn:
        raise StoreError("the code would keep a big value (holdfast.Blob.of), and it is only planned.")

    keep_stream = keep


def unwritten_blobs(blobs: Blobs) -> Blobs:
    return cast("Blobs", UnwrittenBlobs(blobs))
