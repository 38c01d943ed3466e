"""The schema on PostgreSQL: set up once by however many, migrated by one command, and noticed by those who run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast.errors import StoreError
from holdfast.store import migrating, open_store, postgres_schema, sqlite_file
from holdfast.store.queries import Migration, read_migrations
from holdfast.testing.store_suite import append, at_once, checkpoint, create

SCHEMA = Path(postgres_schema.__file__).parent / "schema"


def ask(url: str, text: str) -> list[Any]:
    server, _, schema = url.partition("?schema=")
    with psycopg.connect(server, autocommit=True) as db:
        return db.execute(text.replace("holdfast.", f"{schema}.").encode()).fetchall()


def with_second(monkeypatch: pytest.MonkeyPatch, text: str = "ALTER TABLE holdfast.run ADD COLUMN extra text") -> None:
    """From here on the release knows a second migration."""

    def read(dialect: str) -> list[Migration]:
        sql = text if dialect == "postgres" else text.replace("holdfast.", "")
        second = Migration(2, "second", hashlib.sha256(sql.encode()).hexdigest(), sql)
        return [*read_migrations(dialect), second]

    for module in (postgres_schema, sqlite_file):
        monkeypatch.setattr(module, "read_migrations", read)


def test_a_released_migration_is_never_edited() -> None:
    """Add a file instead: stores out there have recorded these checksums."""
    assert [(m.number, m.checksum[:16]) for m in read_migrations("postgres")] == [(1, "44b81ed5840f95f4")]


def test_both_dialects_have_the_same_tables_and_columns(postgres_url: str, tmp_path: Path) -> None:
    import apsw

    migrating.migrate(postgres_url)
    migrating.migrate(tmp_path / "a.db")
    schema = postgres_url.partition("schema=")[2]
    columns = "SELECT table_name, column_name, is_nullable = 'NO' FROM information_schema.columns WHERE table_schema = "
    found = ask(postgres_url, f"{columns}'{schema}'")
    theirs = {(table, column): fixed for table, column, fixed in found if table != "migration"}
    db = apsw.Connection(str(tmp_path / "a.db"))
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    ours = {
        (table, column): bool(fixed or primary)
        for table in tables
        if table not in ("migration", "sqlite_sequence")
        for _, column, _, fixed, _, primary in db.execute(f"PRAGMA table_info({table})")
    }
    assert ours == theirs
    db.close()


def test_many_threads_set_one_schema_up(postgres_url: str) -> None:
    stores = [open_store(postgres_url) for _ in range(8)]
    at_once(8, lambda n: create(stores[n], f"r{n}"))
    assert ask(postgres_url, "SELECT number FROM holdfast.migration") == [(1,)]
    assert len(stores[0].runs(status=None, workflow=None, limit=99, after=None)) == 8
    for store in stores:
        store.close()


def test_many_processes_set_one_schema_up(postgres_url: str) -> None:
    program = (
        "import sys\nfrom holdfast.store import open_store\nfrom holdfast.testing.store_suite import create\n"
        "store = open_store(sys.argv[1])\nsys.stdin.readline()\ncreate(store, sys.argv[2])\nstore.close()"
    )
    command = [sys.executable, "-c", program, postgres_url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    processes = [subprocess.Popen([*command, f"r{n}"], stdin=subprocess.PIPE, env=environment) for n in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.wait(60) for process in processes] == [0] * 6
    assert ask(postgres_url, "SELECT count(*) FROM holdfast.run") == [(6,)]


def test_an_older_schema_is_migrated_by_the_command_alone(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(postgres_url)
    (run,) = create(store, "a")
    with_second(monkeypatch)
    assert append(store, checkpoint(run.no, 1)) == set(), "who is connected goes on"
    late = open_store(postgres_url)
    with pytest.raises(
        StoreError, match="its schema is number 1, and this release of holdfast needs 2: run `holdfast migrate`"
    ):
        late.get("a")
    found = migrating.missing(postgres_url)
    assert found.applied == 1 and [each.name for each in found.migrations] == ["second"]
    assert "ADD COLUMN extra" in found.sql and "CREATE SCHEMA" not in found.sql
    with ThreadPoolExecutor(3) as pool:
        applied = [each for some in pool.map(lambda _: migrating.migrate(postgres_url), range(3)) for each in some]
    assert [each.name for each in applied] == ["second"]
    assert migrating.missing(postgres_url).sql == "" and late.get("a") is not None
    store.close()
    late.close()


def test_the_printed_sql_does_the_same(new_schema: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed, applied = new_schema(), new_schema()
    for step in (lambda: None, lambda: with_second(monkeypatch)):
        step()
        with psycopg.connect(printed.partition("?")[0], autocommit=True) as db:
            db.execute(migrating.missing(printed).sql.encode())
        migrating.migrate(applied)
        assert migrating.missing(printed).migrations == [] == migrating.missing(applied).migrations
    rows = "SELECT number, name, checksum FROM holdfast.migration ORDER BY number"
    assert ask(printed, rows) == ask(applied, rows)
    objects = (
        "SELECT relname, relkind, (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid) "
        "FROM pg_class c WHERE relnamespace = '{}'::regnamespace ORDER BY relname"
    )
    assert [ask(url, objects.format(url.partition("schema=")[2])) for url in (printed,)] == [
        ask(url, objects.format(url.partition("schema=")[2])) for url in (applied,)
    ]


def test_a_migration_that_fails_leaves_nothing(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrating.migrate(postgres_url)
    with_second(monkeypatch, "CREATE TABLE holdfast.half (x int); CREATE TABLE holdfast.run (x int)")
    with pytest.raises(StoreError, match="already exists"):
        migrating.migrate(postgres_url)
    assert migrating.missing(postgres_url).applied == 1
    assert ask(postgres_url, "SELECT to_regclass('holdfast.half')") == [(None,)]


def test_a_newer_schema_and_an_edited_one_are_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        with_second(newer)
        migrating.migrate(postgres_url)
    for use in (lambda: open_store(postgres_url).get("a"), lambda: migrating.missing(postgres_url),
                lambda: migrating.migrate(postgres_url)):  # fmt: skip
        with pytest.raises(StoreError, match=r"schema is number 2, this release knows 1.*: upgrade holdfast"):
            use()
    ask(postgres_url, "UPDATE holdfast.migration SET checksum = 'x' WHERE number = 1 RETURNING 1")
    ask(postgres_url, "DELETE FROM holdfast.migration WHERE number = 2 RETURNING 1")
    with pytest.raises(StoreError, match="its migration 1 is not the one"):
        open_store(postgres_url).get("a")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_process_that_runs_while_the_tables_change_stops_writing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat notices, and from then on nothing is written; another release carries the run on."""
    url = str(tmp_path / "a.db") if kind == "sqlite" else request.getfixturevalue("postgres_url")
    store = open_store(url)
    (run,) = create(store, "a")
    assert store.renew("me", ttl_ms=1000) == {run.no}
    with monkeypatch.context() as newer:
        with_second(newer)
        assert [each.name for each in migrating.migrate(url)] == ["second"]
        for _ in range(2):
            with pytest.raises(StoreError, match=r"newer holdfast.*upgrade holdfast"):
                store.renew("me", ttl_ms=1000)
        with pytest.raises(StoreError, match="newer holdfast"):
            append(store, checkpoint(run.no, 1))
        with pytest.raises(StoreError, match="newer holdfast"):
            store.claim(run.no, 1, owner="me", ttl_ms=1000, lost=None)
        assert store.get("a") is not None, "what can be read is still read"
        fresh = open_store(url)
        taken = fresh.claim(run.no, 1, owner="new", ttl_ms=1000, lost="lapsed")
        assert taken is not None and append(fresh, checkpoint(run.no, 1, epoch=2)) == set()
        fresh.close()
    store.close()


def test_a_connection_made_anew_looks_at_the_schema_again(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(postgres_url)
    create(store, "a")
    with monkeypatch.context() as newer:
        with_second(newer)
        migrating.migrate(postgres_url)
    store.close()
    with pytest.raises(StoreError, match="upgrade holdfast"):
        create(store, "b")


def test_queries_use_their_indexes(postgres_url: str) -> None:
    """As many rows as make a scan dear, and the plans of what runs often."""
    from holdfast.store.postgres_rows import statements

    store = open_store(postgres_url)
    for part in range(10):
        create(store, *(f"r{part}-{n}" for n in range(300)), owner=None, status="queued", queue="q")
    store.close()
    known = statements(postgres_url.partition("schema=")[2], False)
    with psycopg.connect(postgres_url.partition("?")[0], autocommit=True, cursor_factory=psycopg.RawCursor) as db:
        db.execute(known.in_schema("ANALYZE holdfast.run").encode())

        def plan(name: str, *given: Any) -> str:
            text = b"EXPLAIN " + known.named(name).text
            return "\n".join(line for (line,) in db.execute(text, given))

        assert "run_id" in plan("run_of_id", "r1-1") and "run_pkey" in plan("run_of_no", 5)
        claiming = plan("claim_due", "q", ["review_loan"], 3, [""], "me", 10_000)
        assert "run_ready" in claiming and "run_pkey" in claiming and "Seq Scan" not in claiming, claiming
        assert "run_status" in plan("runs_of_status", "done", 10**9, None, 5)
        assert "run_owner" in plan("renew", "me", 1) or "run_owner" in plan("renew", 1, "me")
        assert "checkpoint_pkey" in plan("load", 1, 0, 10**9)
