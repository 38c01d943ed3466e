"""The attempts of a run: one for each version of its code that went on with it.

The rows of an attempt follow the row, of kind "version", that it begins with; those of the first follow nothing. Only
the rows of the last attempt are records of the run as it is now. What stands before is history, and what a salvage
keeps results of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .store import Checkpoint

BEGINS = "version"  # the kind of row that begins an attempt; its status is how that deals with what was before


class Attempt(NamedTuple):
    """``begins`` is None for the first one."""

    begins: Checkpoint | None
    rows: list[Checkpoint]

    @property
    def keeps_results(self) -> bool:
        """Whether it goes on with what the attempt before it has brought about; a restart does so only with what must
        not be done twice."""
        return self.begins is not None and self.begins.status == "salvage"


def attempts_of(rows: Iterable[Checkpoint]) -> Iterator[Attempt]:
    """Oldest first; there is always one."""
    attempt = Attempt(None, [])
    for row in rows:
        if row.kind == BEGINS:
            yield attempt
            attempt = Attempt(row, [])
        else:
            attempt.rows.append(row)
    yield attempt


def present(rows: list[Checkpoint]) -> list[Checkpoint]:
    """The rows of the last attempt."""
    for k in range(len(rows) - 1, -1, -1):
        if rows[k].kind == BEGINS:
            return rows[k + 1 :]
    return rows
