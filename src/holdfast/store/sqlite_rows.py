"""The statements as SQLite takes them: many rows in one, its text for each size, prepared once and kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import apsw

from holdfast.store.queries import SCHEMA, queries_of
from holdfast.store.reading import Rows, all_rows

T = TypeVar("T")

TEXTS = {name: query.sql.replace(SCHEMA, "") for name, query in queries_of("sqlite").items()}
TEXTS["claim"] = TEXTS["claim"].partition("RETURNING")[0] + "RETURNING no"

# How many rows a statement may have. Each size is a text of its own to be prepared and cached, so there are
# few; a batch between two is padded with rows of NULLs. apsw caches no text over 16 KB: hence the end.
SIZES = (*range(1, 17), *range(20, 65, 4), *range(80, 257, 16))
_SIZE_OF = tuple(next(size for size in SIZES if size >= count) for count in range(SIZES[-1] + 1))


def asked(db: apsw.Connection, text: str, given: Any, taken: Callable[[Rows], list[Any]] = all_rows) -> list[Any]:
    """The rows of a SELECT. A text in them that was changed to what is no UTF-8 comes with escapes: no other row is to
    go unread because of it."""
    try:
        return taken(db.execute(text, given))
    except UnicodeDecodeError:
        return taken(_Escaped(_with_escapes(db, text, given)))


class _Escaped(list[tuple[Any, ...]]):
    def fetchall(self) -> list[Any]:
        return self


def _with_escapes(db: apsw.Connection, text: str, given: Any) -> Iterator[tuple[Any, ...]]:
    asking, names = db.cursor(), list[str]()

    def note(cursor: apsw.Cursor, _: str, __: Any) -> bool:
        names.extend(f'"{name}"' for name, *_ in cursor.get_description())
        return False

    asking.exec_trace = note
    with suppress(apsw.ExecTraceAbort):
        asking.execute(text, given)
    kinds = [f"typeof({name})" for name in names]
    columns = [f"{kind}, CASE {kind} WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
               for name, kind in zip(names, kinds, strict=True)]  # fmt: skip
    for row in db.execute(f"SELECT {', '.join(columns)} FROM ({text})", given):
        pairs = zip(row[::2], row[1::2], strict=True)
        yield tuple(held.decode("utf-8", "backslashreplace") if kind == "text" else held for kind, held in pairs)


class Transaction:
    """The statements by name, in the transaction that is open."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def ask(self, name: str, given: Mapping[str, Any]) -> list[Any]:
        if name == "claim":  # what an UPDATE returns cannot be asked for twice, should it be no UTF-8
            changed = self._db.execute(TEXTS[name], given).fetchall()
            return asked(self._db, TEXTS["run_of_no"], given) if changed else []
        return asked(self._db, TEXTS[name], given)

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
