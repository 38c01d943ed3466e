"""A role may have another isolation level by default: whoever waited for a lock sees what is true behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from holdfast.store import open_store
from holdfast.store.postgres_schema import lock_of, number_of
from holdfast.store.postgres_url import parse_postgres
from holdfast.testing.store_suite import create

REPEATABLE = "options=-cdefault_transaction_isolation%3Drepeatable%5C%20read"  # as a role may have it by default
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def await_two_who_wait(url: str) -> None:
    deadline = time.monotonic() + 20
    with psycopg.connect(url.partition("?")[0], autocommit=True) as db:
        while db.execute(_WAITING).fetchall() != [(2,)]:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_whoever_waits_while_the_schema_is_set_up_finds_it(new_schema: Callable[..., str]) -> None:
    url = new_schema(None, REPEATABLE)
    schema = parse_postgres(url).schema
    stores = [open_store(url) for _ in range(2)]
    with psycopg.connect(url.partition("?")[0]) as db, ThreadPoolExecutor(2) as threads:
        db.execute("SELECT pg_advisory_xact_lock(%s)", (lock_of(schema),))
        creating = [threads.submit(create, store, f"r{n}") for n, store in enumerate(stores)]
        await_two_who_wait(url)
        db.rollback()
        assert [len(each.result()) for each in creating] == [1, 1]
    for store in stores:
        store.close()


def test_whoever_waits_to_count_a_queue_counts_what_was_claimed_meanwhile(
    new_schema: Callable[..., str],
) -> None:
    url = new_schema(None, REPEATABLE)
    schema = parse_postgres(url).schema
    stores = [open_store(url) for _ in range(2)]
    for n, store in enumerate(stores):
        create(store, f"r{n}", owner=None, status="queued", queue="q", workflow=f"w{n}")

    def claim(n: int) -> int:
        options: dict[str, Any] = {"ttl_ms": 60_000, "queue": "q", "workflows": {f"w{n}": None}, "dead": [], "limit": 9}
        return len(stores[n].claim_due(f"worker|{n}|1|x", at_once=1, **options))

    with psycopg.connect(url.partition("?")[0]) as db, ThreadPoolExecutor(2) as threads:
        db.execute("SELECT pg_advisory_xact_lock(%s)", (number_of(schema, "q"),))
        claiming = [threads.submit(claim, n) for n in range(2)]
        await_two_who_wait(url)
        db.rollback()
        assert sorted(each.result() for each in claiming) == [0, 1]
    for store in stores:
        store.close()
