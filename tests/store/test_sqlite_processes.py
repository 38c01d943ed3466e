"""Several real processes on one SQLite file: opening it, fighting over runs, killed, forked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import StoreError
from holdfast.store import Batch, open_store
from holdfast.store.sqlite import SQLiteStore
from holdfast.testing.store_suite import append, checkpoint, claim, create, numbers, run_row


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs ``program`` once a line comes in on its standard input."""
    head = (
        "import sys, os, time\n"
        "from holdfast.store import *\n"
        "from holdfast.store import sqlite\n"
        "from holdfast.testing.store_suite import *\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", head + program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def go(*processes: subprocess.Popen[str]) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), found
    return [out.strip() for out, _ in found]


CREATE = """
store = open_store(sys.argv[1])
print('a' in store.commit(Batch(creates=[run_row('a'), run_row(sys.argv[2])])).created)
"""


def test_processes_make_one_file_at_once(tmp_path: Path) -> None:
    for turn in range(5):
        path = tmp_path / f"{turn}.db"
        won = go(*(start(CREATE, path, f"x{n}") for n in range(4)))
        assert sorted(won) == ["False", "False", "False", "True"]
        store = open_store(path)
        assert len(store.runs(status=None, workflow=None, limit=9, after=None)) == 5
        store.close()


CLAIM = """
store = open_store(sys.argv[1])
for no in range(1, 31):
    row = store.claim(no, 1, owner=sys.argv[2], ttl_ms=1000, lost=None)
    if row is not None:
        assert append(store, checkpoint(no, 1, epoch=2, name=sys.argv[2])) == set()
    assert append(store, checkpoint(no, 2, epoch=1)) == {no}
"""


def test_processes_claim_runs_and_each_has_one_owner(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.db")
    runs = create(store, *(f"r{n}" for n in range(30)))
    go(*(start(CLAIM, tmp_path / "a.db", owner) for owner in "pqr"))
    for run in runs:
        (row,) = store.load(run.no)
        now = store.get(run.id)
        assert now is not None and now.epoch == 2 and now.owner == row.name
        assert [c.owner for c in store.claims(run.no)] == ["me", row.name]
    store.close()


WRITE = """
store = open_store(sys.argv[1])
no = store.get(sys.argv[2]).no
for seq in range(1, 100000):
    if append(store, *(checkpoint(no, 3 * seq + i - 2, result=bytes(3000)) for i in range(3))):
        break
    print(3 * seq, flush=True)
"""


def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.db")
    runs = create(store, "a", "b")
    writers = [start(WRITE, tmp_path / "a.db", id) for id in "ab"]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for run, writer, lines in zip(runs, writers, (1, 30), strict=True):
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout  # not communicate(), which forgets what was read ahead
        writer.communicate()
        acknowledged = int(told[-1])
        found = numbers(store, run)
        assert found == list(range(1, len(found) + 1)) and len(found) % 3 == 0
        assert acknowledged <= len(found) <= acknowledged + 3
    store.close()


def test_a_takeover_from_another_process_fences(tmp_path: Path) -> None:
    store = open_store(tmp_path / "a.db")
    (run,) = create(store, "a")
    writer = start(WRITE, tmp_path / "a.db", "a")
    assert writer.stdin is not None and writer.stdout is not None
    writer.stdin.write("\n")
    writer.stdin.flush()
    writer.stdout.readline()
    assert claim(store, run) is not None
    loaded = numbers(store, run)
    out = writer.stdout.read()
    writer.wait()
    assert numbers(store, run) == loaded, "nothing came after the takeover"
    assert int((out.split() or ["3"])[-1]) == len(loaded)
    store.close()


# -- fork ----------------------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@needs_fork
def test_a_forked_childs_commits_outlive_the_parent_closing(tmp_path: Path) -> None:
    """Without care the child holds no lock that counts, and the parent deletes the log it writes to."""
    path = tmp_path / "a.db"
    store = open_store(path)
    first, second = create(store, "a", "b")
    append(store, checkpoint(first.no, 1))
    assert numbers(store, first) == [1]
    written, proceed = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.forget()
            append(store, checkpoint(second.no, 1))
            numbers(store, second)
            os.write(written[1], b"x")
            os.read(proceed[0], 1)
            append(store, checkpoint(second.no, 2), checkpoint(second.no, 3))
            status = 0 if numbers(store, second) == [1, 2, 3] else 2
        finally:
            os._exit(status)
    os.close(written[1])
    assert os.read(written[0], 1) == b"x"
    assert append(store, checkpoint(first.no, 2)) == set()
    store.close()
    os.write(proceed[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    assert numbers(open_store(path), second) == [1, 2, 3]


def _child_appends(store: SQLiteStore, run_no: int) -> None:
    for seq in range(1, 40):
        assert append(store, checkpoint(run_no, seq)) == set()
    store.close()


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_children_of_multiprocessing_write_beside_a_writing_parent(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    runs = create(store, "parent", "x", "y", "z")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_child_appends, args=(store, run.no)) for run in runs[1:]]
    for child in children:
        child.start()
    _child_appends(store, runs[0].no)
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert [numbers(store, run) for run in runs] == [list(range(1, 40))] * 4
    store.close()


@needs_fork
def test_connections_inherited_past_os_fork_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that forks in C calls no ``before`` hook; the child must not write without locks."""
    store = SQLiteStore(tmp_path / "a.db")
    create(store, "a")
    monkeypatch.setattr(store, "_pid", os.getpid() + 1)
    store.forget()
    with pytest.raises(StoreError, match="close the store before forking"):
        store.commit(Batch(creates=[run_row("b")]))
