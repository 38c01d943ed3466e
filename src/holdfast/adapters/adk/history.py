"""A session as one turn of an invocation sees it, from whichever service.

A turn that is gone through again finds the session as it was when the turn began: what it appended then is set aside,
and what it changed of the state is taken back, in memory only. Each event that comes about again is then met by the one
that is stored, so nothing is stored twice and state never goes back."""

from __future__ import annotations

import copy
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
from google.adk.sessions.session import Session

from holdfast import codec

from .values import plain

if TYPE_CHECKING:
    from .turn import Began, Turn

_TOLD = {"author", "branch", "content", "output", "error_code", "error_message", "actions", "isolation_scope"}
_TEMPORARY = "temp:"
_ABSENT = {"absent": True}


class TurnSessions(BaseSessionService):
    """``inner`` is the service of the app. Only the session of the turn is looked after; everything else passes."""

    def __init__(self, inner: BaseSessionService, turn: Turn) -> None:
        self._inner = inner
        self._turn = turn
        self._before: dict[str, Any] = {}  # the state when the turn began
        self._undone: set[str] = set()  # keys whose value from before is recorded
        self._stored: dict[bytes, deque[Event]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def create_session(self, **asked: Any) -> Session:
        session = await self._inner.create_session(**asked)
        if self._turn.is_about(session):
            self._begin(session)
        return session

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        again = self._turn.began
        session = await self._inner.get_session(
            app_name=app_name, user_id=user_id, session_id=session_id, config=None if again else config
        )
        if session is None or not self._turn.is_about(session):
            return session
        if again is not None:
            self._go_back(session, again)
        else:
            await self._turn.found(session)
            if config is not None:
                self._turn.seen = [event.id for event in session.events]
        self._begin(session)
        return session

    async def list_sessions(self, **asked: Any) -> ListSessionsResponse:
        return await self._inner.list_sessions(**asked)

    async def delete_session(self, **asked: Any) -> None:
        await self._inner.delete_session(**asked)

    async def get_user_state(self, **asked: Any) -> dict[str, Any]:
        return await self._inner.get_user_state(**asked)

    async def flush(self) -> None:
        await self._inner.flush()

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store the event, unless it is one that this turn stored before."""
        if event.partial or not self._turn.is_about(session):
            return await self._inner.append_event(session, event)
        waiting = self._stored.get(fingerprint(event)) if self._stored else None
        if waiting:
            self._turn.met.add(event.id)
            stored = waiting.popleft()
            self._apply_temp_state(session, event)
            return self._commit_event_to_session(session, stored)
        await self._turn.begin()
        await self._record_undo(event)
        return await self._inner.append_event(session, event)

    @property
    def unmet(self) -> list[Event]:
        """Events that are stored and have not come about again."""
        return [event for waiting in self._stored.values() for event in waiting]

    # -- before ----------------------------------------------------------------------------------------------

    def _begin(self, session: Session) -> None:
        self._before = copy.deepcopy(dict(session.state))
        self._turn.after = session.events[-1].id if session.events else None

    async def _record_undo(self, event: Event) -> None:
        """What the keys that an event sets were when the turn began, once for each, before the event is stored."""
        keys = [key for key in event.actions.state_delta if not key.startswith(_TEMPORARY) and key not in self._undone]
        if keys and self._turn.invocation is not None:
            self._undone.update(keys)
            before = {key: {"was": plain(self._before[key])} if key in self._before else _ABSENT for key in keys}
            await self._turn.invocation.note("undo", before)

    def _go_back(self, session: Session, began: Began) -> None:
        ids = [event.id for event in session.events]
        begins = ids.index(began.after) + 1 if began.after in ids else 0 if began.after is None else len(ids)
        kept: list[Event] = []
        for at, event in enumerate(session.events):
            # Of a new invocation every event is set aside: clocks that differ may have put it anywhere.
            if event.invocation_id == self._turn.invocation_id and (at >= begins or began.number == 0):
                self._stored.setdefault(fingerprint(event), deque()).append(event)
            elif at < begins and (began.seen is None or event.id in began.seen):
                kept.append(event)
        session.events[:] = kept
        self._undone = set(began.undo)
        for key, before in began.undo.items():
            if "was" in before:
                session.state[key] = before["was"]
            else:
                session.state.pop(key, None)


def fingerprint(event: Event) -> bytes:
    """The same for an event and for the one that comes about in its place when its turn is gone through again."""
    told: dict[str, Any] = json.loads(event.model_dump_json(include=_TOLD, exclude_none=True), parse_float=_number)
    actions = told.get("actions", {})
    delta = {key: value for key, value in actions.get("state_delta", {}).items() if not key.startswith(_TEMPORARY)}
    told["actions"] = {name: value for name, value in actions.items() if value} | {"state_delta": delta}
    told["path"] = event.node_info.path
    for part in (told.get("content") or {}).get("parts") or []:
        part.pop("part_metadata", None)  # which Vertex AI does not keep
        for kind in ("function_call", "function_response"):
            call = part.get(kind)
            if call and call.get("name", "").startswith("adk_request_"):  # ADK makes up an id for it each time
                part[kind] = {"name": call["name"]}
    for asked in ("requested_auth_configs", "requested_tool_confirmations"):
        if asked in told["actions"]:
            told["actions"][asked] = len(told["actions"][asked])
    return codec.fingerprint(json.dumps(told, sort_keys=True).encode())


def _number(text: str) -> float | int:
    """Vertex AI knows one kind of number, and gives 1 for what was 1.0."""
    number = float(text)
    return int(number) if number.is_integer() else number
