"""One server for all the faults; it syncs to its disk, since it is made to crash."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator

import pytest
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy
from tests.torture.grounds import one_server

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))
_numbers = itertools.count(1)


@pytest.fixture
def seed() -> int:
    """What a test draws from; it is printed where the test fails."""
    print(f"HOLDFAST_SEED={SEED} draws the same again")
    return SEED


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with one_server() as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """The name of an empty one."""
    name = f"faults_{next(_numbers)}"
    server.sql(f"CREATE DATABASE {name}")
    yield name
    server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def url(server: PostgresServer, database: str) -> str:
    """The straight way to the store."""
    return server.url_of(database)


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def detour(proxy: Proxy, database: str) -> str:
    """The way to the same store through the proxy."""
    return proxy.url_of(database)
