"""Runs that wait for one another in a circle would wait for ever: refused where that can be seen."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .branches import current_frame
from .errors import HoldfastError, NotInRun
from .journal import LOOK_EVERY_S
from .records import waits_told_in
from .store import RunRow

if TYPE_CHECKING:
    from .app import Holdfast
    from .run import LiveRun

_UNFINISHED = frozenset({"queued", "running", "waiting"})
_LOOKED_AT_MAX = 1000  # runs, so that looking ends
_TOLD_LATE_S = 2 * LOOK_EVERY_S  # that a run has gone on, its row may say so much later


async def refuse_circle_from_here(home: Holdfast, id: str) -> None:
    """``refuse_circle`` for code of a run, a step of it say; outside every run nothing waits for who asks."""
    try:
        frame = current_frame()
    except NotInRun:  # whose it is cannot be said
        return
    if frame is not None and frame.run.home._store is home._store:
        await refuse_circle(home, frame.run, id, in_store=True)


async def refuse_circle(home: Holdfast, run: LiveRun, id: str, *, in_store: bool) -> None:
    """``run`` is about to wait for the run ``id``. Raises ``HoldfastError`` if that waits for ``run``: it is the same,
    or one of those that began it, or waits for a run that waits for it, as far as this process knows, or (``in_store``)
    the rows tell."""
    circle = [id] if id == run.id else await _begun_by(home, run, id) or await _path(home, id, run.id, False)
    if not circle and in_store and await _path(home, id, run.id, True):
        await asyncio.sleep(_TOLD_LATE_S)  # what a row says is perhaps over
        circle = await _path(home, id, run.id, True)
    if circle:
        told = ", which waits for ".join(map(repr, circle if circle[-1] == run.id else [*circle, run.id]))
        raise HoldfastError(
            f"run {run.id!r} would wait for itself, for ever: it waits for {told}. Give what is to be begun an id of "
            "its own, or let one of them go on without the other's outcome."
        )


async def _begun_by(home: Holdfast, run: LiveRun, id: str) -> list[str]:
    """From the run ``id``, which still goes on, through those it has begun to the one that began ``run``; empty if it
    is none of its ancestors."""
    execution = home._live.get(run.id)
    if execution is None or execution.parent_no is None:
        return []
    if execution.ancestors is None:
        execution.ancestors = await _ancestors(home, execution.parent_no)
    if id not in execution.ancestors:
        return []
    row = await home._read(home._store.get, id)
    if row is None or row.status not in _UNFINISHED:
        return []
    return execution.ancestors[execution.ancestors.index(id) :]


async def _ancestors(home: Holdfast, no: int | None) -> list[str]:
    """Oldest first."""
    found: deque[str] = deque()
    while no is not None and len(found) < _LOOKED_AT_MAX:
        row = await home._read(_row_of, home, no)
        if row is None:
            break
        found.appendleft(row.id)
        no = row.parent_no
    return list(found)


def _row_of(home: Holdfast, no: int) -> RunRow | None:
    rows = home._store.runs(status=None, workflow=None, limit=1, after=no + 1)
    return rows[0] if rows and rows[0].no == no else None


async def _path(home: Holdfast, start: str, end: str, in_store: bool) -> list[str]:
    """From who is waited for to whom it waits for, until ``end``; empty if it does not come there."""
    paths = {start: [start]}
    ahead = deque(paths)
    while ahead and len(paths) < _LOOKED_AT_MAX:
        at = ahead.popleft()
        for id in await _waited_for_by(home, at, in_store):
            if id == end:
                return [*paths[at], end]
            if id not in paths:
                paths[id] = [*paths[at], id]
                ahead.append(id)
    return []


async def _waited_for_by(home: Holdfast, id: str, in_store: bool) -> list[str]:
    live = home._live.get(id)
    if live is not None and live.run is not None:
        return [wait.row.key or "" for wait in live.run.waits.live if wait.row.kind == "run"]
    row = await home._read(home._store.get, id) if in_store else None
    if row is None or row.status not in _UNFINISHED:
        return []
    return [wait.name for wait in waits_told_in(row.waiting, id) if wait.kind == "run"]
