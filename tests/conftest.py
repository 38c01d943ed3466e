"""What tests of all folders share: a PostgreSQL server for the session, started when the first test asks for it."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ENVIRONMENT = "HOLDFAST_TEST_POSTGRES_URL"  # another server; processes that tests start find the session's there too

# Processes are killed here, servers are not. Without autovacuum nothing but tests commits anything.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "max_connections": 200}
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server, in which each test makes a schema of its own."""
    if url := os.environ.get(ENVIRONMENT):
        yield url
        return
    from tests.servers.postgres import PostgresServer

    # Not in a folder of pytest's: it keeps three of them, and where tests run as root, another session of it shuts the
    # server's user out of them all.
    with tempfile.TemporaryDirectory(prefix="holdfast-postgres-") as folder:
        server = PostgresServer(Path(folder) / "server", _SETTINGS)
        server.settings["unix_socket_directories"] = str(server.data)
        server.start()
        os.environ[ENVIRONMENT] = server.url
        try:
            yield server.url
        finally:
            del os.environ[ENVIRONMENT]
            server.stop("immediate")


@pytest.fixture
def new_schema(postgres_server: str) -> Iterator[Callable[..., str]]:
    """Gives the URL of a schema that is not there yet; ``name`` may be any. All are dropped at the end."""
    import psycopg
    from psycopg import sql

    made: list[str] = []

    def new(name: str | None = None, *options: str) -> str:
        from urllib.parse import quote

        made.append(name or f"t{os.getpid()}_{next(_numbers)}")
        return f"{postgres_server}{'&' if '?' in postgres_server else '?'}" + "&".join(
            (f"schema={quote(made[-1], safe='')}", *options)
        )

    yield new
    with psycopg.connect(postgres_server, autocommit=True) as db:
        for each in made:
            db.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(each)))


@pytest.fixture
def postgres_url(new_schema: Callable[..., str]) -> str:
    """The URL of a store of the test's own, empty."""
    return new_schema()
