"""Connections to PostgreSQL that are lost: the same is sent again, and what was committed already is recognised."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast.errors import StoreError
from holdfast.store import Batch, Finish, open_store, postgres, postgres_link
from holdfast.store.postgres import PostgresStore
from holdfast.testing.store_suite import Clock, append, checkpoint, claim, create, finish, news, numbers, run_row


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = open_store(postgres_url)
    assert isinstance(store, PostgresStore)
    yield store
    store.close()


def pid_of(link: postgres_link.Link) -> int:
    assert link._db is not None
    return link._db.info.backend_pid


def terminate(url: str, pid: int) -> None:
    """As an administrator would, or a server that goes down."""
    with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
        assert db.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchall() == [(True,)]


def test_a_batch_is_sent_again_when_its_connection_is_gone(store: PostgresStore, postgres_url: str) -> None:
    run, other = create(store, "a", "b")
    for seq, rows in enumerate(([run], [run, other]), 1):
        terminate(postgres_url, pid_of(store._steps))
        assert append(store, *(checkpoint(each.no, seq + each.no - run.no) for each in rows)) == set()
    terminate(postgres_url, pid_of(store._steps))
    assert create(store, "c")[0].id == "c"
    assert claim(store, other) is not None
    assert numbers(store, run) == [1, 2] and store._steps.opened == 4


def test_a_read_is_repeated(store: PostgresStore, postgres_url: str) -> None:
    (run,) = create(store, "a")
    append(store, checkpoint(run.no, 1))
    for ask in (lambda: store.get("a"), lambda: store.load(run.no), store.stamp, store.now_ms):
        assert ask() is not None
        terminate(postgres_url, pid_of(store._rest))
        assert ask()


def test_a_connection_that_ends_in_the_middle_of_a_batch(store: PostgresStore, postgres_url: str) -> None:
    """The batch waits for a lock when its server process is ended: it was not committed, and is, by the next one."""
    run, other = create(store, "a", "b")
    with psycopg.connect(postgres_url.partition("?")[0]) as db, ThreadPoolExecutor(1) as pool:
        schema = postgres_url.partition("schema=")[2]
        db.execute(f"SELECT 1 FROM {schema}.run WHERE id = 'a' FOR UPDATE".encode())
        written = pool.submit(append, store, checkpoint(run.no, 1), checkpoint(other.no, 1))
        while not db.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            time.sleep(0.002)
        terminate(postgres_url, pid_of(store._steps))
        db.rollback()
        assert written.result(20) == set()
    assert numbers(store, run) == [1] == numbers(store, other)


# -- committed, and the answer lost ------------------------------------------------------------------------------


@pytest.fixture
def unanswered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """From when it is called on, the next transaction or batch is committed, and its connection ends then."""
    lost: list[str] = []

    def begin() -> list[str]:
        lost[:] = []

        def once(module: Any, name: str, connection_of: Callable[..., Any]) -> None:
            whole = getattr(module, name)

            def and_lost(*given: Any, **more: Any) -> Any:
                result = whole(*given, **more)
                if not lost:
                    lost.append(name)
                    connection_of(*given).close()
                    raise psycopg.OperationalError("the answer was lost")
                return result

            monkeypatch.setattr(module, name, and_lost)

        once(postgres_link.Transaction, "batch", lambda t, *_: t._db)
        once(postgres_link.Transaction, "bulk", lambda t, *_: t._db)
        for module in (postgres_link, postgres):
            once(module, "in_transaction", lambda db, *_: db)
        return lost

    return begin


def test_what_was_written_is_not_written_twice(store: PostgresStore, unanswered: Callable[[], list[str]]) -> None:
    run, other = create(store, "a", "b")
    for rows in ([checkpoint(run.no, 1)], [checkpoint(run.no, 2), checkpoint(other.no, 1)]):
        lost = unanswered()
        assert append(store, *rows) == set() and lost
    lost = unanswered()
    assert finish(store, run, result=b"r") == set() and lost == ["batch"]
    row = store.get("a")
    assert row is not None and (row.status, row.result, row.epoch) == ("done", b"r", 1)
    assert numbers(store, run) == [1, 2] and numbers(store, other) == [1]


def test_runs_that_were_created_are_told_so(store: PostgresStore, unanswered: Callable[[], list[str]]) -> None:
    create(store, "theirs", seed=b"t" * 16)
    lost = unanswered()
    batch = Batch(creates=[run_row("mine"), run_row("theirs"), run_row("queued", owner=None, status="queued")])
    created = store.commit(batch).created
    assert lost == ["batch"] and set(created) == {"mine", "queued"}, "the seed tells whose it is"
    assert created["mine"] == store.get("mine") and created["queued"] == store.get("queued")
    assert len(store.claims(created["mine"].no)) == 1


def test_a_claim_that_was_made_is_ours(store: PostgresStore, unanswered: Callable[[], list[str]]) -> None:
    (run,) = create(store, "a")
    lost = unanswered()
    row = claim(store, run)
    assert lost == ["in_transaction"] and row is not None and row == store.get("a") and row.epoch == 2
    assert [each.epoch for each in store.claims(run.no)] == [1, 2]


def test_runs_that_a_worker_took_are_its_own(store: PostgresStore, unanswered: Callable[[], list[str]]) -> None:
    """Were they forgotten, they would be prolonged by a process that does not run them."""
    create(store, "a", "b", "c", owner=None, status="queued", queue="q")
    lost = unanswered()
    given: dict[str, Any] = {
        "ttl_ms": 1000,
        "queue": "q",
        "workflows": {"review_loan": None},
        "dead": [],
        "at_once": None,
    }
    taken = store.claim_due("w", limit=2, **given)
    assert lost and [each.row.id for each in taken] == ["a", "b"]
    assert [each.row.id for each in store.claim_due("w", limit=9, **given)] == ["c"]


def test_a_signal_is_put_once(store: PostgresStore, unanswered: Callable[[], list[str]]) -> None:
    (run,) = create(store, "a")
    for n in (1, 2):
        lost = unanswered()
        row = store.send("a", "approval", b"yes", key=None)
        assert lost and row is not None and row.wakes == n
    assert [signal.n for signal in store.signals(run.no)] == [1, 2]


def test_an_end_wakes_its_parent_once(store: PostgresStore, unanswered: Callable[[], list[str]]) -> None:
    (parent,) = create(store, "p")
    (child,) = create(store, "c", parent_no=parent.no)
    unanswered()
    assert finish(store, child, parent_no=parent.no) == set()
    assert store.wakes([parent.no]) == {parent.no: 1}


# -- servers ---------------------------------------------------------------------------------------------------


def test_transactions_that_got_in_each_others_way_are_sent_again(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = create(store, "a")
    whole, raised = (
        postgres_link.Transaction.bulk,
        [psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure],
    )

    def bulk(t: Any, name: str, rows: Any) -> int:
        if raised:
            raise raised.pop()("in each other's way")
        return whole(t, name, rows)

    monkeypatch.setattr(postgres_link.Transaction, "bulk", bulk)
    assert append(store, checkpoint(run.no, 1)) == set() and not raised
    assert store._steps.opened == 1, "on the same connection"


def test_who_waits_in_vain_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.servers.postgres import free_port

    monkeypatch.setattr(postgres_link, "PATIENCE_S", 0.5)
    store = open_store(f"postgresql://me:se%2Fcret@127.0.0.1:{free_port()}/db")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"could not be reached.*Connection refused") as told:
        store.get("a")
    assert time.monotonic() - began < 3 and "cret" not in str(told.value)


def test_news_do_not_keep_steps_waiting(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = create(store, "a")
    monkeypatch.setattr(postgres, "TELL_PATIENCE_S", 0.1)
    store.close()
    monkeypatch.setattr(postgres_link, "connect", lambda *_: _raise(psycopg.OperationalError("refused")))
    began = time.monotonic()
    with pytest.raises(StoreError):
        store.tell([news(run.no, 1)])
    assert time.monotonic() - began < 3


def _raise(error: Exception) -> Any:
    raise error


@pytest.mark.slow
def test_a_server_that_crashes_and_comes_back_loses_nothing() -> None:
    from tests.servers.postgres import PostgresServer

    # Not in a folder of pytest's: where tests run as root, another session of it shuts the server's user out.
    folder = tempfile.TemporaryDirectory(prefix="holdfast-postgres-")
    server = PostgresServer(Path(folder.name) / "server")
    server.start()
    try:
        store, done = open_store(server.url), threading.Event()
        runs = create(store, *(f"r{n}" for n in range(4)))
        acknowledged = 0

        def write() -> None:
            nonlocal acknowledged
            while not done.is_set():
                assert append(store, *(checkpoint(run.no, acknowledged + 1) for run in runs)) == set()
                acknowledged += 1

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            for _ in range(2):
                before = acknowledged
                while acknowledged < before + 20 and not writing.done():
                    time.sleep(0.005)
                server.stop("immediate")
                server.start()
            done.set()
            writing.result(30)
        assert all(numbers(store, run) == list(range(1, acknowledged + 1)) for run in runs)
        ends = [Finish(run_no=run.no, epoch=1, status="done") for run in runs]
        assert store.commit(Batch(finishes=ends)).fenced == set()
        store.close()
    finally:
        server.stop("immediate")
        folder.cleanup()


def test_the_time_of_a_test_is_the_clocks(postgres_url: str) -> None:
    clock = Clock()
    store = open_store(postgres_url, clock=clock)
    (run,) = create(store, "a", ttl_ms=5)
    assert (run.created_ms, run.lease_until_ms) == (clock.now, clock.now + 5)
    store.close()
