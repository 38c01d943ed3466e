"""The schema of a PostgreSQL store: looked at whenever a connection is made, set up where there is none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import TypeVar

import psycopg
from psycopg import sql

from holdfast.errors import StoreError
from holdfast.store.postgres_connect import LET_GO, Connection, connect
from holdfast.store.postgres_errors import explain
from holdfast.store.postgres_url import Address
from holdfast.store.queries import SCHEMA, Migration, read_migrations

T = TypeVar("T")

log = logging.getLogger("holdfast")

OLDEST_SERVER = 14  # older ones are not maintained any more

_MIGRATION_TABLE = """CREATE TABLE holdfast.migration (
    number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_ms bigint NOT NULL
)"""
_APPLIED = "SELECT number, checksum FROM holdfast.migration ORDER BY number"

Applied = list[tuple[int, str]]


def check(db: Connection, address: Address, *, first: bool) -> int:
    """See that the tables are those this release knows, set them up where there are none; the schema's number.

    ``first``: the server itself is looked at too. Raises ``StoreError``.
    """
    if first:
        _check_server(db, address)
    migrations = read_migrations("postgres")
    applied = applied_to(db, address.schema)
    if not applied:
        _set_up(db, address, migrations)
        applied = applied_to(db, address.schema)
    refuse_others(applied, migrations, address)
    if len(applied) < len(migrations):
        raise StoreError(
            f"{address.url}: its schema is number {len(applied)}, and this release of holdfast needs "
            f"{len(migrations)}: run `holdfast migrate` (it says with --print what it would do)."
        )
    return len(applied)


def applied_to(db: Connection, schema: str) -> Applied:
    """The migrations that were applied; none where there is no schema yet, or an empty one."""
    try:
        return db.execute(in_schema(_APPLIED, schema).encode()).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return []


def refuse_others(applied: Applied, migrations: list[Migration], address: Address) -> None:
    """Refuse a schema that this release does not know."""
    if len(applied) > len(migrations):
        raise newer(address, len(applied), len(migrations))
    for (number, checksum), migration in zip(applied, migrations, strict=False):
        if (number, checksum) != (migration.number, migration.checksum):
            raise StoreError(
                f"{address.url}: its migration {number} is not the one this holdfast has ({migration.name} "
                "was edited after it had been applied). Reinstall holdfast; the database was left as it is."
            )


def newer(address: Address, found: int, known: int) -> StoreError:
    return StoreError(
        f"{address.url} was migrated by a newer holdfast (its schema is number {found}, this release knows {known}): "
        "upgrade holdfast, and start this process anew. Nothing was written."
    )


def in_schema(text: str, schema: str) -> str:
    return text.replace(SCHEMA, sql.Identifier(schema).as_string() + ".")


def missing(address: Address) -> tuple[int, list[Migration], str]:
    """The number the schema has, the migrations it lacks, and those as one transaction. Changes nothing."""
    known = read_migrations("postgres")

    def look(db: Connection) -> Applied:
        applied = applied_to(db, address.schema)
        refuse_others(applied, known, address)
        return applied

    applied = len(_apart(address, look))
    return applied, known[applied:], script(address.schema, known[applied:], new=not applied) if known[applied:] else ""


def migrate(address: Address) -> list[Migration]:
    """Apply what is missing; what this call applied."""
    return _apart(address, lambda db: apply(db, address, read_migrations("postgres")))


def _apart(address: Address, work: Callable[[Connection], T]) -> T:
    """On a connection of its own, which no store has looked at."""
    try:
        with closing(connect(address, address.libpq)) as db:
            _check_server(db, address)
            return work(db)
    except psycopg.Error as error:
        raise explain(address, error) from error


def script(schema: str, migrations: list[Migration], *, new: bool) -> str:
    """What has to be executed to apply migrations, as one transaction."""
    name = sql.Identifier(schema).as_string()
    parts = [f"SELECT pg_advisory_xact_lock({lock_of(schema)})"]
    if new:
        parts += [f"CREATE SCHEMA IF NOT EXISTS {name}", in_schema(_MIGRATION_TABLE, schema)]
    for migration in migrations:
        parts.append(in_schema(migration.sql, schema).strip().rstrip(";"))
        parts.append(
            in_schema("INSERT INTO holdfast.migration VALUES ", schema)
            + f"({migration.number}, '{migration.name}', '{migration.checksum}', "
            "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT))"
        )
    return "BEGIN;\n" + ";\n".join(parts) + ";\nCOMMIT;\n"


def lock_of(schema: str) -> int:
    """The number of the lock that migrations of this schema hold."""
    return number_of(schema, "migration")


def number_of(*words: str) -> int:
    """An advisory lock's number for what words name."""
    return int.from_bytes(hashlib.sha256("\0".join(("holdfast", *words)).encode()).digest()[:8], "big", signed=True)


def apply(db: Connection, address: Address, migrations: list[Migration]) -> list[Migration]:
    """Bring the schema to the newest, all or nothing, whoever else tries it now; what was applied."""
    schema = address.schema
    with db.transaction():
        db.execute(LET_GO, prepare=False)
        db.execute(b"SELECT pg_advisory_xact_lock($1)", (lock_of(schema),))
        # By the catalogue's rows, as they are now: a name is looked up in a cache that another's commit may be behind.
        there = db.execute(b"SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'migration'", (schema,))
        is_set_up = bool(there.fetchall())
        applied = applied_to(db, schema) if is_set_up else []
        refuse_others(applied, migrations, address)
        missing = migrations[len(applied) :]
        if not missing:
            return []
        if not is_set_up:
            _make_schema(db, schema)
        for migration in missing:
            db.execute(in_schema(migration.sql, schema).encode(), prepare=False)
            db.execute(
                in_schema(
                    "INSERT INTO holdfast.migration VALUES ($1::bigint::integer, $2, $3, "
                    "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT))",
                    schema,
                ).encode(),
                (migration.number, migration.name, migration.checksum),
            )
        return missing


def _make_schema(db: Connection, schema: str) -> None:
    # Not by IF NOT EXISTS: that asks for the right to create one where it is there already.
    if not db.execute(b"SELECT 1 FROM pg_namespace WHERE nspname = $1", (schema,)).fetchall():
        db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)), prepare=False)
    db.execute(in_schema(_MIGRATION_TABLE, schema).encode(), prepare=False)


def _set_up(db: Connection, address: Address, migrations: list[Migration]) -> None:
    try:
        if apply(db, address, migrations):
            log.info("%s: set up in schema %s", address.url, address.schema)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"{address.url}: there is no schema {address.schema}, and the role of this URL may not create it: run "
            f"`holdfast migrate --store URL` as one that may, or have this executed ({_first_line(error)}):\n\n"
            f"{script(address.schema, migrations, new=True)}"
        ) from error
    except psycopg.errors.DuplicateTable as error:
        raise StoreError(
            f"{address.url}: the schema {address.schema} holds tables of another application: name another one in the "
            f"URL, ?schema=…, holdfast makes it. Nothing was changed. ({_first_line(error)})"
        ) from error


def _check_server(db: Connection, address: Address) -> None:
    version = db.info.server_version // 10_000
    if version < OLDEST_SERVER:
        raise StoreError(
            f"{address.url}: the server is PostgreSQL {version}; holdfast needs {OLDEST_SERVER} or newer: upgrade it."
        )
    encoding = db.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"{address.url}: the database stores text as {encoding}, which cannot hold every id and name: create one "
            "with `createdb --encoding=UTF8 --template=template0`."
        )
    ((waits,),) = db.execute(b"SELECT current_setting('synchronous_commit')")
    if waits == "off":
        _warn(address.url)


@cache
def _warn(url: str) -> None:
    log.warning(
        "%s: synchronous_commit is off for this role: a crash of the server can lose steps that were said to be done. "
        "ALTER ROLE … SET synchronous_commit TO on",
        url,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
