"""``holdfast migrate``, on both kinds of stores."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from terminal import Terminal


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_is_migrated_once(terminal: Terminal, kind: str, request: pytest.FixtureRequest) -> None:
    store = ("--store", "new.db" if kind == "sqlite" else request.getfixturevalue("postgres_url"))
    printed = terminal.type("migrate", "--print", *store)
    assert printed.code == 0 and "CREATE TABLE" in printed.out and "COMMIT" in printed.out
    assert not Path(terminal.folder / "new.db").exists(), "printing makes nothing"
    machine = terminal.type("migrate", "--print", "--json", *store).object
    assert (machine["schema"], machine["newest"], machine["sql"]) == (0, 1, printed.out)
    assert terminal.type("migrate", *store).out == "applied 0001_runs_and_checkpoints\n"
    again = terminal.type("migrate", *store)
    assert again.code == 0 and "schema number 1, nothing is missing" in again.out
    assert terminal.type("migrate", "--json", *store).object["applied"] == []
    assert terminal.type("migrate", "--print", *store).out.startswith("-- ")
    assert terminal.type("list", *store).code == 0


def test_what_cannot_be_migrated(terminal: Terminal) -> None:
    assert "has no schema to migrate" in terminal.type("migrate", "--store", "memory://x").err
    (terminal.folder / "text.db").write_text("no database at all, but text")
    assert "is not a SQLite database" in terminal.type("migrate", "--store", "text.db").err


def test_runs_on_postgres_from_the_command_line(terminal: Terminal, postgres_url: str) -> None:
    store = ("--store", postgres_url)
    (terminal.folder / "mended").touch()
    done = terminal.type("run", "loans:pay", "A-1", "--id", "a", *store)
    assert done.code == 0 and "A-1 paid, 3 pages" in done.out, done
    listed = terminal.type("list", "--json", *store).object
    assert [run["id"] for run in listed["runs"]] == ["a"]
    assert terminal.type("show", "a", *store).code == 0
    missing = terminal.type("show", "b", "--store", postgres_url.replace("postgres@", "postgres:sesame@"))
    assert missing.code == 2 and "sesame" not in missing.err + missing.out
    with psycopg.connect(postgres_url.partition("?")[0], autocommit=True) as db:
        schema = postgres_url.partition("schema=")[2]
        db.execute(f"DROP TABLE {schema}.checkpoint".encode())
    lost = terminal.type("show", "a", *store)
    assert "does not have the tables holdfast made" in lost.err
