"""Planted bugs in what many machines rest on: locks, the order of locks, what is sent again, the schema's number."""

from __future__ import annotations

from .plant import Plant

_SQL = "src/holdfast/store/queries.sql"
_FENCE = ["tests/store/test_postgres_fence.py"]
_LOST = ["tests/store/test_postgres_lost.py"]

PLANTED = [
    Plant("the fence of PostgreSQL locks no row", _SQL, "\nFOR SHARE OF r\n", "\n", _FENCE),
    Plant("the fence of PostgreSQL locks too weakly", _SQL, "FOR SHARE OF r", "FOR KEY SHARE OF r", _FENCE),
    Plant("a batch locks no run", _SQL, "ORDER BY no FOR SHARE\n", "ORDER BY no\n", _FENCE),
    Plant("a batch locks its runs too weakly", _SQL, "ORDER BY no FOR SHARE\n", "ORDER BY no FOR KEY SHARE\n", _FENCE),
    Plant(
        "a batch locks its runs in any order", _SQL, "ORDER BY no FOR SHARE\n", "ORDER BY no DESC FOR SHARE\n", _FENCE
    ),
    Plant(
        "a batch with ends locks its runs too weakly",
        _SQL,
        "AND owner IS NOT NULL ORDER BY no FOR NO KEY UPDATE\n",
        "AND owner IS NOT NULL ORDER BY no FOR KEY SHARE\n",
        _FENCE,
    ),
    Plant(
        "the fence of PostgreSQL does not look at the epoch",
        _SQL,
        "ON r.no = v.column1 AND r.epoch = v.column3 AND r.owner IS NOT NULL",
        "ON r.no = v.column1 AND r.owner IS NOT NULL",
        [*_FENCE, "tests/store/test_store_suite.py::TestPostgres"],
    ),
    Plant(
        "a batch's fence on PostgreSQL does not look at the epoch",
        _SQL,
        "JOIN locked AS r ON r.no = v.column1 AND r.epoch = v.column3",
        "JOIN locked AS r ON r.no = v.column1",
        [*_FENCE, "tests/store/test_store_suite.py::TestPostgres"],
    ),
    Plant(
        "a claim whose answer was lost is forgotten",
        "src/holdfast/store/postgres_link.py",
        "            for result in unsure:\n",
        "            for result in unsure[:0]:\n",
        _LOST,
    ),
    Plant(
        "runs of a batch that is sent again are taken for another's",
        "src/holdfast/store/postgres.py",
        "            if sent_before:\n",
        "            if False:\n",
        _LOST,
    ),
]
