"""The fence on PostgreSQL, as interleavings of two connections: whoever comes second waits for the first, and sees it.

Chance hardly ever meets them: each is held open in the moment that matters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from msgspec.structs import astuple

from holdfast.store import Batch, Checkpoint, Finish, RunRow, Store, open_store
from holdfast.store import owners as owning
from holdfast.store.postgres_connect import Connection, connect
from holdfast.store.postgres_link import Transaction
from holdfast.store.postgres_rows import Array, statements
from holdfast.store.postgres_url import parse_postgres
from holdfast.testing.store_suite import append, checkpoint, claim, create, finish, numbers

Write = Callable[[Transaction, RunRow, RunRow], object]


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = open_store(postgres_url)
    yield store
    store.close()


@pytest.fixture
def other(postgres_url: str) -> Iterator[Connection]:
    """A connection whose transactions end when the test says so."""
    address = parse_postgres(postgres_url)
    db = connect(address, address.libpq)
    yield db
    db.close()


def _transaction(db: Connection, url: str) -> Transaction:
    return Transaction(db, statements(parse_postgres(url).schema, False), None)


def _batch(t: Transaction, rows: list[Checkpoint], ends: list[tuple[Any, ...]]) -> list[Any]:
    nos = sorted({row.run_no for row in rows} | {end[0] for end in ends})
    parts: dict[str, list[tuple[Any, ...]]] = {
        "create": [],
        "append_many": [astuple(row) for row in rows],
        "finish": ends,
    }
    return t.batch(parts, {"list": Array("int8", nos), "channel": "nobody"})


def _one_row(t: Transaction, run: RunRow, beside: RunRow) -> None:
    assert t.bulk("append", [astuple(checkpoint(run.no, 1))]) == 1


def _rows_of_two_runs(t: Transaction, run: RunRow, beside: RunRow) -> None:
    assert ("a", 2) in [row[:2] for row in _batch(t, [checkpoint(beside.no, 1), checkpoint(run.no, 1)], [])]


def _a_row_and_an_end(t: Transaction, run: RunRow, beside: RunRow) -> None:
    end = (beside.no, 1, "done", None, None, 0, 0, None, None)
    told = [row[:2] for row in _batch(t, [checkpoint(run.no, 1)], [end])]
    assert ("a", 1) in told and ("f", 1) in told


def _waits(future: Future[Any], db: Connection, watched: Connection) -> bool:
    """Whether the work of ``future`` waits for a lock that ``watched`` holds; False when it is done first."""
    pid = watched.info.backend_pid
    while not future.done():
        ((waiting,),) = db.execute(
            b"SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))", (pid,), prepare=False
        )
        if waiting:
            return True
        time.sleep(0.002)
    return False


@pytest.mark.parametrize("write", [_one_row, _rows_of_two_runs, _a_row_and_an_end])
def test_a_takeover_waits_for_a_write_and_finds_its_row(
    store: Store, other: Connection, postgres_url: str, write: Write
) -> None:
    """Were the lock weaker, the new owner would load no row, and the old owner's would be committed behind its back."""
    run, beside = create(store, "run", "beside")
    watcher = connect(parse_postgres(postgres_url), parse_postgres(postgres_url).libpq)
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            write(_transaction(other, postgres_url), run, beside)
            taken = pool.submit(lambda: (claim(store, run), store.load(run.no)))
            waited = _waits(taken, watcher, other)
        row, loaded = taken.result(20)
    watcher.close()
    assert waited, "the takeover went past a write that was under way"
    assert row is not None and [each.seq for each in loaded] == [1]
    assert append(store, checkpoint(run.no, 2)) == {run.no}


@pytest.mark.parametrize("size", [1, 2])
def test_a_write_waits_for_a_takeover_and_is_refused(
    store: Store, other: Connection, postgres_url: str, size: int
) -> None:
    run, kept = create(store, "run", "kept")
    watcher = connect(parse_postgres(postgres_url), parse_postgres(postgres_url).libpq)
    rows = [checkpoint(run.no, 1), checkpoint(kept.no, 1)][:size]
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            t = _transaction(other, postgres_url)
            assert owning.claim(t, 0, run.no, 1, owner="new", ttl_ms=1000, lost="lapsed") is not None
            written = pool.submit(append, store, *rows)
            waited = _waits(written, watcher, other)
        assert written.result(20) == {run.no} and waited
    watcher.close()
    assert numbers(store, run) == [] and numbers(store, kept) == ([1] if size == 2 else [])


@pytest.mark.parametrize("ends", [False, True])
def test_runs_are_locked_in_one_order_whatever_the_batch_names_first(
    store: Store, other: Connection, postgres_url: str, ends: bool
) -> None:
    """Or two that lock the same runs could each wait for the other."""
    low, high = create(store, "low", "high")
    watcher = connect(parse_postgres(postgres_url), parse_postgres(postgres_url).libpq)
    batch = Batch(appends=[checkpoint(high.no, 1), checkpoint(low.no, 1)])
    if ends:
        batch.finishes = [Finish(run_no=run.no, epoch=1, status="done") for run in (high, low)]
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            _transaction(other, postgres_url).ask("lock_id", {"id": "low"})
            written = pool.submit(store.commit, batch)
            waited = _waits(written, watcher, other)
            # The second is still free, while the batch waits for the first.
            assert _lock_at_once(watcher, postgres_url, high) == 1
        assert written.result(20).fenced == set() and waited
    watcher.close()


def _lock_at_once(db: Connection, url: str, run: RunRow) -> int:
    text = statements(parse_postgres(url).schema, False).in_schema(
        "SELECT no FROM holdfast.run WHERE no = $1 FOR UPDATE NOWAIT"
    )
    return len(db.execute(text.encode(), (run.no,)).fetchall())


def test_ends_sent_by_two_owners_at_once_never_both_count(postgres_url: str) -> None:
    stores = [open_store(postgres_url) for _ in range(2)]
    for n in range(20):
        (run,) = create(stores[0], f"r{n}")
        taken = claim(stores[1], run)
        assert taken is not None
        with ThreadPoolExecutor(2) as pool:
            fenced = list(pool.map(lambda pair: finish(*pair), zip(stores, (run, taken), strict=True)))
        assert fenced == [{run.no}, set()]
    for store in stores:
        store.close()
