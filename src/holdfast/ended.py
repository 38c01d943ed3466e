"""How a run ended, waited for by somebody who need not be in the process that advances it; and a run ended so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import clock
from .admission import refuse_while_imported, was_cancelled
from .circles import refuse_circle_from_here
from .claiming import POLL_S
from .errors import CodecError, Diverged, HoldfastError, Mismatch, NotFound, StepFailed, VersionMismatch
from .execution import Unloaded
from .failure import Failure
from .logs import RunLog

if TYPE_CHECKING:
    from .app import Holdfast

_PARKED: dict[str, type[HoldfastError]] = {
    error.__name__: error for error in (CodecError, Diverged, Mismatch, VersionMismatch)
}


async def outcome_of(home: Holdfast, id: str) -> Any:
    """What ``Run.wait`` waits for: the outcome, whoever brings it about."""
    await refuse_circle_from_here(home, id)
    while True:
        live = home._live.get(id)
        if live is not None:
            try:
                return await live.outcome.heard()
            except Unloaded:
                if not live.is_asleep:
                    raise
        run = await home.get(id)
        if run.status == "done":
            return run.result
        if run.status == "cancelled":
            raise was_cancelled(id)
        if run.status in ("failed", "parked"):
            row = await home._read(home._store.get, id)
            assert row is not None
            failure = Failure.decode(row.error or b"", f"run {id!r}, its error")
            if run.status == "parked":
                raise _PARKED.get(failure.type, HoldfastError)(failure.message)
            raise StepFailed(run.workflow, failure.type, failure.message)
        await clock.sleep(POLL_S)


async def cancel(home: Holdfast, id: str) -> None:
    """``Holdfast.cancel``."""
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
