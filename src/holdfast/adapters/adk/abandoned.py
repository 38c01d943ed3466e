"""Which invocations nobody advances any more."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast import lease
from holdfast.errors import CodecError
from holdfast.records import refuse_damaged
from holdfast.store import RunRow, Store

from .invocation import PREFIX, Names, names_of
from .turn import began_last

PAGE = 200  # rows looked at at once


def abandoned(store: Store, owner: str) -> list[Names]:
    """Oldest first; ``owner`` is who asks. What was damaged is told to operators and left out."""
    found: list[Names] = []
    now_ms = store.now_ms()
    for row in _running(store):
        if not row.workflow.startswith(PREFIX) or not _is_let_go(row, owner, now_ms):
            continue
        try:
            refuse_damaged(row)
            if began_last(store.load(row.no)) is not None:
                found.append(names_of(row))
        except CodecError:  # told by who claims it, too
            continue
    return found[::-1]


def _running(store: Store) -> Iterator[RunRow]:
    after: int | None = None
    while rows := store.runs(status="running", workflow=None, limit=PAGE, after=after):
        yield from rows
        after = rows[-1].no


def _is_let_go(row: RunRow, owner: str, now_ms: int) -> bool:
    if row.owner is None:
        return True
    return row.owner != owner and (row.lease_until_ms <= now_ms or lease.is_dead(row.owner))
