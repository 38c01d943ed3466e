"""A batch on SQLite: one multi-row statement that commits itself.

It carries the fence, and it fails as a whole when a row is there already. Only when it did not write exactly what was
asked for is the batch settled run by run, in a transaction. To settle a batch is to send it again, so what was written
already does no harm.
"""

from __future__ import annotations

import apsw
from msgspec.structs import astuple, replace

from holdfast.store import owners
from holdfast.store.owners import row_of_revision, run_row
from holdfast.store.protocol import Batch, Checkpoint, Committed, Finish, Revision, RunRow, end_checksum
from holdfast.store.settling import one_epoch_each, run_nos, settled
from holdfast.store.sqlite_file import in_transaction
from holdfast.store.sqlite_rows import SIZES, TEXTS, Transaction, asked, bulk


class _Unsettled(Exception):
    """Rolls a batch back that did not go through as a whole."""


def commit(db: apsw.Connection, batch: Batch, now: int) -> Committed:
    rows = batch.appends
    if not (rows or batch.creates or batch.finishes):
        return Committed()
    try:
        if batch.creates or batch.revisions or batch.finishes or len(rows) > SIZES[-1]:
            return in_transaction(db, lambda: _all_at_once(db, batch, now))
        if one_epoch_each(rows) and _append(db, rows) == len(rows):
            return Committed()
    except (apsw.ConstraintError, _Unsettled):
        pass
    return in_transaction(db, lambda: _settle(db, batch, now))


def _all_at_once(db: apsw.Connection, batch: Batch, now: int) -> Committed:
    """The batch as nearly every batch goes; rolled back, to be settled, if the fence has a say in it."""
    created = create(db, batch.creates, now)
    if not one_epoch_each(batch.appends) or _append(db, batch.appends) != len(batch.appends):
        raise _Unsettled
    _revise(db, batch.revisions)
    if _finish(db, batch.finishes, now) != len(batch.finishes):
        raise _Unsettled
    return Committed(created=created)


def _settle(db: apsw.Connection, batch: Batch, now: int) -> Committed:
    created = create(db, batch.creates, now)
    runs: dict[int, RunRow] = {}
    for no in run_nos(batch):
        runs.update((no, run_row(found)) for found in asked(db, TEXTS["run_of_no"], {"no": no}))
    standing: dict[tuple[int, int], int] = {}
    for row in batch.appends:
        place = (row.run_no, row.seq)
        for (checksum,) in db.execute(TEXTS["standing"], {"run_no": row.run_no, "seq": row.seq}):
            standing[place] = checksum
    left = settled(batch, runs, standing)
    _append(db, left.appends)
    _revise(db, left.revisions)
    _finish(db, left.finishes, now)
    return Committed(created=created, fenced=left.fenced)


def create(db: apsw.Connection, given: list[RunRow], now: int) -> dict[str, RunRow]:
    if not given:
        return {}
    rows: dict[str, RunRow] = {}
    for row in given:
        until = 0 if row.owner is None else now + row.lease_until_ms
        due = now + row.due_ms if row.due_ms else 0
        new = replace(row, lease_until_ms=until, due_ms=due, created_ms=now, updated_ms=now, heard_ms=now)
        new.checksum, new.end_checksum = new.compute_checksum(), end_checksum(new.status, new.result, new.error)
        rows.setdefault(row.id, new)
    created: dict[str, RunRow] = {}
    for no, id in bulk(db, "create", [astuple(row)[1:] for row in rows.values()])[1]:
        created[id] = rows[id]
        created[id].no = no
    owners.cancel_orphans(Transaction(db), now, created)
    owned = [(r.no, r.epoch, r.owner, now) for r in created.values() if r.owner is not None]
    bulk(db, "record_claims", owned)
    return created


def _append(db: apsw.Connection, rows: list[Checkpoint]) -> int:
    return bulk(db, "append", [astuple(row) for row in rows])[0]


def _revise(db: apsw.Connection, revisions: list[Revision]) -> None:
    bulk(db, "revise", [row_of_revision(each) for each in revisions])


def _finish(db: apsw.Connection, finishes: list[Finish], now: int) -> int:
    rows = []
    for f in finishes:
        end = (f.status, f.result, f.error, f.compute_checksum(), now, f.due_ms, f.waiting, f.wakes)
        rows.append((f.run_no, f.epoch, *end))
    changed = bulk(db, "finish", rows)[0]
    for finish in finishes:
        if finish.parent_no is not None:
            owners.wake(Transaction(db), now, finish.parent_no)
    return changed
