"""Who owns a run, who may take it, and what wakes it: the transactions that are no batch, for stores that speak SQL.

Each function is given an open transaction, and ``now``: the time by the store's clock, or 0 where the database's own
clock stands in the statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from holdfast.store.protocol import Code, Revision, RunRow, Signal, Taken

_RUN_FIELDS = RunRow.__struct_fields__


class Transaction(Protocol):
    def ask(self, name: str, given: Mapping[str, Any]) -> list[Any]:
        """What the statement of that name returns."""
        ...

    def bulk(self, name: str, rows: list[tuple[Any, ...]]) -> int:
        """How many rows the statement of that name changed, given these for its ``:rows``."""
        ...


def run_row(row: Sequence[Any]) -> RunRow:
    return RunRow(**dict(zip(_RUN_FIELDS, row, strict=True)))


def row_of_revision(of: Revision) -> tuple[Any, ...]:
    code = (of.version, of.python, of.module, of.file)
    return (of.run_no, of.epoch, *code, of.schema_version, of.state, of.checksum)


def run_of_no(db: Transaction, no: int) -> RunRow:
    return run_row(db.ask("run_of_no", {"no": no})[0])


def run_of_id(db: Transaction, id: str) -> RunRow | None:
    found = db.ask("run_of_id", {"id": id})
    return run_row(found[0]) if found else None


def claim(
    db: Transaction, now: int, run_no: int, epoch: int, *, owner: str, ttl_ms: int, lost: str | None
) -> RunRow | None:
    given = {"no": run_no, "epoch": epoch, "owner": owner, "lost": lost, "now_ms": now, "ttl_ms": ttl_ms}
    if not db.ask("record_takeover", given):
        return None
    found = db.ask("claim", given)
    return run_row(found[0]) if found else None


def accepted(workflows: Mapping[str, Code | None]) -> list[str]:
    """As the statements compare them: a name, or a name and its code, one below the other."""
    return sorted(name if code is None else "\n".join((name, *map(str, code))) for name, code in workflows.items())


def claim_all(
    db: Transaction, now: int, found: Sequence[tuple[RunRow, str | None]], *, owner: str, ttl_ms: int
) -> list[Taken]:
    """``found``: the runs as they are, and how the owner of each was lost."""
    taken = []
    for before, lost in found:
        row = claim(db, now, before.no, before.epoch, owner=owner, ttl_ms=ttl_ms, lost=lost)
        if row is not None:
            taken.append(Taken(row, before, lost))
    return taken


def renew(
    db: Transaction,
    now: int,
    owner: str,
    *,
    ttl_ms: int,
    doing: Mapping[int, bytes],
    waiting: Mapping[int, bytes | None],
) -> set[int]:
    held = {no for (no,) in db.ask("renew", {"owner": owner, "now_ms": now, "ttl_ms": ttl_ms})}
    db.bulk("note_doing", [(no, owner, what) for no, what in doing.items()])
    db.bulk("note_waiting", [(no, owner, what) for no, what in waiting.items()])
    return held


def wake(db: Transaction, now: int, no: int) -> tuple[int, int] | None:
    """How often it has been woken now, and the time by the store's clock; None if it has ended."""
    found = db.ask("wake", {"no": no, "now_ms": now})
    return found[0] if found else None


def cancel(db: Transaction, now: int, id: str) -> RunRow | None:
    for no, parent_no in db.ask("cancel", {"id": id, "now_ms": now}):
        db.ask("cancel_children", {"no": no, "now_ms": now})
        if parent_no is not None:
            wake(db, now, parent_no)
    return run_of_id(db, id)


def cancel_orphans(db: Transaction, now: int, created: dict[str, RunRow]) -> None:
    """Who is cancelled begins no run any more: one that was on its way comes about as cancelled."""
    for parent_no in {row.parent_no for row in created.values()} - {None}:
        found = db.ask("run_of_no", {"no": parent_no})
        if found and run_row(found[0]).status == "cancelled":
            for row in [each for each in created.values() if each.parent_no == parent_no]:
                db.ask("cancel", {"id": row.id, "now_ms": now})
                created[row.id] = run_of_no(db, row.no)


def send(db: Transaction, now: int, id: str, name: str, value: bytes, key: str | None) -> RunRow | None:
    run = run_of_id(db, id)
    if run is None:
        return None
    if key is not None and db.ask("signal_of_key", {"run_no": run.no, "key": key}):
        return run
    woken = wake(db, now, run.no)
    if woken is None:
        return run
    n, sent_ms = woken
    signal = Signal(run_no=run.no, n=n, name=name, key=key, value=value, sent_ms=sent_ms)
    given = {field: getattr(signal, field) for field in Signal.__struct_fields__}
    db.ask("send", {**given, "checksum": signal.compute_checksum()})
    return run_of_id(db, id)
