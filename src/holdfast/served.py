"""One run that a worker has claimed: whether it can go on here, its execution, and what becomes of it if not.

A worker never guesses and never loops: what it cannot go on with is parked, until a person acts; what may pass is
handed back, to be tried again after a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import TYPE_CHECKING

from . import clock
from .admission import refuse_other_work
from .beginning import Unloaded
from .claiming import Claimed
from .errors import CodecError, Fenced, HoldfastError, StoreError
from .execution import Execution
from .failure import Failure
from .flying import decode_doing
from .known import call_again, workflow_of
from .logs import RunLog
from .records import count, refuse_damaged
from .repairs import recorded, recorded_live
from .resting import Rest
from .store import Checkpoint, Claim, Finish, Taken
from .versions import is_other

if TYPE_CHECKING:
    from .app import Holdfast
    from .definition import Definition

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0


class TooManyDeaths(HoldfastError):
    """What a run is parked with that ended one process after another."""


class Served:
    """``taken`` is ours since ``began`` (monotonic seconds). ``failed`` counts how often it was handed back here."""

    def __init__(self, home: Holdfast, taken: Taken, began: float, failed: int) -> None:
        self._home = home
        self._taken = taken
        self._began = began
        self.row = taken.row
        self.log = RunLog(self.row.id)
        self.retry_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(failed, 32))
        self.execution: Execution | None = None
        self.waits = 0  # how often it began or ceased to wait
        self.leaving = False  # the worker lets go of it: whoever comes may have it at once
        self.passing = False  # it was handed back for something that may pass
        self._is_cut_off = False  # the worker ends now, and waits for no store
        self._is_unloading = False

    @property
    def is_waiting(self) -> bool:
        return self.execution is not None and self.execution.is_waiting

    @property
    def is_idle(self) -> bool:
        """Whether it needs no slot: nothing goes on in it until something outside, or a timer in memory, comes
        about."""
        run = self.execution.run if self.execution is not None else None
        return run is not None and run.rest is not Rest.WORKS

    async def live(self, waiting_changed: Callable[[Execution], None]) -> None:
        """Until the run has ended, or is somebody else's, or nobody's."""
        error: BaseException | None
        try:
            error = await self._advanced(waiting_changed)
        except asyncio.CancelledError:
            error, self._is_cut_off = Unloaded("the worker ends"), True
        except Exception as unfit:
            error = unfit
        if error is not None:
            await self._settle(error)

    async def _advanced(self, waiting_changed: Callable[[Execution], None]) -> BaseException | None:
        execution = await self._admitted()
        await self._alone()
        if self.leaving:
            raise Unloaded("the worker ends")
        execution.retry_after_ms = round(self.retry_s * 1000)
        execution.waiting_changed = waiting_changed
        self.execution = execution
        self._home._begin(execution)
        await execution.outcome.over()
        return execution.outcome.error

    async def leave(self) -> None:
        """Let the steps in flight finish, begin no other, and hand the run back."""
        self.leaving = True
        execution = self.execution
        if execution is None:  # it is being loaded, or let go of
            return
        execution.retry_after_ms = 0
        if execution.is_waiting and await execution.suspend():
            return
        if execution.run is not None:
            quiet = asyncio.Event()
            execution.run.drain(quiet.set)
            await quiet.wait()
            await asyncio.sleep(0.05)  # a workflow that has come to its end returns
        if not self._is_unloading:  # to ask a second time would cut short how the program cleans up
            await self.unload()

    async def unload(self) -> None:
        """Stop it where it is, and hand it back."""
        self.leaving = self._is_unloading = True
        if self.execution is not None:
            self.execution.retry_after_ms = 0
            await self.execution.unload()

    # -- whether it can go on here -------------------------------------------------------------------------

    async def _alone(self) -> None:
        """A run of this id may be live in this process: one of ours whose lease had lapsed, or one that waited for this
        run and takes it from us, since we have one name. Raises ``Unloaded`` once that is over."""
        live = self._home._live.get(self.row.id)
        if live is not None and not live.outcome.done():
            if live.run is not None and live.run.epoch < self.row.epoch:
                live.loop.call_soon_threadsafe(live.run.poison, Fenced("its lease had lapsed"))
            await live.outcome.over()
            raise Unloaded("it was live in this very process")

    async def _admitted(self) -> Execution:
        """Raises what the run is to be parked with."""
        row, home = self.row, self._home
        refuse_damaged(row)
        workflow = workflow_of(row)
        if workflow is None:
            raise Unloaded(f"workflow {row.workflow!r} is not known here any more")
        definition = workflow._definition
        call = call_again(workflow, row)
        call.take()
        execution = Execution(home, call, row.id, None, False, claimed=await self._claimed(definition))
        execution.detached = True
        refuse_other_work(row, definition, execution.inputs)
        return execution

    async def _claimed(self, definition: Definition) -> Claimed:
        """With its record. Raises ``TooManyDeaths``."""
        row, taken = self.row, self._taken
        read = recorded if is_other(row, definition) else recorded_live
        found = await self._home._read(read, self._home._store, row)
        rows, damage = found.usable, found.damage
        if damage is None and taken.lost is not None and row.deaths >= definition.max_deaths:
            self._refuse_deadly(rows, found.claims, definition.max_deaths)
        return Claimed(row, rows, self._began, taken.before, taken.lost == "died", damage)

    def _refuse_deadly(self, rows: list[Checkpoint], claims: list[Claim], max_deaths: int) -> None:
        deaths = deaths_in_a_row(rows, claims)
        if len(deaths) < max_deaths:
            return
        names = Counter(name for claim in deaths for name in _in_flight(claim.doing))
        flying = ", ".join(f"{name} ({times} of {len(deaths)})" for name, times in names.most_common(8))
        raise TooManyDeaths(
            f"{count(len(deaths), 'process')} in a row died (or let the lease lapse) over run {self.row.id!r}, with no "
            f"checkpoint between. In flight then: {flying or 'nothing that was told of'}. No worker begins it again; "
            f"when what ends them is mended: {self._resumed_by()}"
        )

    def _resumed_by(self) -> str:
        """What a person does who wants it to go on."""
        return f"holdfast resume {self.row.id}"

    # -- what becomes of it --------------------------------------------------------------------------------

    async def _settle(self, error: BaseException) -> None:
        """Let go of the run if it is still ours: whoever ended it properly has written that."""
        self.passing = isinstance(error, (StoreError, Unloaded))
        home, wait_s = self._home, RETRY_FIRST_S
        while True:
            try:
                row = await home._read(home._store.get, self.row.id)
                if row is None or (row.owner, row.epoch) != (home.owner, self.row.epoch):
                    if self.execution is not None and self.execution.is_asleep:
                        self.passing = False  # that it waits is no trouble
                    return
                finish = await self._finish(error, row.error)
                await home._journal.committed(finish, asyncio.get_running_loop())
                return
            except Fenced:
                return
            except StoreError as away:
                self.log.warning("cannot be handed back yet: %s", away)
                if self._is_cut_off:  # its lease lapses, or is seen to be a dead process's
                    return
            await clock.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def _finish(self, error: BaseException, before: bytes | None) -> Finish:
        finish = Finish(run_no=self.row.no, epoch=self.row.epoch, status="running", error=before)
        if not self.passing:
            self.log.error("parked: %s: %s", type(error).__name__, error)
            finish.status, finish.parent_no = "parked", self.row.parent_no
            finish.error = Failure(type(error).__name__, str(error), seqs=_tried_anew(before)).encode()
        elif not self.leaving:
            self.log.warning("handed back, to be tried again in %g s: %s", self.retry_s, error)
            finish.due_ms = await self._home._read(self._home._store.now_ms) + round(self.retry_s * 1000)
        return finish


def deaths_in_a_row(rows: list[Checkpoint], claims: Iterable[Claim]) -> list[Claim]:
    """The claims, last first, that found their owner before lost, since the last checkpoint and since anybody let go of
    the run properly. So a long run is not blamed for many deploys, and a person's resume counts anew."""
    since = rows[-1].epoch if rows else 0
    last_first = sorted(claims, key=lambda claim: -claim.epoch)
    return list(takewhile(lambda claim: claim.found in ("died", "lapsed") and claim.epoch > since, last_first))


def _in_flight(doing: bytes | None) -> set[str]:
    """The names of the steps that an owner had in flight when it was last heard of."""
    return {step[0] for step in decode_doing(doing)[1]}


def _tried_anew(error: bytes | None) -> list[int]:
    """The failures that a resume tries anew: they stay known while the run is parked for something else."""
    try:
        return Failure.decode(error, "its error").seqs if error else []
    except CodecError:
        return []
