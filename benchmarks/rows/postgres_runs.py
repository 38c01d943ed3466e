"""Many runs at once, each of sequential steps, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from measure import Result
from server import PostgresFloor, server

from rows import many_runs

TITLE = "Many runs at once, on PostgreSQL"
FLOOR = (
    "The floor is how many 1 KB rows a second one committed `INSERT` after the other makes, through psycopg. The runs "
    "are started together, and their starts and ends are in the time."
)
HELD_BY = (
    "What holds it: the processor, which the runs' Python shares with the server here. The journal commits whatever is "
    "queued as one statement."
)


def measure(folder: Path, quick: bool) -> Result:
    with server(folder) as url:
        return many_runs.measured(PostgresFloor(url), url, quick, targets={50: 6})
