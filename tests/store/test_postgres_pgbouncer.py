"""Behind PgBouncer in transaction mode: the whole suite, and who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from tests.servers import pgbouncer

from holdfast.store import Store, open_store
from holdfast.store.postgres import PostgresStore
from holdfast.testing.store_suite import MakeStore, StoreSuite, append, at_once, checkpoint, create

pytestmark = pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="PgBouncer is not installed")


@pytest.fixture(scope="session")
def pooler(postgres_server: str) -> Iterator[pgbouncer.PgBouncer]:
    pooler = pgbouncer.PgBouncer(postgres_server)
    yield pooler
    pooler.stop()


@pytest.fixture
def pooled(pooler: pgbouncer.PgBouncer, new_schema: Callable[..., str]) -> Callable[..., str]:
    """The URL of a new schema through the pooler. PgBouncer before 1.22 cannot follow prepared statements."""

    def url(*options: str) -> str:
        return f"{pooler.url}?{new_schema(None, 'prepare=false', *options).partition('?')[2]}"

    return url


class TestThroughPgBouncer(StoreSuite):
    @pytest.fixture
    def make_store(self, pooled: Callable[..., str]) -> MakeStore:
        url = pooled()
        return lambda clock=None: open_store(url, clock=clock)


def _hears_within(listening: Store, telling: Store) -> float:
    """How long it takes until a submitted run is heard of, by who listens already."""
    listening.listen(0.01)
    began = [0.0]

    def work(number: int) -> float:
        if number == 0:
            listening.listen(10)
            return time.monotonic()
        time.sleep(0.2)  # so that it is listening; were it not yet, it would hear all the same, and sooner
        began[0] = time.monotonic()
        create(telling, "new", owner=None, status="queued", queue="q")
        return 0.0

    heard, _ = at_once(2, work)
    return float(heard) - began[0]


def test_who_is_told_where_the_server_is_listens_there(pooler: pgbouncer.PgBouncer, pooled: Callable[..., str]) -> None:
    url = pooled(f"listen={pooler.direct}")
    listening, telling = open_store(url), open_store(url)
    assert isinstance(listening, PostgresStore)
    create(telling, "first")
    assert _hears_within(listening, telling) < 5 and listening._listener._heard is True
    listening.close(), telling.close()


def test_who_is_not_told_notices_and_looks_every_so_often(pooled: Callable[..., str]) -> None:
    url = pooled()
    listening, telling = open_store(url), open_store(url)
    assert isinstance(listening, PostgresStore)
    began = time.monotonic()
    for _ in range(4):
        listening.listen(20)
    assert time.monotonic() - began < 10
    if listening._listener._heard is False:  # else the pooler happened to hand one connection to both
        assert listening._listener._db is None
    listening.close(), telling.close()


def test_a_pooler_whose_server_is_gone_for_a_moment(pooled: Callable[..., str], postgres_server: str) -> None:
    store = open_store(pooled())
    (run,) = create(store, "a")
    with psycopg.connect(postgres_server, autocommit=True) as db:
        for seq in (1, 2, 3):
            db.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE application_name <> '' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            assert append(store, checkpoint(run.no, seq)) == set()
    assert [row.seq for row in store.load(run.no)] == [1, 2, 3]
    store.close()
