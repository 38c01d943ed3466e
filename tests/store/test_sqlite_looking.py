"""Whoever only looks changes nothing: no file is made, and one that may not be written is read all the same."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.store import Batch
from holdfast.store.sqlite import SQLiteStore
from holdfast.testing.store_suite import checkpoint, create

# What a reader of a store asks, in a process of its own: it prints what it was told.
LOOK = """
import sys
from holdfast.errors import StoreError
from holdfast.store import open_store
store = open_store(sys.argv[1])
try:
    row = store.get("a")
    print(row.id, len(store.load(row.no)), len(store.claims(row.no)), store.spent([row.no])[row.no].steps)
    print([each.id for each in store.runs(status=None, workflow=None, limit=9, after=None)])
except StoreError as error:
    print(error)
"""


def obey_permissions() -> None:
    """In the child: root gives up reading and writing what it may not. Others have no such right."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE; it takes effect with exec


def look(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(path)], preexec_fn=obey_permissions, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with a store, ``a.db``, of one run with one checkpoint."""
    folder = tmp_path / "archive #1?"  # its name has to be quoted in a URI
    folder.mkdir()
    store = SQLiteStore(folder / "a.db")
    (row,) = create(store, "a")
    store.commit(Batch(appends=[checkpoint(row.no, 1)]))
    store.close()
    return folder


def protect(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)


def test_a_copy_in_a_folder_that_may_not_be_written_is_read(archive: Path) -> None:
    protect(archive)
    assert look(archive / "a.db") == "a 1 1 1\n['a']\n"
    assert [path.name for path in archive.iterdir()] == ["a.db"]


def test_a_store_that_a_living_process_writes_is_read_with_its_log(archive: Path) -> None:
    writer = SQLiteStore(archive / "a.db")
    create(writer, "b")
    protect(archive)
    assert look(archive / "a.db") == "a 1 1 1\n['b', 'a']\n"
    writer.close()


def test_work_that_is_only_in_a_log_that_cannot_be_read_is_not_passed_over(archive: Path) -> None:
    writer = SQLiteStore(archive / "a.db")
    create(writer, "b")
    copy = archive.parent / "copy"
    copy.mkdir()
    for name in ("a.db", "a.db-wal"):  # the log's index is not part of a copy
        (copy / name).write_bytes((archive / name).read_bytes())
    writer.close()
    protect(copy)
    assert "has committed work in a.db-wal" in look(copy / "a.db")
    copy.chmod(0o755)
    for path in copy.iterdir():
        path.chmod(0o644)
    assert look(copy / "a.db") == "a 1 1 1\n['b', 'a']\n"


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_looking_makes_no_store(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.db"
    if content is not None:
        path.write_bytes(content)
    store = SQLiteStore(path)
    assert store.get("a") is None
    assert store.runs(status=None, workflow=None, limit=9, after=None) == []
    assert (path.read_bytes() if path.exists() else None) == content
    create(store, "a")  # and what is made later is seen
    found = store.get("a")
    assert found is not None and found.id == "a"
    store.close()
