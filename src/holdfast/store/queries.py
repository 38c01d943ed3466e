"""The statements of ``queries.sql`` by name, for each dialect, and the schema's migrations in their order."""

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
    """Split a file of statements at its ``-- name: xyz`` lines; what stands before the first is prose. Those of other
    dialects are left out, and ``xyz/dialect`` stands for ``xyz``."""
    parts = re.split(r"^-- name: ([\w/]+)\n", text, flags=re.MULTILINE)
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError("queries.sql holds two statements of one name")
    found: dict[str, Query] = {}
    for name, body in zip(names, bodies, strict=True):
        plain, _, only = name.partition("/")
        if only in ("", dialect):
            # Comments are for readers of the file: the text sent is what the statement cache has to hash and compare.
            sql = "\n".join(line for line in body.splitlines() if line and not line.startswith("--"))
            found[plain] = Query(sql, _row_types(body, found))
    return found


def _row_types(body: str, known: dict[str, Query]) -> tuple[str, ...]:
    line = re.search(r"^-- rows: (as )?(.+)$", body, flags=re.MULTILINE)
    if line is None:
        return ()
    return known[line[2]].rows if line[1] else tuple(line[2].split())


@cache
def queries_of(dialect: str) -> dict[str, Query]:
    return read_queries((_HERE / "queries.sql").read_text(encoding="utf-8"), dialect)


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
