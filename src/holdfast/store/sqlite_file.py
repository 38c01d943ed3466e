"""One SQLite file: opened, told apart from files that are not ours, brought to the newest schema."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import apsw

from holdfast.errors import StoreError
from holdfast.store.queries import Migration, read_migrations

T = TypeVar("T")

BUSY_MS = 30_000
# "HFST" in the file's header: what tells our files from other applications' databases.
APPLICATION_ID = 0x48465354
# As many texts as there are sizes of batches (see ``sqlite_rows.SIZES``) of what is written most, checkpoints and
# events with their keys, and room for everything else.
_STATEMENTS = 240

_MIGRATION_TABLE = """
CREATE TABLE IF NOT EXISTS migration (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_ms INTEGER NOT NULL
)
"""


def open_to_write(path: str, *, verify: bool, vfs: str | None = None) -> apsw.Connection:
    """A connection to a file of the newest schema, made if need be. ``verify`` also compares what was once applied."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    db = apsw.Connection(path, flags, vfs, statementcachesize=_STATEMENTS)
    try:
        db.set_busy_timeout(BUSY_MS)
        # Promise 1 rests on it, so it is not left to the default of whoever compiled SQLite.
        db.execute("PRAGMA synchronous = FULL")
        ours, version, wal = _look(db)
        if verify or not (ours and wal and version):
            migrations = read_migrations("sqlite")
            if not (ours and version == len(migrations)):
                _prepare(db, path, migrations)
            elif not wal:
                _use_wal(db, path)
            _verify(db, path, migrations)
    except BaseException:
        db.close()
        raise
    return db


def open_to_read(path: str, *, verify: bool, vfs: str | None = None) -> apsw.Connection | None:
    """The same to look only: None where there is no file, or an empty one, which stays what it is."""
    place = Path(path)
    if place.parent.is_dir() and (not place.exists() or (place.is_file() and not place.stat().st_size)):
        return None
    try:
        return _checked(apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE, vfs), path, verify=verify, vfs=vfs)
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        if os.access(path, os.W_OK) and os.access(place.parent, os.W_OK):
            raise
        return _checked(_open_unchanging(path, vfs), path, verify=verify, vfs=vfs)


def missing(path: str) -> tuple[int, list[Migration], str]:
    """The number a file's schema has, the migrations it lacks, and those as one transaction. Changes nothing."""
    known = read_migrations("sqlite")
    applied = 0
    if Path(path).exists() and Path(path).stat().st_size:
        try:
            db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE)
            try:
                ours, applied, _ = _look(db)
                _refuse_others(db, path, known)
                if ours:
                    _verify(db, path, known)
            finally:
                db.close()
        except apsw.Error as error:
            raise explain(path, error) from error
    return applied, known[applied:], _script(known, applied) if known[applied:] else ""


def _script(known: list[Migration], applied: int) -> str:
    parts = ["BEGIN IMMEDIATE", _MIGRATION_TABLE.strip()]
    for each in known[applied:]:
        parts.append(each.sql.strip().rstrip(";"))
        values = f"({each.number}, '{each.name}', '{each.checksum}', unixepoch() * 1000)"
        parts.append(f"INSERT INTO migration VALUES {values}")
    parts += [f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {len(known)}", "COMMIT"]
    return ";\n".join(parts) + ";\n"


def _checked(db: apsw.Connection, path: str, *, verify: bool, vfs: str | None) -> apsw.Connection:
    try:
        db.set_busy_timeout(BUSY_MS)
        ours, version, _ = _look(db)
        migrations = read_migrations("sqlite") if verify else []
        if ours and version and (not verify or version == len(migrations)):
            if verify:
                _verify(db, path, migrations)
            return db
    except BaseException:
        db.close()
        raise
    db.close()
    return open_to_write(path, verify=True, vfs=vfs)  # which refuses what is not ours, and migrates what is old


def _open_unchanging(path: str, vfs: str | None) -> apsw.Connection:
    """A file beside which SQLite may put none of its own: an archived copy, a mount that is read-only.

    It is read without locks, so such a connection is for one question only: who may write the file could come along.
    What was committed last may still be in the log beside it, and that is not read in this way.
    """
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{path} has committed work in {log.name}, and reading that takes a folder one may write in: copy both "
            "files to one, and name the copy."
        )
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return apsw.Connection(f"file:{quote(path)}?immutable=1", flags, vfs)


def _look(db: apsw.Connection) -> tuple[bool, int, bool]:
    """Whether the file is ours, its schema's number, and whether it keeps a write-ahead log."""
    rows: list[Any] = db.execute("PRAGMA application_id; PRAGMA user_version; PRAGMA journal_mode").fetchall()
    return rows[0][0] == APPLICATION_ID, rows[1][0], rows[2][0] == "wal"


def _prepare(db: apsw.Connection, path: str, migrations: list[Migration]) -> None:
    """Apply the migrations this file has not seen, under the write lock, all or none of them."""
    if not _claim_schema(db, path, migrations):
        # A log can only be switched on outside of a transaction; meanwhile another process may be faster.
        _use_wal(db, path)
        if not _claim_schema(db, path, migrations):
            raise StoreError(f"{path} changed while it was opened: another program writes to it.")
    try:
        _, version, _ = _look(db)
        db.execute(_MIGRATION_TABLE)
        _verify(db, path, migrations)
        for migration in migrations[version:]:
            db.execute(migration.sql)
            db.execute(
                "INSERT INTO migration VALUES (?, ?, ?, ?)",
                (migration.number, migration.name, migration.checksum, time.time_ns() // 1_000_000),
            )
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _claim_schema(db: apsw.Connection, path: str, migrations: list[Migration]) -> bool:
    """Begin the transaction that migrates; False, and none begun, where there is no write-ahead log yet.

    Files that are another's or of a newer holdfast are refused here, before a byte of them is changed.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        _refuse_others(db, path, migrations)
        if _look(db)[2]:
            return True
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("ROLLBACK")
    return False


def _refuse_others(db: apsw.Connection, path: str, migrations: list[Migration]) -> None:
    ours, version, _ = _look(db)
    if ours and version > len(migrations):
        raise newer(path, version)
    ((objects,),) = db.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    ((application,),) = db.execute("PRAGMA application_id").fetchall()
    if not ours and (objects or version or application):
        raise StoreError(
            f"{path} is a SQLite database of another application. It was left as it is; "
            "name another file, holdfast makes it."
        )


def schema_number(db: apsw.Connection) -> int:
    return _look(db)[1]


def newer(path: str, found: int) -> StoreError:
    return StoreError(
        f"{path} was written by a newer holdfast (its schema is number {found}, this release knows "
        f"{len(read_migrations('sqlite'))}): upgrade holdfast. The file was left as it is."
    )


def _use_wal(db: apsw.Connection, path: str) -> None:
    # SQLite answers "busy" at once here, without waiting, when two processes create one file.
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            ((mode,),) = db.execute("PRAGMA journal_mode = WAL").fetchall()
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
            continue
        if mode == "wal":
            return
        raise StoreError(
            f"{path} lies where SQLite can keep no write-ahead log (a network file system?): put it on a local disk."
        )


def _verify(db: apsw.Connection, path: str, migrations: list[Migration]) -> None:
    applied = db.execute("SELECT number, checksum FROM migration ORDER BY number").fetchall()
    for (number, checksum), migration in zip(applied, migrations, strict=False):
        if (number, checksum) != (migration.number, migration.checksum):
            raise StoreError(
                f"{path}: its migration {number} is not the one this holdfast has ({migration.name} "
                "was edited after it had been applied). Reinstall holdfast; the file was left as it is."
            )


def explain(path: str, error: Exception) -> StoreError:
    """What went wrong with the file, and what to do, in terms of the file."""
    place, detail = Path(path), f"{type(error).__name__}: {error}"
    if isinstance(error, StoreError):
        return error
    if place.is_dir():
        return StoreError(f"{path} is a folder: name a file in it, such as {place / 'holdfast.db'}.")
    if not place.parent.is_dir():
        return StoreError(f"The folder {place.parent} does not exist: create it (mkdir -p {place.parent}).")
    return StoreError(f"{path} {_advice(path, error)} ({detail})")


def _advice(path: str, error: Exception) -> str:
    match error:
        case apsw.NotADBError():
            return "is not a SQLite database and was left as it is: name another file."
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return (
                "cannot be opened for writing: make the file and its folder writable for this user "
                f"(SQLite keeps {Path(path).name}-wal and -shm beside it)."
            )
        case apsw.FullError():
            return "has no room left: free some space and run again; what was committed is safe."
        case apsw.CorruptError() | UnicodeDecodeError():
            return (
                "is damaged: keep it together with its -wal file, restore a backup, or save what can be read "
                f"with `sqlite3 {path} .recover`."
            )
        case apsw.BusyError() | apsw.LockedError():
            return (
                f"was locked by another process for {BUSY_MS // 1000} s: find the program that holds a "
                "transaction open on it, end it, and run again."
            )
        case apsw.TooBigError():
            return "cannot hold a value of more than about a gigabyte: keep it in a file, and its path in the run."
        case apsw.IOError():
            return "could not be read or written: check the disk and run again; what was committed is safe."
        case apsw.SchemaChangeError() | apsw.SQLError():
            return "does not have the tables holdfast made: another program changed it."
        case _:
            return "refused what was asked of it."


def in_transaction(db: apsw.Connection, work: Callable[[], T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work()
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(apsw.Error):
                db.execute("ROLLBACK")
        raise
    return result


def abandon(db: apsw.Connection) -> None:
    """Close a connection that failed, without the checkpoint that closing the last one would try."""
    with suppress(apsw.Error):
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.close(True)
