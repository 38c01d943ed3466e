"""The store that needs nothing: one SQLite file.

Appends are one multi-row statement that commits itself. It carries the fence, and it fails as a whole when
a row is there already; only when it did not write exactly what was asked for is the batch settled run by
run, in a transaction. To settle a batch is to send it again, so what was written already does no harm.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar

import apsw
from msgspec.structs import astuple, replace

from holdfast import clock as clocks
from holdfast.errors import StoreError
from holdfast.store import forking, owners, sqlite_file
from holdfast.store.owners import run_row
from holdfast.store.protocol import (
    Batch,
    Checkpoint,
    Claim,
    Committed,
    Finish,
    News,
    RunRow,
    Signal,
    Spent,
    Taken,
    end_checksum,
    is_text,
)
from holdfast.store.settling import one_epoch_each, run_nos, settled
from holdfast.store.sqlite_due import due
from holdfast.store.sqlite_file import abandon, explain, in_transaction, open_to_read, open_to_write
from holdfast.store.sqlite_log import doubt_log, settle_log
from holdfast.store.sqlite_rows import SIZES, TEXTS, Transaction, bulk, items, listing, pieces

T = TypeVar("T")

_NEWEST = 2**63 - 1
LISTEN_S = 0.02  # how often it is looked whether another process has written
TELL_BUSY_MS = 1000  # news wait no longer for another process's write, since steps wait behind them

# Connections inherited through a fork. They are the parent's: to close one could end its log under its feet.
_parked: list[object] = []


class SQLiteStore:
    """``vfs`` names a registered SQLite file system, for tests that make the disk fail."""

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        url: str | None = None,
        clock: Callable[[], int] | None = None,
        vfs: str | None = None,
    ) -> None:
        name = os.fspath(path)
        self.url = url or f"sqlite:///{name}"
        # Absolute from here on: it is opened, and opened again, wherever the program has gone since.
        self.path = str(Path.cwd() / name)
        self._clock = clock
        self._vfs = vfs
        self._verified = False
        self._refusal: StoreError | None = None
        self._schema_number = 0
        self._opened = 0
        self._pid = 0
        self._start()
        forking.watch(self)

    def _start(self) -> None:
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None
        self._teller: apsw.Connection | None = None
        self._failed: list[apsw.Connection] = []
        # Reentrant, so that a signal handler that forks in the middle of a call finds no dead lock.
        self._write_lock = threading.RLock()
        self._read_lock = threading.RLock()

    def now_ms(self) -> int:
        return self._clock() if self._clock else clocks.now_ms()

    # -- writing -------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> Committed:
        return self._write(lambda db: self._commit(db, batch))

    def _commit(self, db: apsw.Connection, batch: Batch) -> Committed:
        rows = batch.appends
        if not (rows or batch.creates or batch.finishes):
            return Committed()
        try:
            if batch.creates or batch.finishes or len(rows) > SIZES[-1]:
                return in_transaction(db, lambda: self._all_at_once(db, batch))
            if one_epoch_each(rows) and _append(db, rows) == len(rows):
                return Committed()
        except (apsw.ConstraintError, _Unsettled):
            pass
        return in_transaction(db, lambda: self._settle(db, batch))

    def _all_at_once(self, db: apsw.Connection, batch: Batch) -> Committed:
        """The batch as nearly every batch goes; rolled back, to be settled, if the fence has a say in it."""
        created = self._create(db, batch.creates)
        if not one_epoch_each(batch.appends) or _append(db, batch.appends) != len(batch.appends):
            raise _Unsettled
        if self._finish(db, batch.finishes) != len(batch.finishes):
            raise _Unsettled
        return Committed(created=created)

    def _settle(self, db: apsw.Connection, batch: Batch) -> Committed:
        created = self._create(db, batch.creates)
        runs: dict[int, RunRow] = {}
        for no in run_nos(batch):
            runs.update((no, run_row(found)) for found in db.execute(TEXTS["run_of_no"], {"no": no}))
        standing: dict[tuple[int, int], int] = {}
        for row in batch.appends:
            place = (row.run_no, row.seq)
            for (checksum,) in db.execute(TEXTS["standing"], {"run_no": row.run_no, "seq": row.seq}):
                standing[place] = checksum
        left = settled(batch, runs, standing)
        _append(db, left.appends)
        self._finish(db, left.finishes)
        return Committed(created=created, fenced=left.fenced)

    def _create(self, db: apsw.Connection, given: list[RunRow]) -> dict[str, RunRow]:
        if not given:
            return {}
        now = self.now_ms()
        rows: dict[str, RunRow] = {}
        for row in given:
            until = 0 if row.owner is None else now + row.lease_until_ms
            due = now + row.due_ms if row.due_ms else 0
            new = replace(row, lease_until_ms=until, due_ms=due, created_ms=now, updated_ms=now)
            new.checksum, new.end_checksum = new.compute_checksum(), end_checksum(new.result, new.error)
            rows.setdefault(row.id, new)
        created: dict[str, RunRow] = {}
        for no, id in bulk(db, "create", [astuple(row)[1:] for row in rows.values()])[1]:
            created[id] = rows[id]
            created[id].no = no
        owners.cancel_orphans(Transaction(db), now, created)
        owned = [(r.no, r.epoch, r.owner, now) for r in created.values() if r.owner is not None]
        bulk(db, "record_claims", owned)
        return created

    def _finish(self, db: apsw.Connection, finishes: list[Finish]) -> int:
        now = self.now_ms()
        rows = []
        for f in finishes:
            end = (f.status, f.result, f.error, end_checksum(f.result, f.error), now, f.due_ms, f.waiting, f.wakes)
            rows.append((f.run_no, f.epoch, *end))
        changed = bulk(db, "finish", rows)[0]
        for finish in finishes:
            if finish.parent_no is not None:
                owners.wake(Transaction(db), finish.parent_no)
        return changed

    # -- owners --------------------------------------------------------------------------------------------

    def claim(self, run_no: int, epoch: int, *, owner: str, ttl_ms: int, lost: str | None) -> RunRow | None:
        return self._transact(
            lambda t: owners.claim(t, self.now_ms(), run_no, epoch, owner=owner, ttl_ms=ttl_ms, lost=lost)
        )

    def claim_due(
        self,
        owner: str,
        *,
        ttl_ms: int,
        queue: str,
        workflows: Collection[str],
        dead: Collection[str],
        limit: int,
        at_once: int | None,
    ) -> list[Taken]:
        def found(db: apsw.Connection) -> dict[int, str | None]:
            now, names = self.now_ms(), sorted(workflows)
            return due(db, now, owner=owner, queue=queue, workflows=names, dead=dead, limit=limit, at_once=at_once)

        def take(db: apsw.Connection) -> list[Taken]:
            t = Transaction(db)
            runs = [(owners.run_of_no(t, no), lost) for no, lost in found(db).items()]
            return owners.claim_all(t, self.now_ms(), runs, owner=owner, ttl_ms=ttl_ms)

        if not workflows or not self._looked(found):  # whoever only looks keeps no other from writing
            return []
        return self._write(lambda db: in_transaction(db, lambda: take(db)))

    def owners(self) -> list[str]:
        return [owner for (owner,) in self._ask(TEXTS["owners"], ())]

    def renew(
        self,
        owner: str,
        *,
        ttl_ms: int,
        doing: Mapping[int, bytes] = {},
        waiting: Mapping[int, bytes | None] = {},
    ) -> set[int]:
        def prolong(db: apsw.Connection) -> set[int]:
            # A process that was running while the tables were changed is told by its heartbeat.
            if (found := sqlite_file.schema_number(db)) > self._schema_number:
                self._refusal = sqlite_file.newer(self.path, found)
                raise self._refusal
            now = self.now_ms()
            return owners.renew(Transaction(db), now, owner, ttl_ms=ttl_ms, doing=doing, waiting=waiting)

        return self._write(lambda db: in_transaction(db, lambda: prolong(db)))

    def cancel(self, id: str) -> RunRow | None:
        return self._transact(lambda t: owners.cancel(t, self.now_ms(), id)) if is_text(id) else None

    def send(self, id: str, name: str, value: bytes, *, key: str | None) -> RunRow | None:
        return self._transact(lambda t: owners.send(t, self.now_ms(), id, name, value, key))

    def signals(self, run_no: int, *, after: int = 0) -> list[Signal]:
        found = self._ask(TEXTS["signals"], {"run_no": run_no, "after": after})
        return [Signal(**dict(zip(Signal.__struct_fields__, row, strict=True))) for row in found]

    def wakes(self, run_nos: Sequence[int]) -> dict[int, int]:
        return dict(self._ask_of("wakes", run_nos))

    def statuses(self, ids: Sequence[str]) -> dict[str, str]:
        return dict(self._ask_of("statuses", [id for id in ids if is_text(id)]))

    def listen(self, seconds: float) -> None:
        until, before = time.monotonic() + seconds, self.stamp()
        while (left := until - time.monotonic()) > 0 and self.stamp() == before:
            time.sleep(min(LISTEN_S, left))

    # -- reading -------------------------------------------------------------------------------------------

    def get(self, id: str) -> RunRow | None:
        found = self._ask(TEXTS["run_of_id"], {"id": id}) if is_text(id) else []
        return run_row(found[0]) if found else None

    def runs(self, *, status: str | None, workflow: str | None, limit: int, after: int | None) -> list[RunRow]:
        given = {
            "workflow": workflow,
            "limit": max(limit, 0),
            "after": _NEWEST if after is None else after,
        }
        if status is None:
            return [run_row(row) for row in self._ask(TEXTS["runs"], given)]
        return [run_row(row) for row in self._ask(TEXTS["runs_of_status"], {**given, "status": status})]

    def spent(self, run_nos: Sequence[int]) -> dict[int, Spent]:
        sums = {no: Spent() for no in run_nos}
        for no, tokens, usd, steps, saves, last_ms in self._ask_of("spent", list(sums)):
            sums[no] = Spent(tokens=tokens, usd=usd, steps=steps, saves=saves, last_ms=int(last_ms))
        return sums

    def _ask_of(self, name: str, values: Sequence[Any]) -> list[Any]:
        some = pieces(list(values), 1000)
        return [row for piece in some for row in self._ask(listing(name, len(piece)), items(piece))]

    def load(self, run_no: int, *, after: int = 0) -> list[Checkpoint]:
        # The columns come in the order of its fields, as _append sends them. Each row is taken as it comes: thousands
        # of tuples kept at once would set off the garbage collector again and again.
        given = {"run_no": run_no, "after": after}
        return self._ask(TEXTS["load"], given, lambda rows: list(starmap(Checkpoint, rows)))

    def claims(self, run_no: int) -> list[Claim]:
        found = self._ask(TEXTS["claims"], {"run_no": run_no})
        return [Claim(**dict(zip(Claim.__struct_fields__, row, strict=True))) for row in found]

    # -- news ----------------------------------------------------------------------------------------------

    def tell(self, news: list[News]) -> None:
        def write(db: apsw.Connection) -> None:
            bulk(db, "tell", [(row.run_no, row.epoch, row.n, row.count, row.data) for row in news])
            for row in news:
                if row.forget is not None:
                    given = {"run_no": row.run_no, "epoch": row.epoch, "n": row.forget}
                    db.execute(TEXTS["forget_news"], given)

        self._tell(write)

    def clear_news(self, *, idle_ms: int) -> None:
        self._tell(lambda db: db.execute(TEXTS["clear_news"], {"now_ms": self.now_ms(), "idle_ms": idle_ms}))

    def news(self, run_no: int, *, epoch: int = 0, n: int = 0) -> list[News]:
        found = self._ask(TEXTS["news"], {"run_no": run_no, "epoch": epoch, "n": n})
        return [News(run_no=r[0], epoch=r[1], n=r[2], count=r[3], data=r[4]) for r in found]

    def stamp(self) -> object:
        with self._read_lock:
            found = self._ask("PRAGMA data_version", ())
            return self._opened, found  # versions of two connections cannot be compared

    def _tell(self, work: Callable[[apsw.Connection], Any]) -> None:
        with self._write_lock:
            try:
                if self._teller is None:
                    self._teller = self._open_teller()
                work(self._teller)
            except apsw.Error as error:
                told = self._explained(error)
                failed, self._teller = self._teller, None
                if failed is not None:
                    abandon(failed)
                if isinstance(error, (apsw.BusyError, apsw.LockedError)):
                    raise StoreError(f"{self.path} was locked by another process for {TELL_BUSY_MS} ms") from error
                raise told from error

    def _open_teller(self) -> apsw.Connection:
        """A connection that does not wait for the disk: news may be lost with the machine's power."""
        self._note_process()
        db = open_to_write(self.path, verify=not self._verified, vfs=self._vfs)
        self._verified = True
        db.execute("PRAGMA synchronous = NORMAL")
        db.wal_autocheckpoint(0)  # copying the log into the file waits for the disk; the writer does it
        db.set_busy_timeout(TELL_BUSY_MS)
        return db

    # -- connections ---------------------------------------------------------------------------------------

    def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        with self._write_lock:
            if self._refusal is not None:
                raise self._refusal
            try:
                return work(self._writer or self._open_writer())
            except apsw.Error as error:
                told = self._explained(error)
                self._give_up_writer()
                raise told from error
            except (TypeError, ValueError, OverflowError) as error:
                raise StoreError(f"{self.path}: a row holds what SQLite cannot ({error}).") from error

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        return self._write(lambda db: in_transaction(db, lambda: work(Transaction(db))))

    def _open_writer(self) -> apsw.Connection:
        self._note_process()
        self._writer = db = open_to_write(self.path, verify=not self._verified, vfs=self._vfs)
        self._verified = True
        self._schema_number = sqlite_file.schema_number(db)
        while self._failed:
            abandon(self._failed.pop())
        return db

    def _give_up_writer(self) -> None:
        """Nothing is ever tried again on a handle that failed.

        It is closed only when its successor is open. Were it the last one, the next to open the file would
        read the log anew and could take a commit for good whose fsync failed, and never write those pages
        again; while a connection is open, the next commit writes over them.
        """
        db, self._writer = self._writer, None
        if db is None:
            return
        if db.in_transaction:
            abandon(db)
        else:
            self._failed.append(db)

    def _ask(self, text: str, given: Any, taken: Callable[[Iterable[Any]], list[Any]] = list) -> list[Any]:
        return self._looked(lambda db: taken(db.execute(text, given))) or []

    def _looked(self, look: Callable[[apsw.Connection], T]) -> T | None:
        """None as long as there is no file."""
        with self._read_lock:
            try:
                db = self._reader or self._open_reader()
                found = None if db is None else look(db)
                if db is not None and db.readonly("main"):
                    db.close()
                    self._reader = None
                return found
            except (apsw.Error, ValueError) as error:
                told = self._explained(error)
                failed, self._reader = self._reader, None
                if failed is not None:
                    abandon(failed)
                raise told from error

    def _explained(self, error: Exception) -> StoreError:
        if isinstance(error, (apsw.IOError, apsw.FullError)):
            doubt_log(self.path)  # before the last connection that knows better is closed
        return explain(self.path, error)

    def _open_reader(self) -> apsw.Connection | None:
        """None as long as there is nothing to read: whoever only looks makes no file."""
        self._note_process()
        self._reader = open_to_read(self.path, verify=not self._verified, vfs=self._vfs)
        if self._reader is not None:
            self._verified = True
            self._opened += 1
        return self._reader

    def _note_process(self) -> None:
        if self._pid < 0:
            raise StoreError(
                f"{self.path} was open while this process was forked past Python's os.fork. SQLite believes "
                "here in locks that only the parent holds: close the store before forking, or start the "
                "process anew (multiprocessing: spawn)."
            )
        self._pid = os.getpid()
        if not (self._writer or self._reader or self._teller or self._failed):
            settle_log(self.path, self._vfs)

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._close()

    def _close(self) -> None:
        for db in (self._reader, self._teller, self._writer):
            if db is not None:
                db.close()
        while self._failed:
            abandon(self._failed.pop())
        self._reader = self._teller = self._writer = None

    # SQLite keeps one list of open files and locks for the whole process. A child inherits the list, but not the
    # locks: a connection it opened beside inherited ones would hold none, the parent would take itself for the
    # last, and delete the log with the child's commits in it (tests/store/test_sqlite_processes.py). So no
    # connection is open in the moment of a fork; both sides open theirs again when they need one.
    def before_fork(self) -> None:
        self._write_lock.acquire()
        self._read_lock.acquire()
        self._close()

    def after_fork_in_parent(self) -> None:
        self._read_lock.release()
        self._write_lock.release()

    def after_fork_in_child(self) -> None:
        self._start()

    def forget(self) -> None:
        inherited = [db for db in (self._reader, self._teller, self._writer, *self._failed) if db is not None]
        _parked.extend(inherited)
        if inherited and self._pid != os.getpid():
            self._pid = -1
        self._start()


class _Unsettled(Exception):
    """Rolls a batch back that did not go through as a whole."""


def _append(db: apsw.Connection, rows: list[Checkpoint]) -> int:
    return bulk(db, "append", [astuple(row) for row in rows])[0]
