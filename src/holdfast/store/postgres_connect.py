"""A connection to PostgreSQL, as every part of the store makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from holdfast.store.postgres_rows import adapt
from holdfast.store.postgres_url import Address

Connection = psycopg.Connection[Any]

# At the head of every transaction. Who is paused in the middle of it, or whose machine is gone, would keep what it
# locked, and nobody could take its runs over. The server lets go of that in less time than a lease lasts.
LET_GO = b"SET LOCAL idle_in_transaction_session_timeout = '5s'"


def connect(address: Address, libpq: Mapping[str, str]) -> Connection:
    given: dict[str, Any] = {"fallback_application_name": "holdfast", **libpq, "client_encoding": "utf8"}
    threshold = 0 if address.prepare else None
    db: Connection = psycopg.connect(
        autocommit=True, prepare_threshold=threshold, cursor_factory=psycopg.RawCursor, **given
    )
    # Ours are few, and to forget one by DEALLOCATE is what PgBouncer does not know how to follow.
    db.prepared_max = None
    db.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # of psycopg's own BEGIN, whatever the role's default
    adapt(db)
    return db
