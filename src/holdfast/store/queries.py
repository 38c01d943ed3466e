"""The statements of ``queries.sql`` by name, and the schema's migrations in their order."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).parent


class Migration(NamedTuple):
    number: int
    name: str
    checksum: str
    sql: str


def read_queries(text: str) -> dict[str, str]:
    """Split a file of statements at its ``-- name: xyz`` lines; what stands before the first is prose."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    names, bodies = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError("queries.sql holds two statements of one name")
    # Comments are for readers of the file: the text sent is what the statement cache has to hash and compare.
    return {
        name: "\n".join(line for line in body.splitlines() if line and not line.startswith("--"))
        for name, body in zip(names, bodies, strict=True)
    }


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


QUERIES = read_queries((_HERE / "queries.sql").read_text(encoding="utf-8"))
