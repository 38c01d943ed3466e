"""The store that needs nothing: one SQLite file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from holdfast import clock as clocks
from holdfast.errors import StoreError
from holdfast.store import dialog_writing, forking, owners, sqlite_batch, sqlite_dialogs, sqlite_file
from holdfast.store.copying import copy_rows
from holdfast.store.dialogs import Dialog, Extension, SharedKey, Verdict, extended
from holdfast.store.protocol import Batch, Code, Committed, News, RunRow, Taken, is_text
from holdfast.store.reading import Reading, Rows, all_rows
from holdfast.store.refusing import Refused
from holdfast.store.settling import in_halves
from holdfast.store.sql_blobs import SQLBlobs
from holdfast.store.sqlite_due import due
from holdfast.store.sqlite_file import abandon, explain, in_transaction, open_to_read, open_to_write
from holdfast.store.sqlite_log import doubt_log, settle_log
from holdfast.store.sqlite_rows import TEXTS, Transaction, asked, bulk, items, listing, pieces

T = TypeVar("T")

LISTEN_S = 0.02  # how often it is looked whether another process has written
TELL_BUSY_MS = 1000  # news wait no longer for another process's write, since steps wait behind them

# Connections inherited through a fork. They are the parent's: to close one could end its log under its feet.
_parked: list[object] = []


class SQLiteStore(Reading, SQLBlobs):
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

    def commit(self, batch: Batch) -> Committed:
        return in_halves(batch, lambda part: self._write(lambda db: sqlite_batch.commit(db, part, self.now_ms())))

    def fork(self, run_no: int, at: int, new: RunRow) -> RunRow | None:
        def copied(db: apsw.Connection) -> RunRow | None:
            row = sqlite_batch.create(db, [new], self.now_ms()).get(new.id)
            if row is not None:
                copy_rows(Transaction(db), run_no, at, row.no)
            return row

        return self._write(lambda db: in_transaction(db, lambda: copied(db)))

    # -- dialogs -------------------------------------------------------------------------------------------

    def open_dialog(self, new: Dialog, shared: Sequence[SharedKey]) -> int | None:
        return self._transact(lambda t: dialog_writing.open_dialog(t, new, shared))

    def extend(self, given: Sequence[Extension]) -> list[Verdict]:
        def write(part: Sequence[Extension]) -> set[int]:
            return self._write(lambda db: in_transaction(db, lambda: sqlite_dialogs.extend(db, part)))

        return extended(given, write)

    def delete_dialog(self, app: str, user_id: str, id: str) -> bool:
        return self._transact(lambda t: dialog_writing.delete_dialog(t, app, user_id, id))

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
        workflows: Mapping[str, Code | None],
        dead: Collection[str],
        limit: int,
        at_once: int | None,
    ) -> list[Taken]:
        def found(db: apsw.Connection) -> dict[int, str | None]:
            now, known = self.now_ms(), owners.accepted(workflows)
            return due(db, now, owner=owner, queue=queue, workflows=known, dead=dead, limit=limit, at_once=at_once)

        def take(db: apsw.Connection) -> list[Taken]:
            t = Transaction(db)
            runs = [(owners.run_of_no(t, no), lost) for no, lost in found(db).items()]
            return owners.claim_all(t, self.now_ms(), runs, owner=owner, ttl_ms=ttl_ms)

        if not workflows or not self._looked(found):  # whoever only looks keeps no other from writing
            return []
        return self._write(lambda db: in_transaction(db, lambda: take(db)))

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

    def listen(self, seconds: float) -> None:
        until, before = time.monotonic() + seconds, self.stamp()
        while (left := until - time.monotonic()) > 0 and self.stamp() == before:
            time.sleep(min(LISTEN_S, left))

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

    def stamp(self) -> object:
        with self._read_lock:
            found = self._looked(lambda db: db.execute("PRAGMA data_version").fetchall())
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
            except apsw.TooBigError as error:
                raise Refused(str(explain(self.path, error))) from error  # and the handle is as good as before
            except apsw.Error as error:
                told = self._explained(error)
                self._give_up_writer()
                raise told from error
            except (TypeError, ValueError, OverflowError) as error:
                raise Refused(f"{self.path}: a row holds what SQLite cannot ({error}).") from error

    def _transact(self, work: Callable[[Transaction], T]) -> T:
        return self._write(lambda db: in_transaction(db, lambda: work(Transaction(db))))

    def _transact_now(self, work: Callable[[owners.Transaction, int], T]) -> T:
        return self._transact(lambda t: work(t, self.now_ms()))

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

    def _ask(self, name: str, given: Mapping[str, Any], taken: Callable[[Rows], list[Any]] = all_rows) -> list[Any]:
        return self._looked(lambda db: asked(db, TEXTS[name], given, taken)) or []

    def _ask_of(self, name: str, values: Sequence[int] | Sequence[str]) -> list[Any]:
        def look(db: apsw.Connection) -> list[Any]:
            some = pieces(list[Any](values), 1000)
            return [row for part in some for row in db.execute(listing(name, len(part)), items(part))]

        return self._looked(look) or []

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
