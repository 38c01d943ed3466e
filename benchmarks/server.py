"""A PostgreSQL server for the rows that measure it, and the least that can be done with it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from measure import VALUE, Floor

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.servers.postgres import PostgresServer


@contextmanager
def server(beside: Path) -> Iterator[str]:
    """The URL of a server that waits for its disk, as in production; its data are on the file system of ``beside``."""
    with tempfile.TemporaryDirectory(prefix="postgres-", dir=beside.resolve().parents[1]) as folder:
        made = PostgresServer(Path(folder) / "server", {"shared_buffers": "256MB"})
        made.start()
        try:
            yield made.url
        finally:
            made.stop()


class PostgresFloor(Floor):
    """Through psycopg, in a table of its own."""

    def __init__(self, url: str, table: str = "floor") -> None:
        super().__init__()
        self.db = psycopg.connect(url, autocommit=True)
        self.db.execute(f"CREATE TABLE {table} (run_no bigint, seq bigint, value bytea)")
        self.db.execute(f"CREATE UNIQUE INDEX {table}_place ON {table} (run_no, seq)")
        self.statement = f"INSERT INTO {table} VALUES (%s, %s, %s)"

    def insert(self, value: bytes = VALUE) -> None:
        self.seq += 1
        self.db.execute(self.statement, (1, self.seq, value))

    def close(self) -> None:
        self.db.close()
