"""The statements as PostgreSQL takes them: numbered parameters, the chosen schema, many rows as typed arrays.

One row is a VALUES list, since an array for it would cost half as much again; many rows are one array a column, so
that a batch of any size is the same text, prepared once. Arrays are packed here and sent in binary: psycopg would look
at every element anew to find its type, and take as long for a batch as the server does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain
from struct import Struct, pack
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.numeric import FloatBinaryDumper, Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper

from holdfast.store.queries import SCHEMA, queries_of

# The time by the database, the same everywhere in one statement. It is when the statement came in, so that one which
# had to wait for a lock gives a shorter lease, never a longer one.
_CLOCK = "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"
_NAME = re.compile(r"(?<![:\w]):([a-z_]+)")
_ROWS = "(VALUES :rows) AS v"

_HEADER = Struct("!iiIii")  # dimensions, whether there are NULLs, type of the elements, how many, number of the first
_LENGTH = Struct("!i").pack
_NULL = _LENGTH(-1)


class _Type(NamedTuple):
    oid: int
    array_oid: int
    struct: str | None  # of a type of fixed size
    to_bytes: Callable[[Any], bytes]


_TYPES = {
    "int8": _Type(20, 1016, "q", Struct("!q").pack),
    "float8": _Type(701, 1022, "d", Struct("!d").pack),
    "text": _Type(25, 1009, None, str.encode),
    "bytea": _Type(17, 1001, None, bytes),
}


class Array:
    """Values of one type (see ``_TYPES``), packed."""

    __slots__ = ("data", "type")

    def __init__(self, type: str, values: Sequence[Any]) -> None:
        self.type = type
        self.data = _packed(_TYPES[type], values)


def _packed(type: _Type, values: Sequence[Any]) -> bytes:
    has_null = None in values
    header = _HEADER.pack(1, has_null, type.oid, len(values), 1)
    if type.struct is not None and not has_null:
        return header + pack("!" + f"i{type.struct}" * len(values), *chain.from_iterable((8, v) for v in values))
    parts = [header]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            data = type.to_bytes(value)
            parts += (_LENGTH(len(data)), data)
    return b"".join(parts)


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> bytes:
        return obj.data

    def get_key(self, obj: Array, format: Any) -> Any:
        return (self.cls, obj.type)

    def upgrade(self, obj: Array, format: Any) -> Dumper:
        dumper = _ArrayDumper(self.cls, None)
        dumper.oid = _TYPES[obj.type].array_oid
        return dumper


def adapt(db: psycopg.Connection[Any]) -> None:
    """Send every number as bigint, whatever its size: a statement is prepared anew for other types."""
    for type, dumper in (
        (int, Int8BinaryDumper),
        (float, FloatBinaryDumper),
        (str, StrBinaryDumper),
        (bytes, BytesBinaryDumper),
        (Array, _ArrayDumper),
    ):
        db.adapters.register_dumper(type, dumper)


def rows_of(types: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The parameters for ``:rows``."""
    if len(rows) == 1:
        return list(rows[0])
    return [Array(type, column) for type, column in zip(types, zip(*rows, strict=True), strict=True)]


class Statement(NamedTuple):
    text: bytes
    names: tuple[str, ...]  # of its parameters, behind those of its rows


class Statements:
    """The statements for one schema. With ``clocked`` the time is a parameter, else it is the database's."""

    def __init__(self, schema: str, *, clocked: bool) -> None:
        self._schema = sql.Identifier(schema).as_string() + "."
        self._clocked = clocked
        self._queries = queries_of("postgres")
        self.named = cache(self._named)
        self.bulk = cache(self._bulk)
        self.batch = cache(self._batch)

    def types(self, name: str) -> tuple[str, ...]:
        return self._queries[name].rows

    def in_schema(self, text: str) -> str:
        return text.replace(SCHEMA, self._schema)

    def _named(self, name: str) -> Statement:
        return self._numbered(self._queries[name].sql, 0)

    def _bulk(self, name: str, many: bool) -> Statement:
        query = self._queries[name]
        return self._numbered(self._with_rows(name, many, 0), len(query.rows))

    def _with_rows(self, name: str, many: bool, start: int) -> str:
        query = self._queries[name]
        given = enumerate(query.rows, start + 1)
        if many:
            names = ", ".join(f"column{n}" for n in range(1, len(query.rows) + 1))
            rows = f"unnest({', '.join(f'${n}::{type}[]' for n, type in given)}) AS v ({names})"
        else:
            rows = f"(VALUES ({', '.join(f'${n}::{type}' for n, type in given)})) AS v"
        assert _ROWS in query.sql
        return query.sql.replace(_ROWS, rows)

    def _numbered(self, text: str, start: int) -> Statement:
        names: list[str] = []

        def number(found: re.Match[str]) -> str:
            if found[1] == "now_ms" and not self._clocked:
                return _CLOCK
            if found[1] not in names:
                names.append(found[1])
            return f"${start + names.index(found[1]) + 1}"

        lists = re.sub(r"\bIN \((:\w+)\)", r"= ANY(\1)", text)
        # The schema comes last: its name may be anything.
        return Statement(self.in_schema(_NAME.sub(number, lists)).encode(), tuple(names))

    def _batch(self, creates: int, appends: int, finishes: int) -> Statement:
        """One statement for a batch that has none (0), one (1) or many (2) of each. It returns what it did: rows of a
        letter and what the store asks for."""
        parts: list[str] = []
        told: list[str] = []
        start = 0

        def add(alias: str, name: str, many: bool, returning: str = "") -> None:
            nonlocal start
            parts.append(f"{alias} AS ({self._with_rows(name, many, start)}{returning})")
            start += len(self.types(name))

        if creates:
            add("created", "create", creates > 1)
            parts.append(f"claimed AS ({self._queries['record_claims'].sql})")
            told.append("SELECT 'c', no, id, lease_until_ms, created_ms, due_ms FROM created")
            told.append(_told_if("FROM created WHERE owner IS NULL"))
        if appends or finishes:
            parts.append(f"locked AS ({self._queries['lock' if finishes else 'share'].sql})")
        if appends:
            add("appended", "append_many", appends > 1, "\nRETURNING 1")
            told.append("SELECT 'a', count(*), NULL, NULL, NULL, NULL FROM appended")
        if finishes:
            add("finished", "finish", finishes > 1)
            told.append("SELECT 'f', count(*), NULL, NULL, NULL, NULL FROM finished")
            told.append(_told_if("FROM finished WHERE due_ms = 0 AND status IN ('queued', 'running', 'waiting')"))
        return self._numbered("WITH " + ",\n".join(parts) + "\n" + "\nUNION ALL ".join(told), start)


def _told_if(rows: str) -> str:
    """Tell those who listen, once, if there are such rows: to be told makes transactions commit one after the other."""
    return f"(SELECT 'n', NULL, CAST(pg_notify(:channel, '') AS TEXT), NULL, NULL, NULL {rows} LIMIT 1)"


def values(names: Iterable[str], given: Mapping[str, Any]) -> list[Any]:
    return [given[name] for name in names]


@lru_cache(maxsize=8)
def statements(schema: str, clocked: bool) -> Statements:
    return Statements(schema, clocked=clocked)
