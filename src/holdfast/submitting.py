"""Runs that are left to the workers: written down as queued, and begun by whoever has a slot."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from .admission import new_row, refuse_id, refuse_other_work
from .branches import Frame, current_frame, frame_in, is_awaited_by
from .context import uuid4, uuid4_in
from .definition import refuse_queue
from .delivery import Stop
from .errors import Fenced, HoldfastError, NotInRun, StoreError
from .logs import RunLog
from .records import Run, refuse_damaged
from .workflow import Call, no_call

if TYPE_CHECKING:
    from .app import Holdfast
    from .run import LiveRun

PRIORITY_MAX = 10**9
DELAY_MAX_S = 10**9


async def submit(
    home: Holdfast, call: Call[Any], id: str | None, *, queue: str | None, priority: int, delay: float
) -> Run:
    """``Holdfast.submit``."""
    if not isinstance(call, Call):
        raise TypeError(no_call(call))
    call.take()  # also where it is refused below: that is told by an error already
    _refuse_unfit(queue, priority, delay)
    frame = _frame_here()
    run = frame.run if frame is not None and frame.run.home is home else None
    is_unnamed = id is None
    if id is None:  # before anything is awaited: of several that submit at once the first has the first id
        id = (uuid4_in(frame) if frame is not None and is_awaited_by(frame) else uuid4()).hex
    try:
        if run is not None:
            await _refuse_if_stopped(home, run)
        home._check_open(for_more=True)
        await _submitted(home, call, id, queue, priority, delay, is_unnamed)
        return await home.get(id)
    except StoreError as lost:
        if run is None:
            raise
        raise _stop(run, lost) from None


def _frame_here() -> Frame | None:
    """The place in the run whose code this is, in a thread of it too."""
    try:
        return current_frame()
    except NotInRun:
        return frame_in(copy_context())


async def _refuse_if_stopped(home: Holdfast, run: LiveRun) -> None:
    """Who was cancelled or taken over submits nothing any more, also where it has not heard of that yet. Raises
    ``Stop``."""
    if run.is_ignoring:
        await run.halt()
    run.check()
    if home._closing:
        await run.hold()  # it is about to be unloaded
    row = await home._read(home._store.get, run.id)
    run.check()
    if row is None or row.epoch != run.epoch:
        raise _stop(run, Fenced("another owner has taken the run over"))


def _stop(run: LiveRun, error: HoldfastError) -> Stop:
    run.loop.call_soon_threadsafe(run.poison, error)  # this may be a thread of the run's
    return Stop(error)


async def _submitted(
    home: Holdfast, call: Call[Any], id: str, queue: str | None, priority: int, delay: float, is_unnamed: bool
) -> None:
    refuse_id(id)
    inputs = call.inputs()
    row = new_row(call, inputs, id)
    row.epoch = 0  # nobody has had it
    row.status, row.priority, row.due_ms = "queued", priority, round(delay * 1000)
    if queue is not None:
        row.queue = queue
    created = await home._journal.committed(row, asyncio.get_running_loop())
    if created is not None and created.seed == row.seed:
        known = f"; its id is new: hf.get({id!r}) finds it" if is_unnamed else ""
        RunLog(id).info("queued %s in %r%s", call.definition.name, row.queue, known)
        return
    found = await home._read(home._store.get, id)
    if found is None:
        raise StoreError(f"{home.url}: {id!r} is gone while it was being submitted; submit it again")
    refuse_damaged(found)
    refuse_other_work(found, call.definition, inputs)


def _refuse_unfit(queue: str | None, priority: int, delay: float) -> None:
    if queue is not None:
        refuse_queue(queue)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority= must be a whole number, higher ones first, got {priority!r}")
    if abs(priority) > PRIORITY_MAX:
        raise ValueError(f"priority= must be from {-PRIORITY_MAX:,} to {PRIORITY_MAX:,}, got {priority!r}")
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise TypeError(f"delay= must be a number of seconds, got {delay!r}")
    if not 0 <= delay <= DELAY_MAX_S:
        raise ValueError(f"delay= must be from 0 to {DELAY_MAX_S:,} seconds, got {delay!r}")
