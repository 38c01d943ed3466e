"""One run driven by this process: from the claim of its lease, through its body, to its recorded end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import body, branches, clock, codec, lease, resting
from .admission import new_row, refuse_other_work, was_cancelled
from .beginning import Beginning, Unloaded, kept_by
from .claiming import Claimed, Claiming, record_of, tell_claimed
from .delivery import Stop, cancel_once
from .errors import (
    Cancelled,
    CodecError,
    Diverged,
    Fenced,
    HoldfastError,
    InDoubt,
    Mismatch,
    StepFailed,
    StoreError,
    VersionMismatch,
)
from .failure import Failure
from .logs import RunLog
from .outcome import RunOutcome
from .records import count, named, what_is_waited_for
from .run import LiveRun
from .store import Checkpoint, Finish, Revision, RunRow
from .versions import refuse_other_version

if TYPE_CHECKING:
    from .app import Holdfast
    from .workflow import Call

LEANING_MS = 10_000  # a run that was let go of in a lock, which others may hold, looks again after so long


class Execution:
    """One way of a run through this process, on the loop that began it; ``outcome`` may be waited for from any."""

    def __init__(
        self,
        home: Holdfast,
        call: Call[Any],
        id: str,
        state: dict[str, Any] | None,
        wait: bool,
        parent_no: int | None = None,
        *,
        claimed: Claimed | None = None,
    ) -> None:
        self.home = home
        self.call = call
        self.id = id
        self.definition = call.definition
        self.state = state
        self.wait = wait
        self.parent_no = parent_no
        self.ancestors: list[str] | None = None  # who began it, oldest first, once that was asked for
        self.waiting_changed: Callable[[Execution], None] | None = None  # called on the loop
        self._asleep: Finish | None = None  # how it is handed back if it only waited
        self.log = RunLog(id)
        self.loop = asyncio.get_running_loop()
        self.run: LiveRun | None = None
        self.outcome = RunOutcome(self.loop)
        self.claimed: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.waiters = 0
        self.leaving = False  # being unloaded: who wants this run waits until it is gone, and starts it anew
        self.detached = False  # started with hf.start: goes on when nobody waits
        self.lease_began = 0.0
        self.inputs = call.inputs()
        self.fingerprint = codec.fingerprint(self.inputs)
        self.retry_after_ms = 0  # handed back unfinished, it is not to be taken by a worker sooner
        self._taken = claimed  # by a worker, which has asked already whether it may go on
        self._driver: asyncio.Task[None] | None = None

    def refuse_other(self, call: Call[Any]) -> None:
        """The id is taken by other work that is live in this process."""
        raise Mismatch(
            f"run {self.id!r} is live in this process as {self.definition.name!r} with "
            f"{codec.readable(self.inputs)!r}; now {call.definition.name!r} with {codec.readable(call.inputs())!r}. "
            "Nothing was changed; choose another id."
        )

    def launch(self) -> None:
        branches.install(self.loop)
        self._driver = branches.unlabelled_task(self.loop, self._drive(), f"holdfast run {self.id}")

    async def joined(self) -> Any:
        """Wait for the outcome; if the last one waiting is cancelled, the run is unloaded first."""
        self.waiters += 1
        try:
            return await self.outcome.heard()
        except asyncio.CancelledError:
            if self.waiters == 1 and not self.detached and not self.outcome.done():
                await self.unload()
            raise
        finally:
            self.waiters -= 1

    async def unload(self) -> None:
        """Stop the run where it is, without recording that, and hand the lease back."""
        self.leaving = True
        driver = self._driver
        if driver is None or driver.done():
            return
        if asyncio.get_running_loop() is self.loop:
            cancel_once(driver)
            await asyncio.wait({driver})
        else:
            self.loop.call_soon_threadsafe(cancel_once, driver)
            await self.outcome.over()

    async def _drive(self) -> None:
        try:
            outcome = await self._driven()
        except BaseException as error:
            self.home._ended(self)
            is_told = self.run is not None and self.run.stop is not None and not isinstance(error, Cancelled)
            if self.waiters == 0 and isinstance(error, Exception) and not is_told:
                self.log.warning("ended with %s: %s", type(error).__name__, error)
            self.outcome.tell(error=self._unloaded() if isinstance(error, asyncio.CancelledError) else error)
            if not isinstance(error, Exception) and not self.home._serving:
                if self._driver is not None:  # the outcome tells it; asyncio need not report a sys.exit once more
                    self._driver.add_done_callback(lambda done: done.cancelled() or done.exception())
                raise
        else:
            self.home._ended(self)
            self.outcome.tell(outcome)
        finally:
            self._settle_claimed()

    def _settle_claimed(self) -> None:
        """By us, or by another who advances it, or it never will be: hf.start need not wait any more."""
        if not self.claimed.done():
            self.claimed.set_result(None)

    def _unloaded(self) -> Unloaded:
        return Unloaded(
            f"run {self.id!r} was unloaded: its Holdfast was closed, or its loop ended. Nothing is lost; the same line "
            "resumes it."
        )

    async def _driven(self) -> Any:
        # One journal for all of the run: after a lost commit, no later row may slip past it through a new one.
        self.journal = self.home._journal
        claimed = await self._claim()
        row = claimed.row
        if row.status == "done":
            return self._result(row)
        tell_claimed(self.log, claimed, self.definition.name)
        self.lease_began = claimed.began
        recorded, self._failure, damage = record_of(claimed)
        beginning = self._beginning = Beginning.of(row, recorded, self.definition, damage)
        row, rows = beginning.row, beginning.rows
        run = LiveRun(
            row,
            rows,
            self.loop,
            submit=self._submit,
            announce=self.journal.announce,
            home=self.home,
            ignored=set(self._failure.seqs) if self._failure is not None else set(),
        )
        run.lease_deadline = self.lease_began + self.home._lease.trusted_s
        run.confirm_lease = self._confirm_lease
        driver = asyncio.current_task()
        assert driver is not None
        run.driver_is_cancelled = lambda: driver.cancelling() > 0
        run.observer = self.home._observer
        run.durable = self.home._store.durable
        self.parent_no = row.parent_no
        lookout = self.home._lookout(self.loop)
        run.waits.attend = self.home._look_after
        run.waits.look = lambda: lookout.look(run)
        run.waiting_changed = self._waiting_changed
        self.run = run  # from here on the heartbeat knows it
        self._settle_claimed()
        branches.live_runs[id(run)] = self.loop
        try:
            return await self._run_body(run)
        finally:
            branches.live_runs.pop(id(run), None)
            run.end()
            lookout.forget(run)

    # -- waiting -------------------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether nothing goes on in the run until something outside comes about, and nothing would be lost with it."""
        return self.run is not None and self.run.rest is resting.Rest.WAITS

    @property
    def is_asleep(self) -> bool:
        """Whether it was handed back while it only waited."""
        return self._asleep is not None

    def _waiting_changed(self) -> None:
        if self.waiting_changed is not None:
            self.waiting_changed(self)

    async def suspend(self) -> bool:
        """Unload the run if it only waits and nobody here waits for it: its row says until when, and what wakes it.
        Whether it was."""
        run = self.run
        if run is None or self.waiters or self.leaving or not self._falls_asleep(run):
            return False
        self.leaving = True
        run.poison(Unloaded("unloaded while it waits"))
        await self.outcome.over()
        return True

    def _falls_asleep(self, run: LiveRun) -> bool:
        if run.rest is not resting.Rest.WAITS:
            return False
        due_ms = run.waits.due_ms
        if resting.leans_on_others(run):
            due_ms = min(due_ms, run.waits.now_ms() + LEANING_MS)
        self._asleep = Finish(
            run_no=run.no,
            epoch=run.epoch,
            status="waiting",
            error=self._failure.encode() if self._failure is not None else None,
            due_ms=due_ms,
            waiting=run.waits.described(),
            # Where no worker is, its children are advanced here, and that one has ended may be on its way to it.
            wakes=run.waits.wakes if self.home._serving else 0,
        )
        return True

    # -- claiming ------------------------------------------------------------------------------------------

    async def _claim(self) -> Claimed:
        if self._taken is not None:
            return self._taken
        new = new_row(self.call, self.inputs, self.id, self.state)
        new.owner, new.lease_until_ms, new.parent_no = self.home.owner, self.home._lease.ttl_ms, self.parent_no
        return await Claiming(self.home, self.journal, new, self._admit, wait=self.wait).claimed()

    def _admit(self, row: RunRow, waited: bool) -> None:
        """Whether the run found under this id is the one meant, and may go on."""
        refuse_other_work(row, self.definition, self.inputs)
        if row.status == "cancelled":
            raise was_cancelled(self.id)
        if row.status == "done":
            return
        if waited:
            self._settle_claimed()
        if row.status == "failed" and waited:
            failure = Failure.decode(row.error or b"", f"run {self.id!r}, its error")
            raise StepFailed(row.workflow, failure.type, failure.message)
        refuse_other_version(row, self.definition)

    def _result(self, row: RunRow) -> Any:
        where = f"run {self.id!r}, its result"
        with self.home._blobs.nearest():
            return codec.decode(row.result or b"", self.definition.result_types, where)

    # -- the body ------------------------------------------------------------------------------------------

    async def _run_body(self, run: LiveRun) -> Any:
        try:
            await self._beginning.made(run, self._committed)
        except Stop as stop:
            return await self._stopped(run, stop.error)
        root = body.start(run, self.call)
        ended: asyncio.Future[None] = self.loop.create_future()

        def end(_: object = None) -> None:
            if not ended.done():
                ended.set_result(None)

        root.add_done_callback(end)
        run.stops.append(end)
        try:
            await ended
            await run.irreversible.over(root)
        except asyncio.CancelledError:
            self._falls_asleep(run)
            run.poison(Unloaded(body.why_unloaded(root)))
        if run.stop is None and not root.cancelled() and isinstance(error := root.exception(), Stop):
            run.poison(error.error)
        if run.stop is not None:
            await body.unwind(run, root, whole=self.is_asleep)
            return await self._stopped(run, run.stop.error)
        return await self._finish(run, root)

    def _to_retry(self, run: LiveRun) -> list[int]:
        """The failures that stay to be tried anew. A damaged record was not even looked at, so keeps all of them."""
        if self._failure is not None and self._beginning.refusal is not None:
            return self._failure.seqs
        return sorted(run.ignored)

    async def _stopped(self, run: LiveRun, error: HoldfastError) -> Any:
        if isinstance(error, Fenced):
            row = await self.home._read(self.home._store.get, self.id)
            if row is not None and row.status == "cancelled":
                raise was_cancelled(self.id)
            by = f" by {lease.process_of(row.owner)}" if row is not None and row.owner else ""
            self.log.error("fenced, it was taken over%s", by)
            raise Fenced(f"run {self.id!r} was taken over{by}; what this process did since is not part of it.")
        if isinstance(error, (Cancelled, StoreError)):
            self.log.error("stopped: %s", error)
            if isinstance(error, StoreError) and not self.home._serving:  # a worker tells the store itself, and when
                self.home._unreturned.add(self._handed_back(run))
            raise error
        finish = self._handed_back(run)
        if isinstance(error, (Diverged, CodecError, InDoubt, VersionMismatch)):
            finish.status = "in_doubt" if isinstance(error, InDoubt) else "parked"
            finish.error = Failure(type(error).__name__, str(error), seqs=self._to_retry(run)).encode()
            finish.parent_no = self.parent_no
            # A line for operators; the error itself says all there is to say of a doubt.
            told = str(error).partition("\n")[0] if isinstance(error, InDoubt) else f"{type(error).__name__}: {error}"
            self.log.error("%s: %s", finish.status.replace("_", " "), told)
        elif self.is_asleep:
            self.log.info("unloaded, it waits for %s", what_is_waited_for(finish.waiting, self.id))
        else:
            self._tell_stopped(run, str(error))
        if not isinstance(error, CodecError):  # maybe of such an intent, which no store has taken
            run.close_intents()
        try:
            await self._committed(finish)
        except HoldfastError as lost:
            self.log.warning("its lease could not be handed back: %s", lost)
            if not self.home._serving:
                self.home._unreturned.add(finish)
        if isinstance(error, Unloaded):
            raise asyncio.CancelledError
        raise error

    def _tell_stopped(self, run: LiveRun, how: str) -> None:
        """A warning where nobody else is told: a run of ``hf.start`` that its ``Holdfast`` was closed over."""
        serving = self.home._serving
        level = logging.WARNING if self.waiters == 0 and not serving else logging.INFO
        who = "whoever serves its queue goes on with it" if serving else "the same line resumes it"
        self.log.log(level, "%s with %s recorded; %s", how, count(run.recorded, "step"), who)

    def _handed_back(self, run: LiveRun) -> Finish:
        """The lease released, the run unfinished; a failure that is being tried anew is still known as that."""
        if self._asleep is not None:
            return self._asleep
        error = self._failure.encode() if self._failure is not None else None
        finish = Finish(run_no=run.no, epoch=run.epoch, status="running", error=error)
        if self.retry_after_ms:
            finish.due_ms = run.waits.now_ms() + self.retry_after_ms
        return finish

    async def _finish(self, run: LiveRun, root: asyncio.Future[Any]) -> Any:
        error = body.exception_of(root)
        if error is not None and not isinstance(error, (Exception, asyncio.CancelledError)):
            how = f"stopped by {error!r} in its own code"
            finish = self._handed_back(run)
            if not self.home._serving:
                self._tell_stopped(run, how)
            else:  # it would stop the next worker too
                self.log.error("parked: %s", how)
                finish.status, finish.error = (
                    "parked",
                    Failure.of_run(error, cancelled=set(), ignored=run.ignored).encode(),
                )
                finish.parent_no = self.parent_no
            await self._committed(finish)
            raise error
        finish = Finish(run_no=run.no, epoch=run.epoch, status="done", parent_no=self.parent_no)
        value = None
        if error is None:
            value = root.result()
            try:
                where = f"the result of workflow {self.definition.name!r}"
                finish.result = codec.encode(value, self.definition.result_types, where)
            except CodecError as unfit:
                error = unfit
        unclaimed = run.records.unclaimed if error is None else []
        try:
            run.record_leftovers(unclaimed)
        except CodecError as unfit:
            error = error or unfit
        if error is not None:
            failure = Failure.of_run(error, cancelled=run.cancelled, ignored=run.ignored)
            finish.status, finish.result, finish.error = "failed", None, failure.encode()
        try:
            await self._committed(finish)
        except (Fenced, StoreError, CodecError) as refused:
            return await self._stopped(run, run.stop.error if run.stop else refused)
        if unclaimed:
            self.log.warning("the code takes another way now, never asked for again: %s", named(unclaimed))
        self.log.info("%s; steps: %d executed, %d recalled%s", finish.status, run.executed, run.recalled, kept_by(run))
        if isinstance(error, asyncio.CancelledError):  # as it is, it would look like a cancellation of who awaits it
            told = Failure.of_step(error)
            raise StepFailed(self.definition.name, told.type, told.message) from error
        if error is not None:
            raise error
        return value

    # -- the way to the store ------------------------------------------------------------------------------

    def _submit(self, row: Checkpoint, committed: Callable[[Any, HoldfastError | None], None]) -> None:
        self.journal.submit(row, self.loop, committed)

    async def _committed(self, row: RunRow | Revision | Finish) -> Any:
        return await self.journal.committed(row, self.loop)

    async def _confirm_lease(self) -> None:
        """The local deadline has passed (the process was paused, or the store slow): ask the store before going on."""
        run = self.run
        assert run is not None
        await self.journal.renewed(self.loop)
        if run.stop is None and clock.monotonic() > run.lease_deadline:
            raise run.poison(self._not_renewed())

    def _not_renewed(self) -> StoreError:
        return StoreError(f"run {self.id!r}: its lease could not be renewed in time; run the same line again")

    def renewed(self, held: set[int] | None, began: float, deadline: float) -> None:
        """Told by the heartbeat, on the journal's thread."""
        run = self.run
        if run is None or run.finished or self.lease_began >= began:
            return
        if held is None:
            run.was_not_told()
        if held is not None and run.no in held:
            run.lease_deadline = deadline
            return
        if held is None and clock.monotonic() <= run.lease_deadline:
            return
        error: HoldfastError = Fenced("lost its lease") if held is not None else self._not_renewed()
        try:
            self.loop.call_soon_threadsafe(run.poison, error)
        except RuntimeError:  # the loop is closed
            pass
