"""How a run begins in this process: as it was, or, where other code recorded it, in a new attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .errors import CodecError, Fenced, HoldfastError, StoreError, VersionMismatch
from .records import count
from .store import Checkpoint, Revision, RunRow, revised
from .versions import difference, is_other, revision_of

if TYPE_CHECKING:
    from .definition import Definition
    from .run import LiveRun

_NAMED_MAX = 8  # steps in a line of the log


class Unloaded(HoldfastError):
    """The run was stopped from outside; nothing is recorded, and the same line resumes it."""


@dataclass
class Beginning:
    """The run's row and its checkpoints as this code goes on with them. ``before`` says which code recorded them."""

    row: RunRow
    rows: list[Checkpoint]
    revision: Revision | None = None
    refusal: HoldfastError | None = None  # why no new attempt can begin
    before: str = ""

    @classmethod
    def of(
        cls, row: RunRow, rows: list[Checkpoint], definition: Definition, damage: CodecError | None = None
    ) -> Beginning:
        if damage is not None:
            return cls(replace(row, state=None), [], refusal=damage)
        if not is_other(row, definition):
            return cls(row, rows)
        try:
            revision = revision_of(row, rows, definition)
        except (VersionMismatch, CodecError) as refusal:
            return cls(row, rows, refusal=refusal)
        return cls(revised(row, revision), [*rows, revision.begins], revision, before=difference(row, definition))

    async def made(self, run: LiveRun, commit: Callable[[Revision], Awaitable[Any]]) -> None:
        """Look at what is recorded, and commit that a new attempt begins, if one does. Raises ``Stop``."""
        if self.refusal is not None:
            raise run.poison(self.refusal)
        run.look_back()
        if self.revision is None:
            return
        try:
            await commit(self.revision)
        except asyncio.CancelledError:
            raise run.poison(Unloaded("stopped from outside")) from None
        except (Fenced, StoreError) as lost:
            raise run.poison(lost) from None
        self._tell(run)

    def _tell(self, run: LiveRun) -> None:
        assert self.revision is not None and run.pool is not None
        how, left = self.revision.begins.status, run.pool.left
        what = "may be kept" if how == "salvage" else "of once steps may be kept"
        run.log.warning("recorded %s: %s; from the top, %s %s", self.before, how, count(len(left), "result"), what)


def kept_by(run: LiveRun) -> str:
    """What a log line says at the end of a run that began with other code."""
    if run.pool is None:
        return ""
    left = run.pool.left
    names = ", ".join(sorted({row.name for row in left})[:_NAMED_MAX])
    unasked = f"; never asked for: {count(len(left), 'result')} of other versions ({names})" if left else ""
    return f", {run.kept} kept from other versions{unasked}"
