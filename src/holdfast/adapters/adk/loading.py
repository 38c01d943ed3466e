"""Sessions read from the store: in the reader's thread, at one moment, as much of the events as was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.adk.events.event import Event
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session

from holdfast.errors import CodecError
from holdfast.store import Dialog, Store, owner_of

from .revision import Revision, Turn, decode_turns, marker_of, unfinished
from .rows import events_of, plain_key, refuse_damaged, refuse_gaps, state_of

PAGE = 500  # sessions that one statement lists


def load(store: Store, app: str, user_id: str, id: str, config: GetSessionConfig | None) -> Session | None:
    while (found := store.dialog(app, user_id, id)) is not None:
        dialog = found.dialog
        refuse_damaged(dialog)
        turns = _turns_of(dialog)
        try:
            events = _window(store, dialog, turns, config)
        except CodecError:
            now = store.dialog(app, user_id, id)
            if now is not None and now.dialog.no == dialog.no:
                raise
            continue  # it was deleted while its events were read
        return session_of(dialog, state_of(dialog, found.shared), events, turns)
    return None


def _window(store: Store, dialog: Dialog, turns: list[Turn], config: GetSessionConfig | None) -> list[Event]:
    after = _start(store, dialog, config)
    if after is None:
        return []
    rows = store.dialog_events(dialog.no, after=after, until=dialog.seq)
    refuse_gaps(dialog, rows, after)
    kept = unfinished(turns)
    if kept is not None and kept.first <= after:
        until = min(after, kept.last)
        rows = store.dialog_events(dialog.no, after=kept.first - 1, until=until, turn=kept.invocation) + rows
    return events_of(dialog, rows)


def _start(store: Store, dialog: Dialog, config: GetSessionConfig | None) -> int | None:
    """Behind which event the window begins; None for no events at all."""
    if config is None:
        return 0
    if config.num_recent_events == 0:
        return None
    after = 0
    if config.after_timestamp is not None:
        after = store.last_before(dialog.no, config.after_timestamp, until=dialog.seq)
    if config.num_recent_events is not None:
        after = max(after, dialog.seq - config.num_recent_events)
    return after


def session_of(dialog: Dialog, state: dict[str, Any], events: list[Event], turns: list[Turn]) -> Session:
    session = Session(id=dialog.id, app_name=dialog.app, user_id=dialog.user_id, state=state)
    session.events = events
    session.last_update_time = dialog.at
    session._storage_update_marker = marker_of(Revision(dialog.no, dialog.seq, turns))
    return session


def load_all(store: Store, app: str, user_id: str | None) -> list[Session]:
    """Without their events, oldest update first."""
    sessions: list[Session] = []
    after = ("", "")
    while page := store.dialogs(app, user_id, after=after, limit=PAGE):
        after = (page[-1].user_id, page[-1].id)
        sessions += _with_state(store, app, page)
    return sorted(sessions, key=lambda session: (session.last_update_time, session.user_id, session.id))


def _with_state(store: Store, app: str, page: list[Dialog]) -> Iterable[Session]:
    users = {dialog.user_id: owner_of(app, dialog.user_id) for dialog in page}
    rows: dict[str, list[Any]] = {}
    for row in store.shared([owner_of(app), *users.values(), *(dialog.owner for dialog in page)]):
        rows.setdefault(row.owner, []).append(row)
    for dialog in page:
        refuse_damaged(dialog)
        own = [row for owner in (dialog.owner, users[dialog.user_id], owner_of(app)) for row in rows.get(owner, ())]
        yield session_of(dialog, state_of(dialog, own), [], _turns_of(dialog))


def load_user_state(store: Store, app: str, user_id: str) -> dict[str, Any]:
    return dict(plain_key(row) for row in store.shared([owner_of(app, user_id)]))


def last_event(store: Store, dialog: Dialog) -> Event | None:
    rows = store.dialog_events(dialog.no, after=dialog.seq - 1, until=dialog.seq)
    return events_of(dialog, rows)[0] if rows else None


def revision_of_row(dialog: Dialog) -> Revision:
    refuse_damaged(dialog)
    return Revision(dialog.no, dialog.seq, _turns_of(dialog))


def _turns_of(dialog: Dialog) -> list[Turn]:
    return decode_turns(dialog.turns, f"session {dialog.id!r}")
