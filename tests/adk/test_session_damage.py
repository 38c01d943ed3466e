"""A byte of a session's rows changes: what is read is refused by name, or it is what was written."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from adk_services import NAMES, event, our_service
from google.adk.sessions.session import Session

from holdfast.errors import HoldfastError

SEED = random.SystemRandom().randrange(1_000_000)


def written(path: Path) -> Session:
    """A session beside another, with state of every kind."""

    async def write() -> Session:
        async with our_service(str(path)) as service:
            session = await service.create_session(**NAMES, session_id="s", state={"n": 1, "app:rate": 2})
            for n in range(3):
                await service.append_event(session, event(f"{n}", state={"n": n, "user:u": n}, invocation_id="i"))
            other = await service.create_session(app_name="loans", user_id="v", session_id="s")
            await service.append_event(other, event("another's", state={"own": 1}, invocation_id="j"))
            return session

    return asyncio.run(write())


def read(path: Path) -> tuple[Any, ...] | None:
    async def look() -> tuple[Any, ...] | None:
        async with our_service(str(path)) as service:
            found = await service.get_session(**NAMES, session_id="s")
            return None if found is None else (found.events, found.state, found.last_update_time)

    return asyncio.run(look())


COLUMNS = [
    *(("dialog", column) for column in ("no", "app", "user_id", "id", "seq", "at", "turns", "checksum")),
    *(("dialog_event", column) for column in ("dialog_no", "seq", "turn", "at", "data", "checksum")),
    *(("shared", column) for column in ("owner", "key", "value", "checksum")),
]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_nothing_is_believed_that_was_changed(table: str, column: str, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    session = written(path)
    whole = read(path)
    assert whole == (session.events, session.state, session.last_update_time)
    chance = random.Random(SEED)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        # The other session's rows come last: only those of the session at hand, and what it shares, are changed.
        rows = db.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid").fetchall()
        for rowid, held in rows[:-1] if table != "shared" else rows[:3]:
            neat = held.replace(b"agent", b"agenT") if column == "data" else b"7" if column == "value" else "x"
            for changed in (_flipped(held, chance), neat, 1.5, b"\xff"):
                if changed in (held, None):
                    continue
                try:
                    db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, rowid))
                except sqlite3.Error:
                    continue  # a key of the table takes not everything
                found = _refused_or(path)
                at = changed if column in ("no", "dialog_no") and isinstance(changed, int) else rowid
                moved = at if column == "no" else rowid
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (held, moved))
                if table == "shared" and column == "owner" and found is not None and found != "refused":
                    # A key that is nobody's any more is gone; it is not another's.
                    assert found[1].items() <= whole[1].items(), f"seed {SEED}: {changed!r}"
                elif table == "dialog" and column in ("app", "user_id", "id"):
                    assert found in (None, "refused"), f"seed {SEED}: {changed!r}"
                else:
                    assert found in ("refused", whole), f"seed {SEED}: {table}.{column} {held!r} -> {changed!r}"
    assert read(path) == whole


def _refused_or(path: Path) -> Any:
    try:
        return read(path)
    except HoldfastError:
        return "refused"


def _flipped(held: Any, chance: random.Random) -> Any:
    if isinstance(held, int):
        return held ^ 1 << chance.randrange(4)
    if isinstance(held, float):
        return held + 2.0 ** chance.randrange(4)
    data = bytearray(held.encode() if isinstance(held, str) else held)
    if not data:
        return None
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(7)
    return data.decode("utf-8", "replace") if isinstance(held, str) else bytes(data)
