"""Which store a URL means, in the forms people already have them."""

from __future__ import annotations

import os
from typing import NamedTuple

from holdfast.errors import StoreError
from holdfast.store.postgres_url import SCHEMES, Address, parse_postgres

ACCEPTED = (
    "a path such as loans.db, sqlite:///relative.db, sqlite:////absolute/path.db, sqlite+aiosqlite:///…, "
    "memory:// (private) or memory://name (shared inside this process), "
    "postgresql://user:password@host/database"
)


class Target(NamedTuple):
    """``kind`` is "sqlite" (``place`` is a path), "memory" (``place`` is a name, or "") or "postgres" (an address).
    ``url`` is what may be shown."""

    kind: str
    place: str
    url: str
    address: Address | None = None


def parse_url(url: str | os.PathLike[str]) -> Target:
    text = os.fspath(url)
    if not isinstance(text, str):
        raise StoreError(f"A store is named by text, not by bytes ({text!r}). Accepted: {ACCEPTED}.")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _parse_path(text)
    scheme = scheme.lower()
    if scheme == "memory":
        return Target("memory", rest, f"memory://{rest}")
    if scheme in ("sqlite", "sqlite+aiosqlite"):
        return _parse_sqlite(text, rest)
    if scheme in SCHEMES:
        address = parse_postgres(text)
        return Target("postgres", "", address.url, address)
    raise StoreError(f"holdfast has no store for {scheme}:// URLs. Accepted: {ACCEPTED}.")


def _parse_path(text: str) -> Target:
    if text == ":memory:":
        raise _memory_advice()
    if not text or "\0" in text or text.startswith(("sqlite:", "file:", "memory:")):
        raise StoreError(f"{text!r} names no store. Accepted: {ACCEPTED}.")
    return Target("sqlite", text, f"sqlite:///{text}")


def _parse_sqlite(text: str, rest: str) -> Target:
    if rest in ("", "/", "/:memory:", ":memory:"):
        raise _memory_advice()
    if not rest.startswith("/"):
        raise StoreError(f"{text!r} has two slashes where a file needs three: sqlite:///{rest}.")
    path, question, _ = rest[1:].partition("?")
    if question or "\0" in path:
        raise StoreError(f"{text!r}: a SQLite store takes no parameters; write sqlite:///{path}.")
    return Target("sqlite", path, f"sqlite:///{path}")


def _memory_advice() -> StoreError:
    return StoreError(
        "A SQLite database in memory would be lost with its connection. For a store that lives as long as "
        "this process use memory:// (private) or memory://name (shared), else name a file."
    )
