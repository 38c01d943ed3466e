"""The statements as SQLite takes them: many rows in one, its text for each size, prepared once and kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import apsw

from holdfast.store.queries import SCHEMA, queries_of

T = TypeVar("T")

TEXTS = {name: query.sql.replace(SCHEMA, "") for name, query in queries_of("sqlite").items()}

# How many rows a statement may have. Each size is a text of its own to be prepared and cached, so there are
# few; a batch between two is padded with rows of NULLs. apsw caches no text over 16 KB: hence the end.
SIZES = (*range(1, 17), *range(20, 65, 4), *range(80, 257, 16))
_SIZE_OF = tuple(next(size for size in SIZES if size >= count) for count in range(SIZES[-1] + 1))


class Transaction:
    """The statements by name, in the transaction that is open."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def ask(self, name: str, given: Mapping[str, Any]) -> list[Any]:
        return self._db.execute(TEXTS[name], given).fetchall()

    def bulk(self, name: str, rows: list[tuple[Any, ...]]) -> int:
        return bulk(self._db, name, rows)[0]


@cache
def _text(name: str, size: int, width: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return TEXTS[name].replace(":rows", ",".join([row] * size))


def bulk(db: apsw.Connection, name: str, rows: list[tuple[Any, ...]]) -> tuple[int, list[Any]]:
    """Send rows as the VALUES of a statement: how many it changed, and what it returned."""
    changed, returned = 0, []
    for some in pieces(rows, SIZES[-1]):
        size, width = _SIZE_OF[len(some)], len(some[0])
        given = list(chain.from_iterable(some))
        given += [None] * (width * (size - len(some)))
        returned += db.execute(_text(name, size, width), given).fetchall()
        changed += db.changes()
    return changed, returned


@cache
def listing(name: str, count: int) -> str:
    """The text of a statement with ``:list`` for so many parameters, named ``item0``, ``item1`` …"""
    return TEXTS[name].replace(":list", ", ".join(f":item{k}" for k in range(count)))


def items(values: Collection[Any]) -> dict[str, Any]:
    return {f"item{k}": value for k, value in enumerate(values)}


def pieces(rows: list[T], size: int) -> Iterable[list[T]]:
    if len(rows) <= size:
        return (rows,) if rows else ()
    return (rows[start : start + size] for start in range(0, len(rows), size))
