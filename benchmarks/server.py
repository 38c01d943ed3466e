"""A PostgreSQL server for the rows that measure it, and the least that can be done with it."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from measure import VALUE, WARM

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


class PostgresFloor:
    """One ``INSERT`` of 1 KB after the other through psycopg, each committed."""

    def __init__(self, url: str) -> None:
        self.db = psycopg.connect(url, autocommit=True)
        self.db.execute("CREATE TABLE floor (run_no bigint, seq bigint, value bytea)")
        self.db.execute("CREATE UNIQUE INDEX floor_place ON floor (run_no, seq)")
        self.seq = 0

    def insert(self) -> None:
        self.seq += 1
        self.db.execute("INSERT INTO floor VALUES (%s, %s, %s)", (1, self.seq, VALUE))

    def warm(self, rows: int = WARM) -> None:
        for _ in range(rows):
            self.insert()

    def median_us(self, rows: int) -> float:
        times = []
        for _ in range(rows):
            start = time.perf_counter()
            self.insert()
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    def mean_us(self, rows: int) -> float:
        start = time.perf_counter()
        self.warm(rows)
        return (time.perf_counter() - start) * 1e6 / rows

    def close(self) -> None:
        self.db.close()
