"""What the log of a SQLite file may hold after a failed fsync, and how it is believed again."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from holdfast.store.sqlite_file import APPLICATION_ID

_ALONE_MS = 10  # two processes that both look whether they are alone must not both take the other for an owner
_PIECE = 1 << 16  # bytes; SQLite writes at most 128 KiB at a time


def write_log_anew(path: str, vfs: str | None = None) -> None:
    """Write a log that no connection has open to the disk once more, byte by byte, before anybody believes it.

    A process that met a failed fsync and ended leaves a log whose last pages may be in the page cache alone, where
    the kernel takes them for clean: no later fsync writes them. SQLite would read them, go on behind them, and a
    power cut would take everything behind the hole.
    """
    log = f"{path}-wal"
    if not (Path(log).exists() and Path(log).stat().st_size):
        return
    if not all(os.access(each, os.W_OK) for each in (path, log, Path(path).parent)):
        return  # it is only looked at, and nobody can go on behind the log
    db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE, vfs)
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        db.set_busy_timeout(_ALONE_MS)
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            ((application,),) = db.execute("PRAGMA application_id").fetchall()
        except apsw.BusyError:
            return  # whoever has it open knows how much of the log stands
        if application == APPLICATION_ID:
            _write_anew(log, vfs)
    finally:
        db.close()


def _write_anew(log: str, vfs: str | None) -> None:
    # Opened as SQLite would create it, so that its first sync is one of the folder too.
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_WAL
    file = apsw.VFSFile(vfs or "", log, [flags, 0])
    try:
        size = file.xFileSize()
        for start in range(0, size, _PIECE):
            file.xWrite(file.xRead(min(_PIECE, size - start), start), start)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()
