"""The statements of ``queries.sql`` and ``dialogs.sql`` by name, for each dialect; the schema's migrations in order."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).parent
SCHEMA = "holdfast."  # before every table in our SQL


class Query(NamedTuple):
    """``rows`` are the types of the columns of its ``:rows``, if it has them."""

    sql: str
    rows: tuple[str, ...]


class Migration(NamedTuple):
    number: int
    name: str
    checksum: str
    sql: str


def read_queries(text: str, dialect: str) -> dict[str, Query]:
    """Split a file of statements at its ``-- name: xyz`` lines; what stands before the first is prose, and lists of
    columns that statements name. Those of other dialects are left out, and ``xyz/dialect`` stands for ``xyz``."""
    prose, *parts = re.split(r"^-- name: ([\w/]+)\n", text, flags=re.MULTILINE)
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError("queries.sql holds two statements of one name")
    columns = _columns(prose)
    found: dict[str, Query] = {}
    for name, body in zip(names, bodies, strict=True):
        plain, _, only = name.partition("/")
        if only in ("", dialect):
            # Comments are for readers of the file: the text sent is what the statement cache has to hash and compare.
            sql = "\n".join(line for line in body.splitlines() if line and not line.startswith("--"))
            found[plain] = Query(_with_columns(sql, columns), _row_types(body, found, columns))
    return found


def _columns(prose: str) -> dict[str, dict[str, str]]:
    """By the name of each list, the types of its columns by theirs."""
    lists: dict[str, dict[str, str]] = {}
    for name, listed in re.findall(r"^-- columns: (\w+)\n((?:--     .+\n)+)", prose, flags=re.MULTILINE):
        lists[name] = {}
        for column in re.sub(r"^--", "", listed, flags=re.MULTILINE).split(","):
            if (other := re.fullmatch(r"<(\w+)>", column.strip())) is not None:
                lists[name] |= lists[other[1]]
            else:
                own, type = column.split()
                lists[name][own] = type
    return lists


def _with_columns(sql: str, columns: dict[str, dict[str, str]]) -> str:
    return re.sub(r"<(\w+\.)?(\w+)>", lambda named: ", ".join((named[1] or "") + own for own in columns[named[2]]), sql)


def _row_types(body: str, known: dict[str, Query], columns: dict[str, dict[str, str]]) -> tuple[str, ...]:
    line = re.search(r"^-- rows: (?:as (\w+)|<(\w+)>|(.+))$", body, flags=re.MULTILINE)
    if line is None:
        return ()
    statement, listed, types = line.groups()
    if statement:
        return known[statement].rows
    return tuple(columns[listed].values() if listed else types.split())


@cache
def queries_of(dialect: str) -> dict[str, Query]:
    texts = ((_HERE / name).read_text(encoding="utf-8") for name in ("queries.sql", "dialogs.sql"))
    return {name: query for text in texts for name, query in read_queries(text, dialect).items()}


def read_migrations(dialect: str, folder: Path | None = None) -> list[Migration]:
    """The migrations of a dialect, ``NNNN_name.sql``, numbered from 1 without a gap."""
    found = []
    for path in sorted((folder or _HERE / "schema" / dialect).glob("*.sql")):
        number, _, name = path.stem.partition("_")
        data = path.read_bytes().replace(b"\r\n", b"\n")
        found.append(Migration(int(number), name, hashlib.sha256(data).hexdigest(), data.decode()))
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations of {dialect} are not numbered 1, 2, 3 …")
    return found
