"""How a run ended, waited for by somebody who need not be in the process that advances it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import clock
from .admission import was_cancelled
from .beginning import Unloaded
from .circles import refuse_circle_from_here
from .claiming import POLL_S
from .doubt import doubt_told
from .errors import CodecError, Diverged, HoldfastError, Mismatch, StepFailed, VersionMismatch
from .failure import Failure

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
        if run.status in ("failed", "parked", "in_doubt"):
            row = await home._read(home._store.get, id)
            assert row is not None
            failure = Failure.decode(row.error or b"", f"run {id!r}, its error")
            if run.status == "in_doubt":
                raise doubt_told(failure.message, await home._read(home._store.load, row.no))
            if run.status == "parked":
                raise _PARKED.get(failure.type, HoldfastError)(failure.message)
            raise StepFailed(run.workflow, failure.type, failure.message)
        await clock.sleep(POLL_S)
