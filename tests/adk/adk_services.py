"""The services that the contract is told to: ours on each store, and ADK's own, as a check of the tests themselves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

from holdfast.adapters.adk import HoldfastSessionService

OURS = ("memory", "sqlite", "postgres")
THEIRS = ("adk memory", "adk database", "adk sqlite")
NAMES = {"app_name": "loans", "user_id": "u"}
_numbers = itertools.count()


def url_of(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """A store of our own, empty, that any number of services may be opened on."""
    if kind == "memory":
        return f"memory://adk-{next(_numbers)}"
    return str(request.getfixturevalue("postgres_url")) if kind == "postgres" else str(folder / "sessions.db")


def their_service(kind: str, folder: Path) -> BaseSessionService:
    if kind == "adk memory":
        return InMemorySessionService()
    path = folder / f"{next(_numbers)}.db"
    return (
        DatabaseSessionService(f"sqlite+aiosqlite:///{path}")
        if kind == "adk database"
        else SqliteSessionService(str(path))
    )


def our_service(url: str) -> HoldfastSessionService:
    return HoldfastSessionService(url)


def event(
    said: str = "", *, author: str = "agent", state: dict[str, Any] | None = None, end: bool = False, **more: Any
) -> Event:
    """``end``: the event that says, in resumable apps, that its agent has ended."""
    content = types.Content(role="model", parts=[types.Part(text=said)]) if said else None
    actions = EventActions(state_delta=state or {}, end_of_agent=end or None)
    return Event(author=author, content=content, actions=actions, **more)


def said(session: Session | None) -> list[str]:
    """What its events say, in their order."""
    assert session is not None
    return [each.content.parts[0].text or "" for each in session.events if each.content and each.content.parts]


async def talk(service: BaseSessionService, session: Session, *texts: str, **more: Any) -> None:
    for text in texts:
        await service.append_event(session, event(text, **more))
