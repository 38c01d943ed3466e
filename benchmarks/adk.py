"""Sessions of ADK that are long or big already, in our service and in ADK's own."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.session import Session
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

from holdfast.adapters.adk import HoldfastSessionService

NAMES = {"app_name": "bench", "user_id": "u"}
EVENTS = 10_000
KEYS = 1_000
KEY_BYTES = 10_000  # times KEYS are the 10 MB
ONE_KB = os.urandom(512).hex()[:900]  # an event with it is a row of about 1 KB
GROUP = 100  # of events that are appended at once while a session is filled


def event(place: int, **state: Any) -> Event:
    """One of a turn of ten events; the last of each ends it."""
    actions = EventActions(state_delta=state, end_of_agent=place % 10 == 9 or None)
    content = types.Content(role="model", parts=[types.Part(text=ONE_KB)])
    return Event(author="agent", invocation_id=f"turn-{place // 10}", content=content, actions=actions)


def big_state() -> dict[str, str]:
    return {f"key-{n}": os.urandom(KEY_BYTES // 2).hex() for n in range(KEYS)}


async def fill(service: BaseSessionService, session: Session, count: int) -> None:
    """Append so many events; ADK's own services, to which each is a transaction, are filled behind their backs."""
    if isinstance(service, DatabaseSessionService):
        schema = service._get_schema_classes()
        async with service.database_session_factory() as db:
            db.add_all([schema.StorageEvent.from_event(session, event(n)) for n in range(count)])
            await db.commit()
    elif isinstance(service, SqliteSessionService):
        await asyncio.to_thread(_fill_file, Path(service._db_path), session, count)
    else:
        for n in range(0, count, GROUP):
            await asyncio.gather(*(service.append_event(session, event(k)) for k in range(n, min(n + GROUP, count))))


def _fill_file(path: Path, session: Session, count: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        for each in map(event, range(count)):
            row = (each.id, "bench", "u", session.id, each.invocation_id, each.timestamp)
            data = json.dumps(each.model_dump(mode="json", exclude_none=True))
            db.execute("INSERT INTO events (id, app_name, user_id, session_id, invocation_id, timestamp, event_data) "
                       "VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, data))  # fmt: skip
        db.commit()


async def reloaded(service: BaseSessionService, id: str, *, window: int | None = None) -> Session:
    config = None if window is None else GetSessionConfig(num_recent_events=window)
    session = await service.get_session(**NAMES, session_id=id, config=config)
    assert session is not None
    return session


Open = Callable[[], BaseSessionService]


def ours(url: str) -> Open:
    return lambda: HoldfastSessionService(url)


def theirs_on_file(folder: Path) -> dict[str, Open]:
    return {
        "ADK's DatabaseSessionService": lambda: DatabaseSessionService(f"sqlite+aiosqlite:///{folder}/database.db"),
        "ADK's SqliteSessionService": lambda: SqliteSessionService(f"{folder}/sqlite.db"),
    }


def theirs_on_postgres(url: str) -> dict[str, Open]:
    plain = url.partition("://")[2]
    return {"ADK's DatabaseSessionService": lambda: DatabaseSessionService(f"postgresql+asyncpg://{plain}")}


@asynccontextmanager
async def opened(make: Open) -> AsyncIterator[BaseSessionService]:
    service = make()
    yield service
    close = getattr(service, "close", None)
    if close is not None:
        await close()
