"""What a folder holds, looked at with nothing but SQLite, and compared with what its processes were told."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw

from holdfast.errors import StoreError
from holdfast.store import open_store
from holdfast.testing import ledger
from holdfast.testing.verdict import problems_of
from holdfast.testing.zygote import Reply

from .disk import Op

DB = "sweep.db"


def problems_of_file(folder: Path) -> list[str]:
    """By a clean reader, before holdfast touches it again: the file is sound, and all that was acknowledged is there.

    The folder is a copy made for it, and is gone afterwards."""
    try:
        return _problems_of_file(folder)
    finally:
        shutil.rmtree(folder)


def _problems_of_file(folder: Path) -> list[str]:
    events = ledger.read(folder / "ledger.jsonl")
    rows: dict[tuple[int, int], tuple[int, int]] = {}
    runs: dict[int, tuple[str, int]] = {}
    if (folder / DB).exists():
        db = apsw.Connection(str(folder / DB))
        try:
            if (sound := db.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                return [f"integrity_check: {sound[:5]}"]
            if db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'checkpoint'").fetchall() == [(1,)]:
                for no, seq, epoch, checksum in db.execute("SELECT run_no, seq, epoch, checksum FROM checkpoint"):
                    rows[no, seq] = epoch, checksum
                for no, status, epoch in db.execute("SELECT no, status, epoch FROM run"):
                    runs[no] = status, epoch
        except apsw.Error as error:
            return [f"it cannot be read: {type(error).__name__}: {error}"]
        finally:
            db.close()
    return [*_gaps(rows), *_lost(events, rows, runs)]


def _gaps(rows: dict[tuple[int, int], tuple[int, int]]) -> list[str]:
    seqs: dict[int, list[int]] = {}
    for no, seq in sorted(rows):
        seqs.setdefault(no, []).append(seq)
    return [f"run {no}: seq has a gap: {of}" for no, of in seqs.items() if of != list(range(1, len(of) + 1))]


def _lost(
    events: list[ledger.Event], rows: dict[tuple[int, int], tuple[int, int]], runs: dict[int, tuple[str, int]]
) -> list[str]:
    problems = []
    for event in events:
        if event.what == "committed" and rows.get((event.run_no, event.seq)) != (event.epoch, event.checksum):
            problems.append(f"run {event.run_no}: the commit of seq {event.seq} ({event.place}) is lost or changed")
        handed_back = event.what == "finished" and event.status == "running"
        if event.what == "finished" and not handed_back and runs.get(event.run_no) == ("running", event.epoch):
            problems.append(f"run {event.run_no}: its end ({event.status}) was acknowledged and is lost")
        if event.what in ("acked", "began") and event.run_no and event.run_no not in runs:
            problems.append(f"run {event.run_no}: it had begun and is lost")
    return list(dict.fromkeys(problems))


def problems_of_runs(folder: Path, replies: list[Reply], plain: Reply) -> list[str]:
    """What the crash sweep demands of a killed and resumed run. A process that an error of the store ended is one that
    was answered."""
    answered = {
        process: plain if reply.failed is not None and reply.failed.startswith("StoreError") else reply
        for process, reply in enumerate(replies, 1)
    }
    store = open_store(folder / DB)
    try:
        return problems_of(store, ledger.read(folder / "ledger.jsonl"), answered, plain)
    except StoreError as error:
        return [f"the store cannot be read: {error}"]
    finally:
        store.close()


def syncs_tried_again(ops: list[Op]) -> list[str]:
    """A handle of the log that failed to sync what was written is written to and synced no more.

    The file itself is another matter: its sync ends the copying of the log into it, which SQLite does anew, pages and
    all, on the same handle; nothing is acknowledged by it.
    """
    dirty: set[tuple[str, int]] = set()
    failed: set[tuple[str, int]] = set()
    problems = []
    for op in ops:
        place = op.name, op.handle
        if op.what in ("write", "sync") and place in failed:
            problems.append(f"handle {op.handle} of {op.name} is used ({op.what}) after its sync failed")
        if op.what == "write":
            dirty.add(place)
        elif op.what == "sync" and place in dirty:
            dirty.remove(place)
            if op.failed and op.name.endswith("-wal"):
                failed.add(place)
    return problems[:3]
