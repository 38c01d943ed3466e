"""Runs that are left to the workers: written down as queued, and begun by whoever has a slot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .admission import new_row, refuse_id, refuse_other_work
from .context import uuid4
from .definition import refuse_queue
from .errors import StoreError
from .logs import RunLog
from .records import refuse_damaged
from .workflow import Call, no_call

if TYPE_CHECKING:
    from .app import Holdfast

PRIORITY_MAX = 10**9
DELAY_MAX_S = 10**9


async def submit(
    home: Holdfast, call: Call[Any], id: str | None, *, queue: str | None, priority: int, delay: float
) -> str:
    """``Holdfast.submit``; the id of the run, new or known."""
    if not isinstance(call, Call):
        raise TypeError(no_call(call))
    call.take()  # also where it is refused below: that is told by an error already
    _refuse_unfit(queue, priority, delay)
    home._check_open(for_more=True)
    is_unnamed = id is None
    if id is None:
        id = uuid4().hex
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
        return id
    found = await home._read(home._store.get, id)
    if found is None:
        raise StoreError(f"{home.url}: {id!r} is gone while it was being submitted; submit it again")
    refuse_damaged(found)
    refuse_other_work(found, call.definition, inputs)
    return id


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
