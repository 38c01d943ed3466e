"""The schema of a store, brought to what this release knows: what it lacks, and applying that."""

from __future__ import annotations

import os
from typing import NamedTuple

from holdfast.errors import StoreError
from holdfast.store.postgres_url import psycopg_needed
from holdfast.store.queries import Migration
from holdfast.store.urls import Target, parse_url


class Missing(NamedTuple):
    """``applied`` is the number a schema has (0: there is none yet); ``migrations`` is what it lacks, and ``sql`` the
    same as one transaction."""

    url: str
    applied: int
    migrations: list[Migration]
    sql: str


def missing(url: str | os.PathLike[str]) -> Missing:
    """Changes nothing. Raises ``StoreError``, also for a store that a newer release has migrated."""
    target = _with_schema(url)
    if target.address is not None:
        with psycopg_needed(target.url):
            from holdfast.store import postgres_schema
        applied, migrations, sql = postgres_schema.missing(target.address)
    else:
        from holdfast.store import sqlite_file

        applied, migrations, sql = sqlite_file.missing(target.place)
    return Missing(target.url, applied, migrations, sql)


def migrate(url: str | os.PathLike[str]) -> list[Migration]:
    """Apply what is missing, all of it or nothing, whoever else does so now. What this call applied."""
    target = _with_schema(url)
    if target.address is not None:
        with psycopg_needed(target.url):
            from holdfast.store import postgres_schema
        return postgres_schema.migrate(target.address)
    from holdfast.store import sqlite_file

    _, migrations, _ = sqlite_file.missing(target.place)
    if migrations:  # whoever opens a file migrates it
        try:
            sqlite_file.open_to_write(target.place, verify=True).close()
        except Exception as error:
            raise sqlite_file.explain(target.place, error) from error
    return migrations


def _with_schema(url: str | os.PathLike[str]) -> Target:
    target = parse_url(url)
    if target.kind == "memory":
        raise StoreError(f"{target.url}: a store in memory has no schema to migrate.")
    return target
