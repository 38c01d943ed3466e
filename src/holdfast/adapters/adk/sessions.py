"""``HoldfastSessionService``: ADK's sessions, events and state in a holdfast store."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
from google.adk.sessions.session import Session
from typing_extensions import override

from holdfast import app
from holdfast.app import Holdfast
from holdfast.store import Dialog, DialogEvent, Extension, Store, is_text

from .abandoned import abandoned
from .invocation import Names
from .loading import last_event, load, load_all, load_user_state, revision_of_row, session_of
from .revision import Revision, advanced, encode_turns, marker_of, revision_of, turn_name
from .rows import event_data, shared_keys, state_of

T = TypeVar("T")

_Locks = weakref.WeakValueDictionary[tuple[str, str, str], asyncio.Lock]


class HoldfastSessionService(BaseSessionService):
    """ADK's sessions in a holdfast store.

    ``db_url`` is anything that ``holdfast.open`` takes: a path, ``sqlite:///…``, ``postgresql://…``, ``memory://``;
    None reads ``HOLDFAST_URL``. ``holdfast`` instead is one that is there already, and that whoever opened it closes.

    Any thread and event loop may use it, and any number of processes. When ``append_event`` returns, the event is
    durable together with what it set in the state of its session, user and app. Raises what ADK's own services raise,
    and besides ``StoreError`` if the store cannot be used and ``CodecError`` for what was damaged in it.
    """

    def __init__(self, db_url: str | os.PathLike[str] | None = None, *, holdfast: Holdfast | None = None) -> None:
        if db_url is not None and holdfast is not None:
            raise ValueError("HoldfastSessionService takes db_url= or holdfast=, not both: name one place")
        self._holdfast = holdfast if holdfast is not None else app.open(db_url)
        self._is_ours = holdfast is None
        self._lock = threading.Lock()
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Locks] = weakref.WeakKeyDictionary()

    @property
    def holdfast(self) -> Holdfast:
        """The ``Holdfast`` that the sessions are kept in."""
        return self._holdfast

    # -- reading -------------------------------------------------------------------------------------------

    @override
    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """The session with its events, or with the window of them that ``config`` asks for; None if there is none.

        A window keeps besides, ahead of the events asked for, those of the invocation that would be resumed: the last
        one whose root agent has not said that it ended. With ``num_recent_events=0`` there are no events at all.
        """
        return await self._read(load, app_name, user_id, session_id.strip(), config)

    @override
    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        return ListSessionsResponse(sessions=await self._read(load_all, app_name, user_id))

    @override
    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        return await self._read(load_user_state, app_name, user_id)

    async def abandoned(self) -> list[Names]:
        """The unfinished invocations of all apps in the store that nobody advances any more, oldest first: their
        process is dead, has let its lease lapse, or has let go of them. Each has ``app_name``, ``user_id``,
        ``session_id`` and ``invocation_id``. Not those that ended with an error, nor those that wait for an answer."""
        return await self._read(abandoned, self._holdfast.owner)

    async def _read(self, work: Callable[..., T], *given: Any) -> T:
        return await self._holdfast._read(work, self._holdfast._store, *given)

    # -- writing -------------------------------------------------------------------------------------------

    @override
    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        id = (session_id or "").strip() or platform_uuid.new_uuid()
        for what, name in (("app_name", app_name), ("user_id", user_id), ("session_id", id)):
            if not is_text(name):
                raise ValueError(f"{what} is {name!r}: no database holds text with NUL or a lone surrogate in it.")
        dialog = Dialog(app=app_name, user_id=user_id, id=id, at=platform_time.get_time())
        dialog.checksum = dialog.compute_checksum()
        session = await self._read(_open, dialog, state or {})
        if session is None:
            raise AlreadyExistsError(f"Session with id {id} already exists.")
        return session

    @override
    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        await self._read(_delete, app_name, user_id, session_id.strip())

    @override
    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event and what it sets, all or nothing; durable when it returns.

        Raises ``StaleSessionError`` if another has appended since ``session`` was loaded, and then nothing is written;
        ``SessionNotFoundError``."""
        if event.partial:
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        lock = self._lock_of(session)
        await lock.acquire()
        try:
            if session.events and session.events[-1].id == event.id and session.events[-1] == event:
                lock.release()
                return event  # delivered again
            revision = revision_of(session._storage_update_marker) or await self._revision(session)
            written = self._submit(session, event, revision, lock)
        except BaseException:
            lock.release()
            raise
        # Should the caller be cancelled here, the event is written all the same, and the session told of it.
        if not await written:
            await self._refuse(session)
        return event

    def _submit(self, session: Session, event: Event, revision: Revision, lock: asyncio.Lock) -> asyncio.Future[bool]:
        """Hand the event to the journal; the lock is released when its outcome is known."""
        loop = asyncio.get_running_loop()
        seq = revision.seq + 1
        turns = advanced(revision.turns, seq, event)
        next_one = _extension(session, event, revision._replace(seq=seq, turns=turns))
        written: asyncio.Future[bool] = loop.create_future()

        def done(verdict: bool | None, error: Exception | None) -> None:
            try:
                if verdict:
                    session.last_update_time = event.timestamp
                    session._storage_update_marker = marker_of(Revision(revision.no, seq, turns))
                    self._commit_event_to_session(session, event)
            except Exception as unexpected:  # the caller's state may be any mapping
                error = unexpected
            lock.release()
            if written.cancelled():
                return
            if error is not None:
                written.set_exception(error)
            else:
                written.set_result(bool(verdict))

        self._holdfast._journal.submit(next_one, loop, done)
        return written

    async def _revision(self, session: Session) -> Revision:
        """Of a session that came from elsewhere: the one of the row, unless the row has an event it does not know."""
        names = session.app_name, session.user_id, session.id.strip()
        revision, at, last = await self._read(_revision, *names)
        known = session.events[-1].id if session.events else None
        if at > session.last_update_time and last != known:
            raise _stale(session)
        return revision

    async def _refuse(self, session: Session) -> None:
        """It was not at the last event: say whether there are others, or no session any more."""
        await self._read(_revision, session.app_name, session.user_id, session.id.strip())
        raise _stale(session)

    def _lock_of(self, session: Session) -> asyncio.Lock:
        """One for each session and loop: tasks that share a ``Session`` object append in turn."""
        with self._lock:
            locks = self._locks.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
        return locks.setdefault((session.app_name, session.user_id, session.id), asyncio.Lock())

    # -- life ----------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the ``Holdfast`` behind it, if this service opened it."""
        if self._is_ours:
            await self._holdfast.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _open(store: Store, dialog: Dialog, state: dict[str, Any]) -> Session | None:
    no = store.open_dialog(dialog, shared_keys(dialog, state))
    if no is None:
        return None
    dialog.no = no
    found = store.dialog(dialog.app, dialog.user_id, dialog.id)
    return session_of(dialog, state_of(dialog, found.shared if found is not None else []), [], [])


def _delete(store: Store, app_name: str, user_id: str, id: str) -> None:
    if all(map(is_text, (app_name, user_id, id))):
        store.delete_dialog(app_name, user_id, id)


def _revision(store: Store, app_name: str, user_id: str, id: str) -> tuple[Revision, float, str | None]:
    """Of the row as it is now, when its last event was, and the id of that."""
    found = store.dialog(app_name, user_id, id)
    if found is None:
        raise SessionNotFoundError(f"Session {id} not found.")
    last = last_event(store, found.dialog)
    return revision_of_row(found.dialog), found.dialog.at, None if last is None else last.id


def _extension(session: Session, event: Event, revision: Revision) -> Extension:
    dialog = Dialog(app=session.app_name, user_id=session.user_id, id=session.id.strip(), at=event.timestamp)
    dialog.no, dialog.seq, dialog.turns = revision.no, revision.seq, encode_turns(revision.turns)
    dialog.checksum = dialog.compute_checksum()
    row = DialogEvent(dialog.no, dialog.seq, turn_name(event), event.timestamp, event_data(event))
    row.checksum = row.compute_checksum(dialog.owner)
    return Extension(dialog=dialog, event=row, shared=shared_keys(dialog, event.actions.state_delta))


def _stale(session: Session) -> StaleSessionError:
    return StaleSessionError(
        f"Session {session.id} has been modified in storage since it was loaded. Please reload the session before "
        "appending more events."
    )
