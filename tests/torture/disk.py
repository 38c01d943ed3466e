"""A file system for SQLite that writes down every call, and fails at the one it is told to. Real files lie beneath.

Nothing is synced for real: what a power cut would leave is worked out from the trace (``power.py``).
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import msgspec

NAME = "torture"
SHORT_LOG = 12  # so few pages that the log is copied into the file, and begun anew, several times in one run
LONG_LOG = 60  # so many that what is wrong in the log stays there for long

# What each call may answer. "short" is a write that stops half-way and then finds the disk full.
HOW: dict[str, tuple[str, ...]] = {
    "open": ("EIO",),
    "read": ("EIO",),
    "write": ("EIO", "ENOSPC", "short"),
    "truncate": ("EIO",),
    "sync": ("EIO", "ENOSPC"),
    "size": ("EIO",),
    "lock": ("EIO",),
    "delete": ("EIO",),
}
LASTING = ("once", "same", "all")

_CODES = {
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "size": apsw.SQLITE_IOERR_FSTAT,
    "lock": apsw.SQLITE_IOERR_LOCK,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "rename": apsw.SQLITE_IOERR_DIR_FSYNC,
}


class Fault(msgspec.Struct, frozen=True):
    """The ``n``-th (from 1) call of a kind fails; and, unless ``lasting`` is "once", every later one of this kind
    ("same") or of any kind ("all")."""

    what: str
    n: int
    how: str
    lasting: str

    def __str__(self) -> str:
        return f"{self.what} {self.n} {self.how} {self.lasting}"

    @classmethod
    def parsed(cls, text: str) -> Fault:
        what, n, how, lasting = text.split()
        return cls(what, int(n), how, lasting)


class Plan(msgspec.Struct):
    """One process: which call of its disk fails, how often it says its line before it gives up, and at how many pages
    its log is copied into the file."""

    fault: Fault | None = None
    attempts: int = 1
    log_pages: int = SHORT_LOG

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_bytes(msgspec.json.encode(self))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        return msgspec.json.decode((folder / "plan.json").read_bytes(), type=cls)


class Op(msgspec.Struct, array_like=True):
    """One call, as it was made. ``ledger``: how long the ledger was at that moment, in bytes."""

    what: str
    name: str
    handle: int
    ledger: int
    failed: bool
    offset: int = 0  # of a write; the new size of a truncation
    data: bytes = b""  # what was written, of a short write the part that was; of a renamed file the new name
    folder: bool = False  # open: the file was made; sync and delete: the folder was synced along, as with each rename


class Disk(apsw.VFS):
    """Traces into ``folder/trace``, next to the ledger of the processes, which is ``folder/ledger.jsonl``."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self._trace = os.open(folder / "trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._ledger = folder / "ledger.jsonl"
        self._fault = fault
        self._counts: Counter[str] = Counter()
        self._struck = False
        self._lock = threading.Lock()
        self.handles = 0
        super().__init__(NAME, "")

    def note(self, what: str, name: str, handle: int, **more: Any) -> Exception | None:
        """Write a call down before it is made; the error it has to end with, if it has to."""
        with self._lock:
            self._counts[what] += 1
            error = self._error(what)
            size = self._ledger.stat().st_size if self._ledger.exists() else 0
            if error is not None and what == "write":
                half = len(more["data"]) // 2
                more["data"] = more["data"][:half] if self._fault is not None and self._fault.how == "short" else b""
            line = msgspec.msgpack.encode(Op(what, name, handle, size, error is not None, **more))
            os.write(self._trace, len(line).to_bytes(4, "big") + line)
            return error

    def _error(self, what: str) -> Exception | None:
        fault = self._fault
        if fault is None:
            return None
        if self._struck:
            struck = fault.lasting == "all" or (fault.lasting == "same" and what == fault.what)
        else:
            self._struck = struck = (what, self._counts[what]) == (fault.what, fault.n)
        if not struck:
            return None
        if what == "open":
            return apsw.CantOpenError("injected")
        if what in ("write", "sync") and fault.how != "EIO":
            return apsw.FullError("injected")
        error = apsw.IOError("injected")
        error.extendedresult = _CODES[what]
        return error

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)

    def xDelete(self, name: str, sync_folder: bool) -> None:
        if error := self.note("delete", Path(name).name, 0, folder=bool(sync_folder)):
            raise error
        super().xDelete(name, sync_folder)

    def rename(self, source: str, target: str) -> None:
        """SQLite has no call for it: holdfast's own is to be replaced by this."""
        if error := self.note("rename", Path(source).name, 0, data=os.fsencode(Path(target).name)):
            raise error
        Path(source).replace(target)


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        disk.handles += 1
        self.disk, self.name, self.handle = disk, path.name, disk.handles
        # SQLite's own file system syncs the folder along with the first sync of a journal it has opened.
        self.folder_due = bool(flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL))
        self._note("open", folder=not path.exists())
        super().__init__("", name, flags)

    def _note(self, what: str, **more: Any) -> None:
        if error := self.disk.note(what, self.name, self.handle, **more):
            raise error

    def xRead(self, amount: int, offset: int) -> bytes:
        self._note("read")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        data = bytes(data)
        if error := self.disk.note("write", self.name, self.handle, offset=offset, data=data):
            if self.disk._fault is not None and self.disk._fault.how == "short":
                super().xWrite(data[: len(data) // 2], offset)
            raise error
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._note("truncate", offset=size)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        due = self.folder_due
        self._note("sync", folder=due)
        self.folder_due = False

    def xFileSize(self) -> int:
        self._note("size")
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        self._note("lock")
        super().xLock(level)


def read_trace(folder: Path) -> list[Op]:
    """What was done on the disk since the power last went; a line that a kill cut short is left out."""
    data = (folder / "trace").read_bytes() if (folder / "trace").exists() else b""
    ops, at = [], 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + size > len(data):
            break
        ops.append(msgspec.msgpack.decode(data[at + 4 : at + 4 + size], type=Op))
        at += 4 + size
    return ops


def settle_trace(folder: Path) -> None:
    """Make the trace that a killed process left tell what was done: of its last line a part may be missing, and of the
    last call of each open file nothing, or only the beginning, may have been made."""
    ops = read_trace(folder)
    last = {op.handle: at for at, op in enumerate(ops)}
    made = [_made(folder / op.name, op) if last[op.handle] == at else op for at, op in enumerate(ops)]
    lines = [msgspec.msgpack.encode(op) for op in made if op is not None]
    (folder / "trace").write_bytes(b"".join(len(line).to_bytes(4, "big") + line for line in lines))


def _made(file: Path, op: Op) -> Op | None:
    """The call as far as the file beneath shows it."""
    if op.failed or not file.exists():
        return op
    if op.what in ("delete", "rename") or (op.what == "truncate" and file.stat().st_size > op.offset):
        return None
    if op.what == "write":
        with file.open("rb") as stream:
            stream.seek(op.offset)
            there = stream.read(len(op.data))
        same = len(there)
        while there[:same] != op.data[:same]:
            same -= 1
        return msgspec.structs.replace(op, data=op.data[:same])
    return op
