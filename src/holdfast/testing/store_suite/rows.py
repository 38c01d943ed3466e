"""The rows that the suite gives to stores, and what every part of it does with them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from holdfast.store import Batch, Checkpoint, Finish, News, Revision, RunRow, Store, revised


class MakeStore(Protocol):
    def __call__(self, clock: Callable[[], int] | None = None) -> Store: ...


class Clock:
    """Milliseconds that pass when a test says so."""

    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def run_row(id: str, *, owner: str | None = "me", ttl_ms: int = 30_000, **more: Any) -> RunRow:
    """A run as it is given to be created."""
    given: dict[str, Any] = {
        "workflow": "review_loan",
        "version": "1",
        "python": "3.11",
        "module": "loans",
        "file": "/srv/loans.py",
        "inputs": b"\x91\x01",
        "fingerprint": b"f" * 16,
        "state": None,
        "seed": b"s" * 16,
    }
    return RunRow(id=id, owner=owner, lease_until_ms=ttl_ms, **{**given, **more})


def checkpoint(run_no: int, seq: int, *, epoch: int = 1, **more: Any) -> Checkpoint:
    """A row with its checksum, as the journal hands it on."""
    given: dict[str, Any] = {
        "kind": "step",
        "scope": "",
        "branch": "",
        "name": "parse",
        "key": None,
        "n": 0,
        "version": "",
        "status": "done",
        "attempts": 1,
        "started_ms": 1_800_000_000_000,
        "duration_ms": 12.5,
        "tokens": None,
        "usd": None,
        "fingerprint": b"i" * 16,
        "inputs": None,
        "result": b"\x01",
        "delta": None,
    }
    row = Checkpoint(run_no=run_no, seq=seq, epoch=epoch, **{**given, **more})
    row.checksum = row.compute_checksum()
    return row


def revision(run: RunRow, seq: int, **more: Any) -> Revision:
    """What makes it a run of version 2, beginning with checkpoint ``seq``."""
    begins = checkpoint(run.no, seq, epoch=run.epoch, kind="version", name=run.workflow, version=run.version)
    changed = {"version": "2", "python": "3.12", "module": "loans2", "file": "/srv/2.py", "schema_version": 7, **more}
    made = Revision(begins=begins, state=b"\x81", checksum=0, **changed)
    made.checksum = revised(run, made).compute_checksum()
    return made


def create(store: Store, *ids: str, **more: Any) -> list[RunRow]:
    created = store.commit(Batch(creates=[run_row(id, **more) for id in ids])).created
    return [created[id] for id in ids]


def append(store: Store, *rows: Checkpoint) -> set[int]:
    """The numbers of the runs that were fenced."""
    return store.commit(Batch(appends=list(rows))).fenced


def finish(store: Store, run: RunRow, status: str = "done", **more: Any) -> set[int]:
    end = Finish(run_no=run.no, epoch=run.epoch, status=status, **more)
    return store.commit(Batch(finishes=[end])).fenced


def news(run_no: int, n: int, *, epoch: int = 1, count: int = 1, data: bytes = b"told", **more: Any) -> News:
    return News(run_no=run_no, epoch=epoch, n=n, count=count, data=data, **more)


def numbers(store: Store, run: RunRow) -> list[int]:
    return [row.seq for row in store.load(run.no)]


def claim(store: Store, run: RunRow, *, owner: str = "other", ttl_ms: int = 30_000) -> RunRow | None:
    return store.claim(run.no, run.epoch, owner=owner, ttl_ms=ttl_ms, lost=None)


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``count`` threads return that begin together; the first error, if any raised one."""
    gate = threading.Barrier(count)
    results: list[Any] = [None] * count

    def enter(number: int) -> None:
        gate.wait()
        try:
            results[number] = work(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
