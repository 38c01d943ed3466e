"""A run ended for good from outside, with those it has begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .admission import refuse_while_imported, was_cancelled
from .errors import NotFound
from .logs import RunLog

if TYPE_CHECKING:
    from .app import Holdfast


async def cancel(home: Holdfast, id: str) -> None:
    """``Holdfast.cancel``: in the store, and at once where it is live in this process."""
    refuse_while_imported(home)
    row = await home._read(home._store.cancel, id)
    if row is None:
        raise NotFound(f"{home.url}: there is no run {id!r} to cancel")
    if row.status == "cancelled":
        ended = {row.no}
        for live in sorted(home._live.values(), key=lambda each: each.run.no if each.run is not None else 0):
            run = live.run  # a parent has a lower number than its children, if it began them
            if run is not None and (run.no in ended or live.parent_no in ended):
                ended.add(run.no)
                live.loop.call_soon_threadsafe(run.poison, was_cancelled(live.id))
    RunLog(id).info("%s", "cancelled" if row.status == "cancelled" else f"not cancelled, it is {row.status}")
