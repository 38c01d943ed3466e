"""Runs that a workflow starts as runs of their own: brought about, and their end told to the wait of their parent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from . import branches, codec
from .admission import new_row, refuse_other_work
from .beginning import Unloaded
from .circles import refuse_circle
from .errors import Cancelled, Fenced, HoldfastError, InDoubt, StepFailed, StoreError
from .execution import Execution
from .failure import Failure
from .lookout import tell_ended
from .records import refuse_damaged
from .store import Finish, RunRow
from .waits import Wait

if TYPE_CHECKING:
    from .app import Holdfast

_LOOK_AGAIN_S = 0.1


def look_after(home: Holdfast, wait: Wait) -> None:
    """``LiveRun.waits.attend``: have what a wait waits for brought about, and looked at. Called on the run's loop."""
    run = wait.frame.run
    if wait.row.kind == "signal":
        home._lookout(run.loop).watch(wait)
    elif wait.row.kind == "run":
        following = branches.unlabelled_task(run.loop, _follow(home, wait), f"holdfast child {wait.row.key}")

        def stopped() -> None:
            if not run.finished:  # else it goes on: it is a run of its own
                following.cancel()

        wait.stopped = stopped


async def _follow(home: Holdfast, wait: Wait) -> None:
    run, id = wait.frame.run, wait.row.key or ""
    try:
        await refuse_circle(home, run, id, in_store=False)
        if not wait.is_fresh or home._serving:
            row = await home._read(home._store.get, id)
            if row is not None and not wait.is_fresh and row.status != "done" and tell_ended(wait, row):
                return  # its failure is what came of it, and is tried anew only if it ends this run
            if home._serving:
                await _leave_to_workers(home, wait, row)
                return
        while not await _advanced(home, wait):
            await asyncio.sleep(_LOOK_AGAIN_S)
    except StoreError as lost:
        run.poison(lost)
    except HoldfastError as refused:
        if not home._closing:  # a mistake in the program, told where it is made and not recorded as history
            wait.fail(refused)
    except Exception as unfit:
        wait.fail(unfit)


async def _advanced(home: Holdfast, wait: Wait) -> bool:
    """Start the child in this process, or resume it; False if it has to be looked at again."""
    run, child = wait.frame.run, wait.child
    execution: Execution = await home._begun(child.call, child.id, child.state, True, parent_no=run.no)
    execution.claimed.add_done_callback(lambda _: run.loop.call_soon_threadsafe(_stands, home, wait, execution))
    definition = execution.definition
    try:
        value = await execution.joined()
        result = codec.encode(value, definition.result_types, f"the result of workflow {definition.name!r}")
    except (Unloaded, Fenced):
        return run.is_leaving or home._closing
    except StoreError:
        raise
    except InDoubt:
        return await _resolved(home, wait)
    except Exception as error:
        if execution.run is None and not isinstance(error, (Cancelled, StepFailed)):
            raise  # it is none to go on with: other work, another version
        wait.error = error
        failure = Failure.of_step(error)
        wait.settle("failed", Failure(failure.type, failure.message).encode())
    else:
        wait.settle("done", result)
    return True


async def _resolved(home: Holdfast, wait: Wait) -> bool:
    """A child in doubt has not ended: wait until a person has resolved it, or others have gone on with it. True if the
    run that waits must not wait any more."""
    run = wait.frame.run
    while not (run.is_leaving or home._closing):
        await asyncio.sleep(_LOOK_AGAIN_S)
        row = await home._read(home._store.get, wait.child.id)
        if row is None or row.status != "in_doubt":
            return False
    return True


async def _leave_to_workers(home: Holdfast, wait: Wait, row: RunRow | None) -> None:
    """In a worker a child takes its turn in its queue."""
    run, child = wait.frame.run, wait.child
    inputs = child.call.inputs()
    if row is None:
        new = new_row(child.call, inputs, child.id, child.state)
        new.status, new.epoch, new.parent_no = "queued", 0, run.no
        created = await home._journal.committed(new, run.loop)
        row = created or await home._read(home._store.get, child.id)
        assert row is not None
    refuse_damaged(row)
    refuse_other_work(row, child.call.definition, inputs)
    wait.is_own = row.parent_no == run.no
    if not wait.is_own:
        await refuse_circle(home, run, child.id, in_store=True)
    if row.status in ("failed", "parked") and wait.is_fresh:
        await _queue_again(home, row, run.loop)
    elif tell_ended(wait, row):
        return
    home._lookout(run.loop).watch(wait)


async def _queue_again(home: Holdfast, row: RunRow, loop: Any) -> None:
    """A run that failed before it was asked for now: its failure is tried anew."""
    claim = home._store.claim
    claimed = await home._read(lambda: claim(row.no, row.epoch, owner=home.owner, ttl_ms=home._lease.ttl_ms, lost=None))
    if claimed is not None:
        finish = Finish(run_no=row.no, epoch=claimed.epoch, status="queued", error=row.error)
        await home._journal.committed(finish, loop)


def _stands(home: Holdfast, wait: Wait, execution: Execution) -> None:
    """Its child is in the store: from here on the run that waits may be let go of."""
    if execution.run is None and not execution.outcome.done():  # another owner advances it
        branches.unlabelled_task(execution.loop, _refuse_circle(home, wait), f"holdfast circle {execution.id}")
    wait.frame.run.waits.unlooked.pop(wait, None)
    wait.frame.run.looks.ask()


async def _refuse_circle(home: Holdfast, wait: Wait) -> None:
    try:
        await refuse_circle(home, wait.frame.run, wait.row.key or "", in_store=True)
    except StoreError:  # whoever waits will hear of that
        pass
    except HoldfastError as refused:
        wait.fail(refused)
