"""What the log of a SQLite file may hold after a failed fsync, and how it is believed again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import apsw

_ALONE_MS = 10  # two processes that both look whether they are alone must not both take the other for an owner
_PIECE = 1 << 16  # bytes; SQLite writes at most 128 KiB at a time


def _doubt(path: str) -> Path:
    return Path(f"{path}-unsynced")


def doubt_log(path: str) -> None:
    """Leave word beside the file that the end of its log may not have reached the disk.

    After a failed fsync those pages may be in the page cache alone, where the kernel takes them for clean: no later
    fsync writes them. While a connection of this process is open the next commit writes over them. But if all end,
    SQLite reads them, goes on behind them, and a power cut takes everything behind the hole. The word need not be
    durable: a power cut takes those pages along with it.
    """
    with suppress(OSError):
        _doubt(path).touch()


def settle_log(path: str, vfs: str | None = None) -> None:
    """If the log is in doubt and nobody has it open, write it to the disk once more before it is believed."""
    doubt, log = _doubt(path), Path(f"{path}-wal")
    if not doubt.exists():
        return
    if not all(os.access(each, os.W_OK) for each in (path, Path(path).parent)):
        return  # it is only looked at, and nobody can go on behind the log
    if log.exists() and log.stat().st_size:
        db = apsw.Connection(path, apsw.SQLITE_OPEN_READWRITE, vfs)
        try:
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            db.set_busy_timeout(_ALONE_MS)
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            try:
                db.execute("PRAGMA user_version").fetchall()  # it is locked by the first read
            except apsw.BusyError:
                return  # whoever has it open knows how much of the log stands
            _write_anew(str(log), vfs)
        finally:
            db.close()
    with suppress(OSError):
        doubt.unlink()


def _write_anew(log: str, vfs: str | None) -> None:
    """In another file, which then takes the log's name: to write over the log could tear what of it is durable."""
    anew = f"{log}-anew"
    # As SQLite would create it: with the owner and the rights of the log, and the first sync is one of the folder too.
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_WAL
    source, target = apsw.VFSFile(vfs or "", log, [flags, 0]), apsw.VFSFile(vfs or "", anew, [flags, 0])
    try:
        size = source.xFileSize()
        target.xTruncate(0)  # what a process left that died here
        for start in range(0, size, _PIECE):
            target.xWrite(source.xRead(min(_PIECE, size - start), start), start)
        target.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        source.xClose()
        target.xClose()
    _rename(anew, log)


def _rename(source: str, target: str) -> None:
    try:
        Path(source).replace(target)
        folder = os.open(Path(target).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise apsw.IOError(str(error)) from error
