"""One event after another in a session of ADK's, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from measure import Result
from server import PostgresFloor, server

from adk import ours, theirs_on_postgres
from rows import adk_append

TITLE = "One event appended to an ADK session, on PostgreSQL"
FLOOR = (
    "The floor is one `INSERT` of 1 KB through psycopg, committed. An event is one statement too, that moves the "
    "session's row on and inserts the event and the keys it sets."
)
HELD_BY = (
    "What holds it: the statement changes a row and inserts one, and the event loop does no I/O: what the hand-over to "
    "another thread and its answer cost is measured beside a step on PostgreSQL."
)


def measure(folder: Path, quick: bool) -> Result:
    with server(folder) as url:
        return adk_append.measured(PostgresFloor(url), ours(url), theirs_on_postgres(url), quick)
