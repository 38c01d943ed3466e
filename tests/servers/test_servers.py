"""The instruments of the fault tests do what they say: else a test that nothing goes wrong in would prove nothing."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from .cluster import Cluster
from .postgres import PostgresServer
from .proxy import Proxy


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Outside of pytest's own, whose root it closes to others each time another session starts."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-servers-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(folder / "one")
    server.start()
    server.sql("CREATE TABLE kept (n int PRIMARY KEY)")
    yield server
    server.stop("immediate")


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    server.sql("TRUNCATE kept")
    with Proxy(server.port) as proxy:
        yield proxy


def kept(server: PostgresServer) -> list[int]:
    return [n for (n,) in server.sql("SELECT n FROM kept ORDER BY n")]


def insert(db: psycopg.Connection, *numbers: int) -> None:
    for n in numbers:
        db.execute("INSERT INTO kept VALUES (%s)", (n,))


@pytest.mark.parametrize("how", ["immediate", "kill"])
def test_a_server_that_crashed_has_what_it_committed(server: PostgresServer, proxy: Proxy, how: str) -> None:
    with pytest.raises(psycopg.OperationalError), psycopg.connect(server.url) as db:
        insert(db, 1)
        db.commit()
        insert(db, 2)
        server.kill() if how == "kill" else server.stop("immediate")
        insert(db, 3)
    assert not server.running
    server.start()
    assert kept(server) == [1]


@pytest.mark.parametrize(("when", "stands"), [("asked", [1, 2]), ("answered", [1, 2, 3])])
@pytest.mark.parametrize("prepared", [True, False])
def test_a_connection_is_cut_at_the_turn_it_is_told(
    server: PostgresServer, proxy: Proxy, when: str, stands: list[int], prepared: bool
) -> None:
    db = psycopg.connect(proxy.url, autocommit=True)
    db.prepare_threshold = 0 if prepared else None
    cut = proxy.cut("INSERT INTO kept", turns=2, when=when)  # type: ignore[arg-type]
    insert(db, 1)
    db.execute("SELECT 1")
    insert(db, 2)
    assert not cut.done.is_set()
    with pytest.raises(psycopg.OperationalError):
        insert(db, 3)
    assert cut.done.is_set() and kept(server) == stands


def test_a_transaction_is_cut_behind_its_commit(server: PostgresServer, proxy: Proxy) -> None:
    db = psycopg.connect(proxy.url)
    proxy.cut("COMMIT")
    insert(db, 1, 2)
    with pytest.raises(psycopg.OperationalError):
        db.commit()
    assert kept(server) == [1, 2]


def test_every_connection_is_cut(proxy: Proxy) -> None:
    both = [psycopg.connect(proxy.url, autocommit=True) for _ in range(2)]
    assert proxy.cut_all() == 2
    for db in both:
        with pytest.raises(psycopg.OperationalError):
            db.execute("SELECT 1")


def test_a_parted_network_holds_what_is_on_its_way(server: PostgresServer, proxy: Proxy) -> None:
    db = psycopg.connect(proxy.url, autocommit=True)
    proxy.pause()
    asking = threading.Thread(target=insert, args=(db, 1))
    asking.start()
    asking.join(0.1)
    assert asking.is_alive() and kept(server) == []
    proxy.resume()
    asking.join(10)
    assert not asking.is_alive() and kept(server) == [1]


def test_a_turn_is_late(proxy: Proxy) -> None:
    db = psycopg.connect(proxy.url, autocommit=True)
    proxy.delay_s = 0.05
    began = time.monotonic()
    insert(db, 1)
    assert time.monotonic() - began >= 0.05


def test_a_standby_has_what_its_primary_acknowledged(folder: Path) -> None:
    cluster = Cluster(folder / "cluster")
    cluster.start()
    try:
        cluster.primary.sql("CREATE TABLE kept (n int PRIMARY KEY)")
        cluster.standby.pause()
        asking = threading.Thread(target=cluster.primary.sql, args=("INSERT INTO kept VALUES (1)",))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()  # the commit waits for the standby
        cluster.standby.resume()
        asking.join(10)
        cluster.lose_primary()
        cluster.promote()
        with psycopg.connect(cluster.url, autocommit=True) as db:
            insert(db, 2)
        assert kept(cluster.standby) == [1, 2]
    finally:
        cluster.stop()
