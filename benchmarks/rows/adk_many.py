"""Fifty sessions of ADK's that append at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.session import Session
from measure import Floor, Result, SQLiteFloor, figure, microseconds, ratios, rounded
from server import PostgresFloor, server

from adk import NAMES, Open, event, opened, ours, theirs_on_file, theirs_on_postgres

TITLE = "Fifty ADK sessions at once"
FLOOR = "The floor is what one connection inserts, 1 KB a row, each committed: rows a second."
HELD_BY = "What holds it: the Python of an event, most of it in ADK and pydantic; fifty of them share one interpreter."

SESSIONS = 50
Rounds: TypeAlias = tuple[list[float], list[float]]  # microseconds, of a row of the floor's and of an event beside it


def measure(folder: Path, quick: bool) -> Result:
    each = 2 if quick else 10
    ours_on_file = ours(str(folder / "ours.db"))
    found = {"SQLite": _measured(SQLiteFloor(folder / "floor.db"), ours_on_file, theirs_on_file(folder), each)}
    with server(folder) as url:
        found["PostgreSQL"] = _measured(PostgresFloor(url), ours(url), theirs_on_postgres(url), each)
    figures = []
    for database, sides in found.items():
        for whose, (floor_us, event_us) in sides.items():
            what, rates = f"{database}, events/s ÷ the floor's rows/s", ratios(floor_us, event_us)
            if whose == "ours":
                figures.append(figure(what, rates, target=1.0, at_least=True))
            else:
                figures.append(figure(f"{what}, {whose}", rates))
    raw = {f"{database} {whose}": rounded(us) for database, sides in found.items() for whose, (_, us) in sides.items()}
    return Result(figures, raw)


def _measured(floor: Floor, our: Open, theirs: Mapping[str, Open], each: int) -> dict[str, Rounds]:
    found = asyncio.run(_rounds(floor, {"ours": our, **theirs}, each))
    floor.close()
    return found


async def _rounds(floor: Floor, sides: Mapping[str, Open], each: int) -> dict[str, Rounds]:
    found: dict[str, Rounds] = {}
    floor.warm()
    for whose, make in sides.items():
        rounds, count = (11, each) if whose == "ours" else (3, 1)
        async with opened(make) as service:
            sessions = [await service.create_session(**NAMES, session_id=f"s{n}") for n in range(SESSIONS)]
            together = partial(_together, service, sessions, count)
            floor_us = []
            event_us = []
            for _ in range(rounds):
                floor_us.append(floor.mean_us(SESSIONS * count))
                event_us.append(await microseconds(together) / SESSIONS / count)
            found[whose] = (floor_us, event_us)
    return found


async def _together(service: BaseSessionService, sessions: list[Session], count: int) -> None:
    async def talk(session: Session) -> None:
        for n in range(count):
            await service.append_event(session, event(n, step=n))

    await asyncio.gather(*map(talk, sessions))
