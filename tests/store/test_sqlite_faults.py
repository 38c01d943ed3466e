"""Files that are not what they should be, and disks that fail: refused or survived, never damaged."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.errors import StoreError
from holdfast.store import Batch, open_store, sqlite_file, sqlite_log
from holdfast.store.damage import flaw_of
from holdfast.store.queries import Migration, read_migrations
from holdfast.store.sqlite import SQLiteStore
from holdfast.store.sqlite_rows import TEXTS, _text
from holdfast.testing.store_suite import append, checkpoint, create, numbers, run_row


def other_program(path: Path) -> apsw.Connection:
    """A connection holdfast knows nothing of. Never through the standard library's sqlite3: two SQLite
    libraries in one process do not see each other's locks, and the first to close a file drops them all."""
    return apsw.Connection(str(path))


# -- files that are not ours ---------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    """The message of a store that cannot be used, the same for reading and for writing."""
    store = SQLiteStore(path)
    with pytest.raises(StoreError) as reading:
        store.get("a")
    with pytest.raises(StoreError) as writing:
        store.commit(Batch(creates=[run_row("a")]))
    store.close()
    assert str(path) in str(reading.value) or str(path.parent) in str(reading.value)
    assert str(reading.value) == str(writing.value)
    return str(writing.value)


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert f"mkdir -p {tmp_path / 'no' / 'such'}" in refusal(tmp_path / "no" / "such" / "a.db")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 400, b"short", b"\0" * 5000])
def test_not_a_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert "not a SQLite database" in refusal(path)
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("mark", ["CREATE TABLE run (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"])
def test_another_applications_database(tmp_path: Path, mark: str, mode: str) -> None:
    path = tmp_path / "theirs.db"
    theirs = other_program(path)
    theirs.execute(f"PRAGMA journal_mode = {mode}")
    theirs.execute(mark)
    theirs.close()
    before = path.read_bytes()
    assert "another application" in refusal(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with_run(path).close()


def with_run(path: Path, vfs: str | None = None) -> SQLiteStore:
    store = SQLiteStore(path, vfs=vfs)
    create(store, "a")
    return store


def test_a_newer_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with_run(path).close()
    other = other_program(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    before = path.read_bytes()
    assert "upgrade holdfast" in refusal(path)
    assert path.read_bytes() == before


def test_an_edited_migration(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with_run(path).close()
    other = other_program(path)
    other.execute("UPDATE migration SET checksum = 'x' WHERE number = 1")
    other.close()
    assert "migration 1" in refusal(path)


def test_a_released_migration_is_never_edited() -> None:
    """Add a file instead: stores out there have recorded these checksums."""
    assert [(m.number, m.checksum[:16]) for m in read_migrations("sqlite")] == [(1, "f5c0fbf9873c103d")]


def test_a_schema_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    store = with_run(path)
    append(store, checkpoint(1, 1))
    store.close()
    text = "ALTER TABLE run ADD COLUMN extra TEXT"
    ours = read_migrations("sqlite")
    added = Migration(len(ours) + 1, "extra", hashlib.sha256(text.encode()).hexdigest(), text)
    monkeypatch.setattr(sqlite_file, "read_migrations", lambda dialect: [*read_migrations(dialect), added])
    store = SQLiteStore(path)
    assert len(store.load(1)) == 1
    store.close()
    db = other_program(path)
    assert db.execute("SELECT number, name FROM migration").fetchall() == [
        *((each.number, each.name) for each in ours),
        (len(ours) + 1, "extra"),
    ]
    assert "extra" in [row[1] for row in db.execute("PRAGMA table_info(run)")]
    db.close()


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with_run(path).close()
    before = other_program(path).execute("SELECT sql FROM sqlite_schema ORDER BY sql").fetchall()
    broken = Migration(3, "broken", "c", "CREATE TABLE half (x); CREATE TABLE run (x)")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "read_migrations", lambda dialect: [*read_migrations(dialect), broken])
        with pytest.raises(StoreError):
            SQLiteStore(path).get("a")
    assert other_program(path).execute("SELECT sql FROM sqlite_schema ORDER BY sql").fetchall() == before
    assert SQLiteStore(path).get("a") is not None


AS_NOBODY = """
import os, sys
from holdfast.errors import StoreError
from holdfast.store import Batch, open_store
from holdfast.testing.store_suite import run_row
store = open_store(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    store.commit(Batch(creates=[run_row("b")]))
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("target", ["file", "folder", "unreadable"])
def test_what_may_not_be_written(target: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "a.db"
        if target != "folder":
            with_run(path).close()
            before = path.read_bytes()
            path.chmod(0o444 if target == "file" else 0o000)
        folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
        )
        folder.chmod(0o755)
        assert "make the file and its folder writable" in done.stdout, done.stderr
        if target != "folder":
            path.chmod(0o644)
            assert path.read_bytes() == before


def test_a_lock_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_MS", 50)
    store = with_run(tmp_path / "a.db")
    other = other_program(tmp_path / "a.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another process"):
        append(store, checkpoint(1, 1))
    assert store.load(1) == [], "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    assert append(store, checkpoint(1, 1)) == set()
    store.close()


def test_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = with_run(path)
    append(store, *(checkpoint(1, n, result=bytes(1000)) for n in range(1, 200)))
    store.close()
    data = bytearray(path.read_bytes())
    for page in range(30, 40):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match="is damaged"):
        store.load(1)
    assert store.get("a") is not None, "what can be read is still read"
    store.close()


def test_text_that_is_none(tmp_path: Path) -> None:
    store = with_run(tmp_path / "a.db")
    append(store, checkpoint(1, 1))
    other = other_program(tmp_path / "a.db")
    append(store, checkpoint(1, 2))
    other.execute("UPDATE checkpoint SET name = CAST(x'ff' AS TEXT) WHERE seq = 1")
    other.close()
    damaged, whole = store.load(1)
    assert (damaged.name, flaw_of(damaged)) == (r"\xff", "the row's checksum does not match its content")
    assert flaw_of(whole) is None
    store.close()


def test_a_row_that_cannot_be_written_takes_nothing_with_it(tmp_path: Path) -> None:
    store = with_run(tmp_path / "a.db")
    bad = checkpoint(1, 1)
    bad.name = "\ud800"
    nameless = checkpoint(1, 1)
    nameless.name = None  # type: ignore[assignment]  # a mistake of ours, not a value of the run's
    with pytest.raises(StoreError):
        append(store, checkpoint(1, 2), nameless)
    with pytest.raises(StoreError):
        store.commit(Batch(creates=[run_row("b")], appends=[nameless]))
    assert store.load(1) == [] and store.get("b") is None
    committed = store.commit(Batch(creates=[run_row("b")], appends=[checkpoint(1, 2), bad]))
    assert list(committed.refused) == [1] and list(committed.created) == ["b"] and store.load(1) == []
    assert append(store, checkpoint(1, 1)) == set()
    store.close()


def test_the_promised_settings(tmp_path: Path) -> None:
    store = with_run(tmp_path / "a.db")
    db = store._writer
    assert db is not None
    asked = {name: db.pragma(name) for name in ("journal_mode", "synchronous", "page_size", "wal_autocheckpoint")}
    assert asked == {"journal_mode": "wal", "synchronous": 2, "page_size": 4096, "wal_autocheckpoint": 1000}
    # 3.7.0 to 3.51.2 can corrupt a log that two connections checkpoint at once.
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)
    store.close()


def test_lists_use_their_indexes(tmp_path: Path) -> None:
    store = with_run(tmp_path / "a.db")
    db = store._writer
    assert db is not None

    def plan(name: str, width: int = 0) -> str:
        given: Any = [None] * (2 * width)
        if not width:
            given = dict.fromkeys(re.findall(r":(\w+)", TEXTS[name]))
        text = _text(name, 2, width) if width else TEXTS[name].replace(":list", ":list, 7")
        return " / ".join(row[3] for row in db.execute("EXPLAIN QUERY PLAN " + text, given))

    assert "SEARCH r USING INTEGER PRIMARY KEY" in plan("append", 22)
    assert "SEARCH run USING INTEGER PRIMARY KEY" in plan("finish", 10)
    assert "run_owner" in plan("renew")
    assert "run_ready" in plan("due") and "run_timed" in plan("due")
    assert "run_parent" in plan("cancel_children")
    assert "run_status" in plan("runs_of_status") and "TEMP B-TREE" not in plan("runs_of_status")
    assert "INTEGER PRIMARY KEY" in plan("runs") and "TEMP B-TREE" not in plan("runs")
    assert "checkpoint_place" in plan("load") and "TEMP B-TREE" not in plan("load")
    assert "checkpoint_place" in plan("spent")
    assert "checkpoint_place" in plan("standing")
    store.close()


# -- disks that fail -----------------------------------------------------------------------------------------


class Disk(apsw.VFS):
    """A file system that knows what a power cut would leave, and fails when told to.

    What was written is durable once a sync of its file succeeded. After a sync that failed the pages count as
    clean, as on Linux: nothing writes them again unless the program does.
    """

    def __init__(self, name: str) -> None:
        self.durable: dict[str, bytearray] = {}
        self.dirty: dict[str, list[tuple[int, bytes]]] = {}
        self.fail: dict[str, type[Exception]] = {}
        self.short = False
        self.syncs = 0
        self.lock = threading.Lock()
        super().__init__(name, "")
        self.name = name

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)

    def rename(self, source: str, target: str) -> None:
        """In place of ``sqlite_log``'s."""
        Path(source).replace(target)
        self.durable[target] = self.durable.pop(source, bytearray())
        self.dirty[target] = self.dirty.pop(source, [])

    def cut_power(self, folder: Path) -> Path:
        """The files as they would be found, in another folder."""
        folder.mkdir()
        for path, data in self.durable.items():
            if not path.endswith("-shm") and Path(path).exists():
                (folder / Path(path).name).write_bytes(data)
        return folder


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        super().__init__("", name, flags)

    def _may_fail(self, call: str) -> None:
        if error := self.disk.fail.get(call):
            raise error(f"injected into {call}")

    def xWrite(self, data: bytes, offset: int) -> None:
        if self.disk.short:
            super().xWrite(data[: len(data) // 2], offset)
            raise apsw.FullError("injected short write")
        self._may_fail("write")
        super().xWrite(data, offset)
        with self.disk.lock:
            self.disk.dirty.setdefault(self.path, []).append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        super().xTruncate(size)
        with self.disk.lock:
            self.disk.dirty.setdefault(self.path, []).append((size, b""))

    def xSync(self, flags: int) -> None:
        with self.disk.lock:
            dirty = self.disk.dirty.pop(self.path, [])
            self._may_fail("sync")
            self.disk.syncs += 1
            durable = self.disk.durable.setdefault(self.path, bytearray())
            for offset, data in dirty:
                if not data:
                    del durable[offset:]
                durable.extend(bytes(max(0, offset - len(durable))))
                durable[offset : offset + len(data)] = data
        super().xSync(flags)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(f"disk-{tmp_path.name}")
    monkeypatch.setattr(sqlite_log, "_rename", disk.rename)
    yield disk
    disk.unregister()


def found_after_power_cut(disk: Disk, folder: Path) -> list[int]:
    store = SQLiteStore(disk.cut_power(folder) / "a.db")
    found = [row.seq for row in store.load(1)]
    assert store.get("a") is not None
    store.close()
    return found


def test_what_was_committed_survives_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    store = with_run(tmp_path / "a.db", disk.name)
    for seq in range(1, 40):
        before = disk.syncs
        append(store, checkpoint(1, seq, result=bytes(300_000)))  # several checkpoints of the log on the way
        assert disk.syncs > before
        if seq % 6 == 0:
            assert found_after_power_cut(disk, tmp_path / f"cut-{seq}") == list(range(1, seq + 1))
    store.close()
    assert found_after_power_cut(disk, tmp_path / "cut") == list(range(1, 40))


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError])
@pytest.mark.parametrize("reader", [True, False])
def test_a_failing_disk(tmp_path: Path, disk: Disk, call: str, error: type[Exception], reader: bool) -> None:
    store = with_run(tmp_path / "a.db", disk.name)
    append(store, checkpoint(1, 1))
    if reader:
        assert numbers(store, create(store, "b")[0]) == []
    failed = store._writer
    disk.fail[call] = error
    with pytest.raises(StoreError, match="what was committed is safe"):
        append(store, checkpoint(1, 2))
    with pytest.raises(StoreError, match="what was committed is safe"):
        store.commit(Batch(creates=[run_row("c")]))
    disk.fail.clear()
    assert [row.seq for row in store.load(1)] == [1], "what failed is not there"
    assert append(store, checkpoint(1, 2)) == set()
    assert store._writer is not failed
    append(store, checkpoint(1, 3))
    assert found_after_power_cut(disk, tmp_path / "cut") == [1, 2, 3]
    store.close()
    assert found_after_power_cut(disk, tmp_path / "closed") == [1, 2, 3]


def test_a_commit_after_a_failed_sync_writes_its_pages_again(tmp_path: Path, disk: Disk) -> None:
    """Another row than the one that failed: read back from the cache, the failed one would hide a hole."""
    store = with_run(tmp_path / "a.db", disk.name)
    append(store, checkpoint(1, 1))
    disk.fail["sync"] = apsw.IOError
    with pytest.raises(StoreError):
        append(store, checkpoint(1, 2, result=bytes(20_000)))
    disk.fail.clear()
    for seq in range(2, 6):
        assert append(store, checkpoint(1, seq)) == set()
        assert found_after_power_cut(disk, tmp_path / f"cut-{seq}") == list(range(1, seq + 1))
    store.close()


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_log_left_by_a_failed_sync_is_written_anew_before_it_is_believed(
    tmp_path: Path, disk: Disk, size: int
) -> None:
    """Whoever opens it next reads the failed commit from the page cache; only what is written again is on the disk."""
    store = with_run(tmp_path / "a.db", disk.name)
    append(store, checkpoint(1, 1))
    disk.fail["sync"] = apsw.IOError
    with pytest.raises(StoreError):
        append(store, checkpoint(1, 2, result=bytes(size)))
    store.close()
    assert (tmp_path / "a.db-unsynced").exists()
    before = (tmp_path / "a.db-wal").stat()
    with pytest.raises(StoreError, match="could not be read or written"):
        SQLiteStore(tmp_path / "a.db", vfs=disk.name).get("a")
    after = (tmp_path / "a.db-wal").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "what is durable could be torn"
    disk.fail.clear()
    store = SQLiteStore(tmp_path / "a.db", vfs=disk.name)
    found = [row.seq for row in store.load(1)]
    append(store, checkpoint(1, found[-1] + 1))
    assert found_after_power_cut(disk, tmp_path / "cut") == [*found, found[-1] + 1]
    assert not (tmp_path / "a.db-unsynced").exists() and not (tmp_path / "a.db-wal-anew").exists()
    assert (tmp_path / "a.db-wal").stat().st_mode == before.st_mode
    store.close()


def test_a_log_is_written_anew_on_a_real_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = with_run(path)
    append(store, checkpoint(1, 1, result=bytes(300_000)))
    names = [f"{path}{end}" for end in ("", "-wal")]
    kept = [Path(name).read_bytes() for name in names]
    store.close()
    for name, content in zip(names, kept, strict=True):  # as a process leaves them that is killed
        Path(name).write_bytes(content)
    sqlite_log.doubt_log(str(path))
    (tmp_path / "a.db-wal-anew").write_bytes(bytes(1_000_000))  # another one died here before
    before = Path(names[1]).stat().st_ino
    store = SQLiteStore(path)
    assert [row.seq for row in store.load(1)] == [1]
    assert Path(names[1]).read_bytes() == kept[1] and Path(names[1]).stat().st_ino != before
    append(store, checkpoint(1, 2))
    store.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.db"]
    assert [row.seq for row in SQLiteStore(path).load(1)] == [1, 2]


def test_a_log_that_another_process_has_open_is_left_to_it(tmp_path: Path) -> None:
    """Its owner knows how much of it stands, and may be writing to it."""
    script = (
        "import sys, apsw; db = apsw.Connection(sys.argv[1]); db.execute('PRAGMA user_version').fetchall(); "
        "print(1, flush=True); input()"
    )
    path, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    store = with_run(path)
    append(store, checkpoint(1, 1))
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        store.close()
        sqlite_log.doubt_log(str(path))
        before = log.stat()
        store = SQLiteStore(path)
        assert [row.seq for row in store.load(1)] == [1]
        assert (log.stat().st_size, log.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        store.close()
        other.communicate(b"\n")


def test_a_short_write(tmp_path: Path, disk: Disk) -> None:
    store = with_run(tmp_path / "a.db", disk.name)
    append(store, checkpoint(1, 1))
    disk.short = True
    with pytest.raises(StoreError, match="no room left"):
        append(store, checkpoint(1, 2))
    disk.short = False
    assert append(store, checkpoint(1, 2)) == set()
    assert [row.seq for row in store.load(1)] == [1, 2]
    store.close()
    assert [row.seq for row in SQLiteStore(tmp_path / "a.db").load(1)] == [1, 2]


def test_a_disk_that_fails_while_a_file_is_made(tmp_path: Path, disk: Disk) -> None:
    store = SQLiteStore(tmp_path / "a.db", vfs=disk.name)
    disk.fail["sync"] = apsw.IOError
    with pytest.raises(StoreError):
        create(store, "a")
    disk.fail.clear()
    create(store, "a")
    store.close()
    assert found_after_power_cut(disk, tmp_path / "cut") == []


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one where this user may mount it."""
    mount = shutil.which("mount")
    folder = tmp_path / "small"
    folder.mkdir()
    if mount is None or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", folder]).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        store = open_store(folder / "a.db")
        create(store, "a")
        written = 0
        with pytest.raises(StoreError, match="free some space"):
            while True:
                append(store, checkpoint(1, written + 1, result=bytes(20_000)))
                written += 1
        assert written > 5
        assert [row.seq for row in store.load(1)] == list(range(1, written + 1))
        subprocess.run([mount, "-o", "remount,size=8m", folder], check=True)
        assert append(store, checkpoint(1, written + 1, result=bytes(20_000))) == set()
        store.close()
        assert [row.seq for row in open_store(folder / "a.db").load(1)] == list(range(1, written + 2))
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
