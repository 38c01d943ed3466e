"""Values that a database refuses in the middle of a batch: what it holds for other runs is written all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from holdfast.errors import CodecError, StoreError
from holdfast.store import Batch, Committed, Finish, open_store
from holdfast.store.postgres import PostgresStore
from holdfast.store.refusing import Refused
from holdfast.store.sqlite import SQLiteStore
from holdfast.testing.store_suite import append, checkpoint, create, numbers, run_row


def test_a_value_too_big_for_sqlite(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    runs = create(store, "a", "b", "c")
    assert store._writer is not None
    writer = store._writer
    writer.limit(apsw.SQLITE_LIMIT_LENGTH, 100_000)  # instead of a billion
    rows = [checkpoint(run.no, 1, result=bytes(200_000 if run is runs[1] else 10)) for run in runs]
    (refused,) = store.commit(Batch(appends=rows)).refused.items()
    assert refused[0] == runs[1].no and isinstance(refused[1], CodecError)
    assert "a.db cannot hold a value of more than about a gigabyte" in str(refused[1])
    assert [numbers(store, run) for run in runs] == [[1], [], [1]]
    assert store._writer is writer, "nothing is wrong with the file"
    store.close()


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = open_store(postgres_url)
    assert isinstance(store, PostgresStore)
    yield store
    store.close()


def test_a_text_that_postgresql_cannot_hold(store: PostgresStore) -> None:
    runs = create(store, "a", "b", "c")
    rows = [checkpoint(run.no, 1, name="x\0" if run is runs[1] else "x") for run in runs]
    (refused,) = store.commit(Batch(appends=rows)).refused.items()
    assert refused[0] == runs[1].no and isinstance(refused[1], CodecError)
    assert "a row holds what PostgreSQL cannot" in str(refused[1])
    assert [numbers(store, run) for run in runs] == [[1], [], [1]]


def test_a_row_too_big_for_postgresql(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much together goes in halves. It is seen before it is sent: the server would hang up."""
    runs = create(store, "a", "b", "c", "d")
    size = 70_000
    monkeypatch.setattr("holdfast.store.postgres_link.STATEMENT_MAX_BYTES", 100_000)
    rows = [checkpoint(run.no, 1, result=bytes(2 * size if run is runs[1] else size)) for run in runs]
    committed = store.commit(Batch(appends=rows))
    assert list(committed.refused) == [runs[1].no] and "140" in str(committed.refused[runs[1].no])
    assert [numbers(store, run) for run in runs] == [[1], [], [1], [1]] and store._steps.opened == 1


def test_runs_that_a_refused_batch_created_are_known_for_its_own(store: PostgresStore) -> None:
    """The first statement commits itself, and what the fence has a say in is settled behind it."""
    lost, bad = create(store, "lost", "bad")
    assert store.claim(lost.no, 1, owner="other", ttl_ms=1000, lost=None) is not None
    settle, tries = store._settle, []

    def refuse_once(*given: Any, **more: Any) -> Committed:
        tries.append(given)
        if len(tries) == 1:
            raise Refused("a row holds what PostgreSQL cannot")
        return settle(*given, **more)

    store._settle = refuse_once  # type: ignore[method-assign]
    new = [run_row("new"), run_row("newer", seed=b"t" * 16)]
    committed = store.commit(Batch(creates=new, appends=[checkpoint(lost.no, 1), checkpoint(bad.no, 1)]))
    assert set(committed.created) == {"new", "newer"} and committed.fenced == {lost.no} and not committed.refused
    assert committed.created["new"] == store.get("new") and numbers(store, bad) == [1]


@pytest.mark.parametrize(
    ("setting", "says"),
    [("statement_timeout", "its statement_timeout is too short"), ("lock_timeout", "a lock was not")],
)
def test_a_statement_that_takes_too_long_for_one_run(postgres_url: str, setting: str, says: str) -> None:
    """Another transaction holds the row of one of them."""
    store = open_store(f"{postgres_url}&options=-c%20{setting}%3D300")
    runs = create(store, "a", "b", "c")
    schema = postgres_url.partition("schema=")[2]
    with psycopg.connect(postgres_url.partition("?")[0]) as db:
        db.execute(f"SELECT no FROM {schema}.run WHERE id = 'b' FOR UPDATE".encode())
        end = Finish(run_no=runs[2].no, epoch=1, status="done")
        committed = store.commit(Batch(appends=[checkpoint(run.no, 1) for run in runs], finishes=[end]))
        db.rollback()
    assert list(committed.refused) == [runs[1].no]
    why = committed.refused[runs[1].no]
    assert isinstance(why, StoreError) and says in str(why), "it may pass"
    assert [numbers(store, run) for run in runs] == [[1], [], [1]]
    row = store.get("c")
    assert row is not None and row.status == "done" and append(store, checkpoint(runs[1].no, 1)) == set()
    store.close()
