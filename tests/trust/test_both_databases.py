"""What rows were changed to, in either database: by hand on SQLite, and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString, cast

import apsw
import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from tests.torture.flips import HARMLESS, Flip, Text, as_sql, fill, flips_of, is_damage, sampled, told_of, wrongly_told

import holdfast
from holdfast.repairs import recorded
from holdfast.store import Store, open_store
from holdfast.testing.store_suite import claim, create, finish

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))


class Postgres:
    """The tables of one store, to be changed by hand."""

    def __init__(self, url: str) -> None:
        address, _, schema = url.partition("schema=")
        self._db: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            address.rstrip("?&"), autocommit=True, row_factory=dict_row
        )
        self._db.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))

    def ask(self, text: str) -> list[dict[str, Any]]:
        return self._db.execute(cast(LiteralString, text)).fetchall()

    def change(self, text: str, *given: Any) -> None:
        self._db.execute(cast(LiteralString, text), given)

    def close(self) -> None:
        self._db.close()


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Callable[[str], None]]]:
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        store = open_store(url)
        store.get("-")  # which makes the tables
        tables = Postgres(url)
        yield store, tables.change
        tables.close()
    else:
        store = open_store(tmp_path / "a.db")

        def change(text: str) -> None:
            db = apsw.Connection(str(tmp_path / "a.db"))
            db.execute(text)
            db.close()

        yield store, change
    store.close()


def test_a_run_whose_epoch_was_moved_back_is_claimed_by_nobody(
    opened: tuple[Store, Callable[[str], None]],
) -> None:
    """The fence is the epoch: an owner of one that comes again might still live."""
    store, change = opened
    for run in create(store, "a", "b", queue="q"):
        finish(store, run, "running")
        second = claim(store, run)
        assert second is not None
        finish(store, second, "running")
    change("UPDATE run SET epoch = 1 WHERE id = 'a'")
    damaged = store.get("a")
    assert damaged is not None and claim(store, damaged) is None
    taken = store.claim_due(
        "w", ttl_ms=1000, queue="q", workflows={"review_loan": None}, dead=(), limit=9, at_once=None
    )
    assert [each.row.id for each in taken] == ["b"], "nor is another one left lying because of it"
    change("UPDATE run SET epoch = 7 WHERE id = 'a'")
    ahead = store.get("a")
    assert ahead is not None
    found = recorded(store, ahead).damage
    assert found is not None and found.what == "it stands at epoch 7, and was claimed under 1, 2"


@pytest.mark.slow
def test_a_flipped_bit_of_postgresql_is_found_or_does_no_harm(postgres_url: str) -> None:
    print(f"HOLDFAST_SEED={SEED} draws the same again")

    async def main() -> None:
        async with holdfast.open(postgres_url, lease=1) as hf:
            await fill(hf, lambda: None)

    asyncio.run(main())
    tables = Postgres(postgres_url)
    told = told_of(postgres_url)
    wrong: list[str] = []
    flipped = 0
    for flip in sampled(list(flips_of(tables.ask)), SEED, 1):
        ((before, *_),) = [tuple(row.values()) for row in tables.ask(_held(flip))]
        try:
            tables.change(
                f"UPDATE {flip.table} SET {flip.column} = %s WHERE {_in_postgresql(flip.rowid)}", _given(flip)
            )
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.GeneratedAlways, UnicodeDecodeError):
            continue  # PostgreSQL has no such text, two rows of one key, or another number of a run
        flipped += 1
        now = told_of(postgres_url)
        wrong += [f"{flip}: {each}" for each in wrongly_told(told, now, flip.ids)]
        is_found_when_claimed = flip.place == ("run", "created_ms") and flip.ids == {"queued"}
        is_excused = flip.place in HARMLESS or flip.hides_last or is_found_when_claimed
        if not (is_excused or any(map(is_damage, now.values()))):
            wrong.append(f"{flip}: it is not found")
        tables.change(f"UPDATE {flip.table} SET {flip.column} = %s WHERE {_moved(flip)}", before)
    tables.close()
    assert flipped > 40 and not wrong, "\n\n".join(wrong[:3])


def _held(flip: Flip) -> str:
    return f"SELECT {flip.column} FROM {flip.table} WHERE {_in_postgresql(flip.rowid)}"


def _in_postgresql(condition: str) -> str:
    """Bytes are written otherwise than in SQLite."""
    return condition.replace("x'", r"'\x")


def _given(flip: Flip) -> Any:
    return bytes(flip.value).decode() if isinstance(flip.value, Text) else flip.value


def _moved(flip: Flip) -> str:
    """What names the row now that a part of its key may have been changed."""
    parts = flip.rowid.split(" AND ")
    moved = (
        f"{flip.column} = {as_sql(flip.value)}" if part.startswith(f"{flip.column} = ") else part for part in parts
    )
    return _in_postgresql(" AND ".join(moved))
