"""The store that many machines share: PostgreSQL.

A batch is one statement that commits itself, with the fence and the locks of the runs' rows in it. Only when it did
not write exactly what was asked for is the batch settled run by run, in a transaction. A connection that was lost is
replaced, and the same is done again; what may have been committed already is recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from msgspec.structs import astuple, replace

from holdfast.errors import StoreError
from holdfast.store import dialog_writing, forking, owners, postgres_dialogs, postgres_schema
from holdfast.store.copying import copy_rows
from holdfast.store.dialogs import Dialog, Extension, SharedKey, Verdict, extended
from holdfast.store.owners import row_of_revision, run_row
from holdfast.store.postgres_connect import Connection
from holdfast.store.postgres_link import Link, Transaction, in_transaction
from holdfast.store.postgres_listen import Listener
from holdfast.store.postgres_rows import Array, statements
from holdfast.store.postgres_url import Address
from holdfast.store.protocol import (
    Batch,
    Checkpoint,
    Code,
    Committed,
    Finish,
    News,
    RunRow,
    Taken,
    end_checksum,
    is_text,
)
from holdfast.store.reading import Reading, Rows, all_rows, signal_rows
from holdfast.store.settling import in_halves, one_epoch_each, run_nos, settled
from holdfast.store.sql_blobs import SQLBlobs

T = TypeVar("T")

PART_MAX_BYTES = 64 * 1024 * 1024  # a statement takes no array above a gigabyte, and neither side should hold many
TELL_PATIENCE_S = 1.0  # steps wait behind news


class PostgresStore(Reading, SQLBlobs):
    durable = True

    def __init__(self, address: Address, *, clock: Callable[[], int] | None = None) -> None:
        self.url = address.url
        self._address = address
        self._clock = clock
        known = statements(address.schema, clock is not None)
        # One for the journal's thread and one for all others: steps wait neither until something long is read, nor for
        # a lock that somebody else's claim or signal has to wait for.
        self._steps = Link(address, known, clock)
        self._rest = Link(address, known, clock)
        # A schema's name may be longer and odder than a channel's.
        self._channel = "holdfast_" + hashlib.sha256(address.schema.encode()).hexdigest()[:16]
        self._listener = Listener(address, self._channel, self._notify)
        self._refusal: StoreError | None = None
        forking.watch(self)

    def now_ms(self) -> int:
        return self._clock() if self._clock else int(self._ask("now", {})[0][0])

    # -- batches -------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Committed:
        if self._refusal is not None:
            raise self._refusal
        if not (batch.creates or batch.appends or batch.finishes):
            return Committed()

        def write(part: Batch) -> Committed:
            return self._steps.run(
                # Of what was refused as a whole, runs may have been created all the same.
                lambda db: self._commit(db, part) if part is batch else self._settle(db, part, sent_before=True),
                again=lambda db: self._settle(db, part, sent_before=True),
            )

        return in_halves(batch, write)

    def _commit(self, db: Connection, batch: Batch) -> Committed:
        created: dict[str, RunRow] = {}
        alone = not (batch.revisions or _parents(batch))
        if alone and _size_bytes(batch.appends) <= PART_MAX_BYTES and one_epoch_each([*batch.appends, *batch.finishes]):
            try:
                if self._at_once(self._steps.transaction(db), batch, created):
                    return Committed(created=created)
            except psycopg.errors.UniqueViolation:
                pass  # and nothing of it was written
        # What was created is so for good; of the rest it does no harm to send it again.
        left = replace(batch, creates=[row for row in batch.creates if row.id not in created])
        committed = self._settle(db, left)
        committed.created |= created
        return committed

    def _at_once(self, t: Transaction, batch: Batch, created: dict[str, RunRow]) -> bool:
        """The batch as nearly every batch goes, in one statement. Whether the fence had nothing to say in it."""
        if len(batch.appends) == 1 and not (batch.creates or batch.finishes):
            return t.bulk("append", [astuple(batch.appends[0])]) == 1
        new = _new_rows(batch.creates)
        creates = [astuple(row)[1:] for row in new.values()]
        told = t.batch(
            {"create": creates, "append_many": _rows(batch.appends), "finish": _rows_of_ends(batch.finishes)},
            {"list": Array("int8", run_nos(batch)), "channel": self._channel},
        )
        counts = {"a": 0, "f": 0}
        for what, number, *more in told:
            if what == "c":
                id, lease_until_ms, created_ms, due_ms = more
                created[id] = _as_created(new[id], number, lease_until_ms, created_ms, due_ms)
            elif what != "n":
                counts[what] = number
        return counts == {"a": len(batch.appends), "f": len(batch.finishes)}

    def _settle(self, db: Connection, batch: Batch, *, sent_before: bool = False) -> Committed:
        return in_transaction(db, lambda: self._settled(self._steps.transaction(db), batch, sent_before))

    def _settled(self, t: Transaction, batch: Batch, sent_before: bool) -> Committed:
        created: dict[str, RunRow] = {}
        locked = t.ask("lock_runs", {"list": Array("int8", sorted(_parents(batch).union(run_nos(batch))))})
        runs = {row.no: row for row in map(run_row, locked)}
        if batch.creates:
            self._at_once(t, Batch(creates=batch.creates), created)
            if sent_before:
                _recognise(t, batch.creates, created)
            owners.cancel_orphans(t, 0, created)
        places = {
            "run_nos": Array("int8", [r.run_no for r in batch.appends]),
            "seqs": Array("int8", [r.seq for r in batch.appends]),
        }
        standing = {(run_no, seq): checksum for run_no, seq, checksum in t.ask("standing", places)}
        left = settled(batch, runs, standing)
        t.bulk("revise", [row_of_revision(each) for each in left.revisions])
        for rest in _in_parts(left.appends, left.finishes):
            if not self._at_once(t, rest, {}):
                raise StoreError(f"{self.url}: rows that were locked changed all the same.")
        woken = sorted(finish.parent_no for finish in left.finishes if finish.parent_no is not None)
        for parent_no in woken:
            owners.wake(t, 0, parent_no)
        if woken:
            t.ask("notify", {"channel": self._channel})
        return Committed(created=created, fenced=left.fenced)

    def fork(self, run_no: int, at: int, new: RunRow) -> RunRow | None:
        def copied(t: Transaction) -> RunRow | None:
            created: dict[str, RunRow] = {}
            self._at_once(t, Batch(creates=[new]), created)
            row = created.get(new.id)
            if row is not None:
                copy_rows(t, run_no, at, row.no)
            return row

        def stands(t: Transaction, row: RunRow | None) -> bool:
            return row is not None and bool(t.ask("run_of_no", {"no": row.no}))

        return self._transact(copied, stands)

    # -- dialogs -------------------------------------------------------------------------------------------

    def open_dialog(self, new: Dialog, shared: Sequence[SharedKey]) -> int | None:
        def stands(t: Transaction, no: int | None) -> bool:
            return no is not None and bool(t.ask("dialog_of_no", {"no": no}))

        return self._transact(lambda t: dialog_writing.open_dialog(t, new, shared), stands)

    def extend(self, given: Sequence[Extension]) -> list[Verdict]:
        if self._refusal is not None:
            raise self._refusal

        def write(part: Sequence[Extension]) -> set[int]:
            return self._steps.run(lambda db: postgres_dialogs.extend(self._steps.transaction(db), part))

        return extended(given, write)

    def delete_dialog(self, app: str, user_id: str, id: str) -> bool:
        return self._transact(lambda t: dialog_writing.delete_dialog(t, app, user_id, id))

    # -- owners --------------------------------------------------------------------------------------------

    def claim(self, run_no: int, epoch: int, *, owner: str, ttl_ms: int, lost: str | None) -> RunRow | None:
        def take(t: Transaction) -> RunRow | None:
            t.ask("lock_runs", {"list": Array("int8", [run_no])})
            return owners.claim(t, 0, run_no, epoch, owner=owner, ttl_ms=ttl_ms, lost=lost)

        return self._transact(take, stands=lambda t, row: row is not None and _holds(t, [row]))

    def claim_due(
        self,
        owner: str,
        *,
        ttl_ms: int,
        queue: str,
        workflows: Mapping[str, Code | None],
        dead: Collection[str],
        limit: int,
        at_once: int | None,
    ) -> list[Taken]:
        known, gone = Array("text", owners.accepted(workflows)), Array("text", sorted(dead))

        def take(t: Transaction) -> list[Taken]:
            most = limit
            if at_once is not None:
                # Who counts, counts alone, or two would fill the last place.
                t.ask("lock_queue", {"number": postgres_schema.number_of(self._address.schema, queue)})
                ((living,),) = t.ask("living", {"queue": queue, "dead": gone, "owner": owner})
                most = min(limit, at_once - living)
            if most <= 0 or not workflows:
                return []
            given = {"queue": queue, "workflows": known, "dead": gone, "limit": most, "owner": owner, "ttl_ms": ttl_ms}
            return [_as_taken(row, owner) for row in t.ask("claim_due", given)]

        return self._transact(take, stands=lambda t, taken: _holds(t, [each.row for each in taken]))

    def renew(
        self,
        owner: str,
        *,
        ttl_ms: int,
        doing: Mapping[int, bytes] = {},
        waiting: Mapping[int, bytes | None] = {},
    ) -> set[int]:
        def prolong(t: Transaction) -> set[int]:
            # A process that was running while the tables were changed is told by its heartbeat.
            ((number,),) = t.ask("schema_number", {})
            if number > self._steps.schema_number:
                self._refusal = postgres_schema.newer(self._address, number, self._steps.schema_number)
                raise self._refusal
            return owners.renew(t, 0, owner, ttl_ms=ttl_ms, doing=doing, waiting=waiting)

        return self._steps.transact(prolong)

    def cancel(self, id: str) -> RunRow | None:
        def end(t: Transaction) -> RunRow | None:
            t.ask("lock_family", {"id": id})
            row = owners.cancel(t, 0, id)
            if row is not None:
                t.ask("notify", {"channel": self._channel})
            return row

        return self._transact(end) if is_text(id) else None

    def send(self, id: str, name: str, value: bytes, *, key: str | None) -> RunRow | None:
        def put(t: Transaction) -> RunRow | None:
            t.ask("lock_id", {"id": id})
            row = owners.send(t, 0, id, name, value, key)
            if row is not None:
                t.ask("notify", {"channel": self._channel})
            return row

        def stands(t: Transaction, row: RunRow | None) -> bool:
            """Whether the signal that this wake numbered is ours."""
            if row is None or not t.ask("lock_id", {"id": id}):
                return False
            sent = signal_rows(t.ask("signals", {"run_no": row.no, "after": row.wakes - 1}))
            return any((s.n, s.name, s.value, s.key) == (row.wakes, name, value, key) for s in sent)

        return self._transact(put, stands=stands)

    def _transact(
        self, work: Callable[[Transaction], T], stands: Callable[[Transaction, T], bool] = lambda t, result: False
    ) -> T:
        if self._refusal is not None:
            raise self._refusal
        return self._rest.transact(work, stands)

    def _transact_now(self, work: Callable[[owners.Transaction, int], T]) -> T:
        return self._transact(lambda t: work(t, 0))  # the time is the server's

    def _ask(self, name: str, given: Mapping[str, Any], taken: Callable[[Rows], list[Any]] = all_rows) -> list[Any]:
        return self._rest.ask(name, given, taken)

    def _ask_of(self, name: str, values: Sequence[int] | Sequence[str]) -> list[Any]:
        if not values:
            return []
        return self._ask(name, {"list": Array("text" if isinstance(values[0], str) else "int8", values)})

    def listen(self, seconds: float) -> None:
        self._listener.listen(seconds)

    def _notify(self) -> None:
        self._ask("notify", {"channel": self._channel})

    # -- news ----------------------------------------------------------------------------------------------

    def tell(self, news: list[News]) -> None:
        def write(db: Connection) -> None:
            t = self._steps.transaction(db)
            t.bulk("tell", [(row.run_no, row.epoch, row.n, row.count, row.data) for row in news])
            for row in news:
                if row.forget is not None:
                    t.ask("forget_news", {"run_no": row.run_no, "epoch": row.epoch, "n": row.forget})

        self._steps.run(write, patience_s=TELL_PATIENCE_S)

    def clear_news(self, *, idle_ms: int) -> None:
        def clear(db: Connection) -> None:
            self._steps.transaction(db).ask("clear_news", {"idle_ms": idle_ms})

        self._steps.run(clear, patience_s=TELL_PATIENCE_S)

    def stamp(self) -> object:
        return self._ask("stamp", {})[0][0]

    # -- life ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        self._listener.close()
        self._steps.close()
        self._rest.close()

    def before_fork(self) -> None:
        """Nothing: a child that uses connections of its own does the parent's no harm."""

    def after_fork_in_parent(self) -> None: ...

    def after_fork_in_child(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._listener.forget()
        self._steps.forget()
        self._rest.forget()


def _parents(batch: Batch) -> set[int]:
    """The runs that a batch wakes, and those that must not have been cancelled."""
    found = [row.parent_no for row in batch.creates] + [finish.parent_no for finish in batch.finishes]
    return {no for no in found if no is not None}


def _new_rows(given: list[RunRow]) -> dict[str, RunRow]:
    """By id, the first of each; with their checksums, and still without number and times."""
    rows: dict[str, RunRow] = {}
    for row in given:
        checksums = {
            "checksum": row.compute_checksum(),
            "end_checksum": end_checksum(row.status, row.result, row.error),
        }
        rows.setdefault(row.id, replace(row, **checksums))
    return rows


def _as_created(row: RunRow, no: int, lease_until_ms: int, created_ms: int, due_ms: int) -> RunRow:
    times = {"lease_until_ms": lease_until_ms, "due_ms": due_ms}
    return replace(row, no=no, created_ms=created_ms, updated_ms=created_ms, heard_ms=created_ms, **times)


def _as_taken(found: Sequence[Any], owner: str) -> Taken:
    """From what ``claim_due`` returns of a run."""
    *fields, lost, epoch, deaths, lease_until_ms, updated_ms = found
    before = run_row(fields)
    changed = {"epoch": epoch, "deaths": deaths, "lease_until_ms": lease_until_ms, "updated_ms": updated_ms}
    changed["heard_ms"] = updated_ms
    unchanging = {"owner": owner, "status": "running", "doing": None, "waiting": None, "due_ms": 0}
    return Taken(replace(before, **changed, **unchanging), before, lost)


def _recognise(t: Transaction, given: list[RunRow], created: dict[str, RunRow]) -> None:
    """Add the runs that a batch created when it was sent before. Nobody else draws the same seed."""
    asked = _new_rows([row for row in given if row.id not in created])
    for no, id, seed, *times in t.ask("created", {"list": Array("text", list(asked))}):
        if seed == asked[id].seed:
            created[id] = _as_created(asked[id], no, *times)


def _size_bytes(appends: list[Checkpoint]) -> int:
    return sum(len(row.result or b"") + len(row.delta or b"") for row in appends) if len(appends) > 1 else 0


def _in_parts(appends: list[Checkpoint], finishes: list[Finish]) -> Iterator[Batch]:
    """Batches that are small enough for a statement each, the ends behind all rows."""
    part, size_bytes = Batch(), 0
    for row in appends:
        size_bytes += _size_bytes([row, row]) // 2
        if part.appends and size_bytes > PART_MAX_BYTES:
            yield part
            part, size_bytes = Batch(), _size_bytes([row, row]) // 2
        part.appends.append(row)
    part.finishes = finishes
    if part.appends or finishes:
        yield part


def _rows(appends: list[Checkpoint]) -> list[tuple[Any, ...]]:
    return [astuple(row) for row in appends]


def _rows_of_ends(finishes: list[Finish]) -> list[tuple[Any, ...]]:
    return [
        (f.run_no, f.epoch, f.status, f.result, f.error, f.compute_checksum(), f.due_ms, f.waiting, f.wakes)
        for f in finishes
    ]


def _holds(t: Transaction, rows: list[RunRow]) -> bool:
    """Whether these claims stand. Locked, since the transaction that made them may not have ended yet."""
    locked = t.ask("lock_runs", {"list": Array("int8", sorted(row.no for row in rows))})
    found = {(row.no, row.owner, row.epoch) for row in map(run_row, locked)}
    return bool(rows) and all((row.no, row.owner, row.epoch) in found for row in rows)
