"""Listening, forks, and what a session of PostgreSQL is used for."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

from holdfast.store import Batch, Finish, Store, open_store
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres_schema import number_of
from holdfast.testing.store_suite import append, at_once, checkpoint, claim, create, finish, news, numbers


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = open_store(postgres_url)
    assert isinstance(store, PostgresStore)
    yield store
    store.close()


def ask(url: str, text: str) -> list[Any]:
    with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
        return db.execute(text.encode()).fetchall()


# -- listening -------------------------------------------------------------------------------------------------


def queued(store: Store, id: str) -> None:
    create(store, id, owner=None, status="queued", queue="q")


def asleep(store: Store, id: str, **more: Any) -> None:
    (run,) = create(store, id, queue="q")
    end = Finish(run_no=run.no, epoch=1, status="waiting", due_ms=2**62, **more)
    assert store.commit(Batch(finishes=[end])).fenced == set()


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (None, lambda store: queued(store, "new")),
        (None, lambda store: create(store, *(f"n{n}" for n in range(9)), owner=None, status="queued")),
        (None, lambda store: finish(store, create(store, "back")[0], "running")),
        (lambda store: asleep(store, "a"), lambda store: store.send("a", "x", b"", key=None)),
        (lambda store: asleep(store, "a"), lambda store: store.cancel("a")),
        (None, lambda store: finish(store, create(store, "c", parent_no=create(store, "p")[0].no)[0], parent_no=1)),
    ],
    ids=["submitted", "many", "handed back", "signal", "cancel", "child"],
)  # fmt: skip
def test_who_listens_is_woken(
    store: PostgresStore, postgres_url: str, before: Callable[[Store], Any] | None, change: Callable[[Store], Any]
) -> None:
    other = open_store(postgres_url)
    if before is not None:
        before(other)
    store.listen(0)
    assert store._listener._heard is True

    def work(number: int) -> float:
        if number == 0:
            began = time.monotonic()
            store.listen(20)
            return time.monotonic() - began
        change(other)
        return 0.0

    assert max(at_once(2, work)) < 10
    other.close()


def test_steps_wake_nobody(store: PostgresStore, postgres_url: str) -> None:
    """NOTIFY lets transactions commit one after the other: what is frequent does without."""
    run, other = create(store, "a", "b")
    store.listen(0)
    told = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            store.listen(0.4)
            told.set()
            return
        for seq in range(1, 20):
            append(store, checkpoint(run.no, seq), checkpoint(other.no, seq))
            append(store, checkpoint(run.no, 100 + seq))
            store.tell([news(run.no, seq)])
            assert not told.is_set(), "a step was told of"
        finish(store, other)

    at_once(2, work)


def test_closing_ends_the_listening(store: PostgresStore) -> None:
    create(store, "a")
    store.listen(0)
    began = time.monotonic()
    thread = threading.Thread(target=lambda: store.listen(30))
    thread.start()
    while not store._listener._lock.locked() and thread.is_alive():
        time.sleep(0.001)
    store.close()
    thread.join(10)
    assert not thread.is_alive() and time.monotonic() - began < 10
    store.listen(0.01)  # and can be begun again


def test_a_listener_whose_connection_is_lost_listens_again(store: PostgresStore, postgres_url: str) -> None:
    create(store, "a")
    store.listen(0)
    listener = store._listener
    assert listener._db is not None
    ask(postgres_url, f"SELECT pg_terminate_backend({listener._db.info.backend_pid}, 5000)")
    began = time.monotonic()
    while listener._db is None or listener._db.closed:
        store.listen(5)
    assert time.monotonic() - began < 5


@pytest.mark.skipif(resource is None, reason="there is no such limit")
def test_a_process_with_many_open_files_listens(store: PostgresStore) -> None:
    """``select`` takes no descriptor above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    files: list[int] = []
    try:
        while not files or files[-1] < 1024:
            files.append(os.open(os.devnull, os.O_RDONLY))
        store.forget()  # the pair of sockets is made with it
        store.listen(0)
        assert store._listener._db is not None and store._listener._db.fileno() > 1024
        heard = threading.Thread(target=store.listen, args=(20,))
        began = time.monotonic()
        heard.start()
        queued(store, "a")
        heard.join(20)
        assert time.monotonic() - began < 10
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_off_is_off(new_schema: Callable[..., str], postgres_url: str) -> None:
    store = open_store(new_schema(None, "listen=off"))
    assert isinstance(store, PostgresStore)
    began = time.monotonic()
    store.listen(20)
    assert time.monotonic() - began < 5 and store._listener._db is None
    store.close()


# -- forks -----------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_uses_connections_of_its_own(store: PostgresStore) -> None:
    """And the parent's still live: a child that closed them would end the parent's sessions."""
    (run,) = create(store, "a")
    store.listen(0)
    append(store, checkpoint(run.no, 1))
    store.get("a")
    links = (store._steps, store._rest)
    sessions = [link._db and link._db.info.backend_pid for link in links]

    def work() -> None:
        assert append(store, checkpoint(run.no, 2)) == set() and numbers(store, run) == [1, 2]
        assert not set(sessions) & {link._db and link._db.info.backend_pid for link in links}
        store.listen(0)
        store.close()

    assert in_child(work) == 0
    assert append(store, checkpoint(run.no, 3)) == set() and numbers(store, run) == [1, 2, 3]
    assert [link.opened for link in links] == [1, 1] and store._listener._db is not None
    store.listen(0.01)


def test_a_child_of_a_process_in_the_middle_of_a_write(store: PostgresStore) -> None:
    (run,) = create(store, "a")
    with store._steps.lock, store._rest.lock:
        forked = threading.Thread(target=lambda: codes.append(in_child(lambda: append(store, checkpoint(run.no, 1)))))
        codes: list[int] = []
        forked.start()
        forked.join(20)
    assert codes == [0] and numbers(store, run) == [1]


# -- sessions --------------------------------------------------------------------------------------------------


def test_news_do_not_wait_for_the_disk_and_steps_do(store: PostgresStore, postgres_url: str) -> None:
    (run,) = create(store, "a")
    store.tell([news(run.no, 1, forget=0)])
    assert ask(postgres_url, "SHOW synchronous_commit") == [("on",)]
    seen: list[str] = []
    with psycopg.connect(postgres_url.partition("?")[0], autocommit=True) as db:
        schema = postgres_url.partition("schema=")[2]
        db.execute(
            f"""
            CREATE TABLE {schema}.seen (name text, waits text);
            CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO {schema}.seen VALUES (tg_table_name, current_setting('synchronous_commit')); RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER a AFTER INSERT ON {schema}.news DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION {schema}.note();
            CREATE CONSTRAINT TRIGGER a AFTER INSERT ON {schema}.checkpoint DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION {schema}.note();
        """.encode()
        )
        store.tell([news(run.no, 2)])
        append(store, checkpoint(run.no, 1))
        store.tell([news(run.no, 3), news(run.no, 4)])
        append(store, checkpoint(run.no, 2), checkpoint(run.no, 3))
        seen = db.execute(f"SELECT name, waits FROM {schema}.seen".encode()).fetchall()
    assert seen == [("news", "off"), ("checkpoint", "on"), *[("news", "off")] * 2, *[("checkpoint", "on")] * 2]


def test_statements_are_prepared_once_whatever_is_none(store: PostgresStore) -> None:
    (run,) = create(store, "a")
    for seq in range(1, 200):
        more = {
            "tokens": seq if seq % 2 else None,
            "result": None if seq % 3 else b"r",
            "usd": 0.5 if seq % 5 else None,
        }
        append(store, checkpoint(run.no, seq, **more))
        append(
            store,
            checkpoint(run.no, 1000 + seq, **more),
            *(checkpoint(run.no, 10_000 * k + seq) for k in range(1, seq)),
        )
    db = store._steps._db
    assert db is not None
    ((prepared,),) = db.execute(b"SELECT count(*) FROM pg_prepared_statements").fetchall()
    assert prepared < 20


def test_without_prepared_statements(new_schema: Callable[..., str]) -> None:
    store = open_store(new_schema(None, "prepare=false"))
    assert isinstance(store, PostgresStore)
    (run,) = create(store, "a")
    for seq in range(1, 9):
        append(store, checkpoint(run.no, seq))
    assert claim(store, run) is not None and numbers(store, run) == list(range(1, 9))
    db = store._steps._db
    assert db is not None
    assert db.execute(b"SELECT count(*) FROM pg_prepared_statements").fetchall() == [(0,)]
    store.close()


def test_batches_too_big_for_a_statement_are_whole(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.store.postgres.PART_MAX_BYTES", 2500)
    run, other = create(store, "a", "b")
    rows = [checkpoint(each.no, seq, result=bytes(1000)) for seq in range(1, 8) for each in (run, other)]
    rows.insert(3, checkpoint(run.no, 50, result=bytes(9000)))
    ends = [Finish(run_no=other.no, epoch=1, status="done"), Finish(run_no=run.no, epoch=2, status="done")]
    assert store.commit(Batch(appends=rows, finishes=ends)).fenced == {run.no}
    assert numbers(store, other) == list(range(1, 8)) and numbers(store, run) == []
    assert append(store, *(row for row in rows if row.run_no == run.no)) == set()
    assert numbers(store, run) == [*range(1, 8), 50]


def test_steps_do_not_wait_for_readers_and_claims(store: PostgresStore, postgres_url: str) -> None:
    (run,) = create(store, "a")
    with psycopg.connect(postgres_url.partition("?")[0]) as db, ThreadPoolExecutor(1) as pool:
        schema = postgres_url.partition("schema=")[2]
        db.execute("SELECT pg_advisory_xact_lock(%s)", (number_of(schema, "q"),))
        given: dict[str, Any] = {"ttl_ms": 1000, "queue": "q", "workflows": {"review_loan": None}, "dead": []}
        claiming = pool.submit(store.claim_due, "w", limit=2, at_once=1, **given)
        while not db.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            time.sleep(0.002)
        assert append(store, checkpoint(run.no, 1)) == set() and not claiming.done()
        db.rollback()
        assert claiming.result(20) == []


@pytest.mark.parametrize("at_once", [None, 100])
def test_many_runs_are_claimed_in_as_many_round_trips_as_one(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, at_once: int | None
) -> None:
    asked: list[object] = []
    execute = psycopg.Connection.execute

    def counted(self: Any, text: Any, *given: Any, **more: Any) -> Any:
        asked.append(text)
        return execute(self, text, *given, **more)

    create(store, *(f"r{n}" for n in range(40)), owner=None, status="queued", queue="q")
    monkeypatch.setattr(psycopg.Connection, "execute", counted)
    trips = []
    for limit in (1, 1, 30):
        asked.clear()
        given: dict[str, Any] = {"ttl_ms": 1000, "queue": "q", "workflows": {"review_loan": None}, "dead": []}
        assert len(store.claim_due("w", limit=limit, at_once=at_once, **given)) == limit
        trips.append(len(asked))
    assert trips[1] == trips[2] == (3 if at_once is None else 5), "with BEGIN and COMMIT"


def test_an_id_that_no_store_can_hold_is_unknown(store: PostgresStore) -> None:
    assert store.get("a\0b") is None and store.get("\ud800") is None
