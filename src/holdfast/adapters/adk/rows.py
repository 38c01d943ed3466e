"""State and events as the store's rows hold them, and back; nothing is believed that is not as it was written."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from google.adk.events.event import Event
from google.adk.sessions.state import State
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from holdfast.errors import CodecError
from holdfast.store import Dialog, DialogEvent, SharedKey, is_text, owner_of

log = logging.getLogger("holdfast")

MANY = 500  # events that are read without looking for garbage
_pausing = threading.Lock()
_paused = 0
_was_enabled = True


# -- state -------------------------------------------------------------------------------------------------


def shared_keys(dialog: Dialog, delta: Mapping[str, Any]) -> list[SharedKey]:
    """The rows of a change of state: ``app:`` and ``user:`` keys go to their owners, ``temp:`` ones nowhere."""
    rows = []
    for name, value in delta.items():
        if name.startswith(State.TEMP_PREFIX):
            continue
        owner, key = _owner_of(dialog, name)
        row = SharedKey(owner, _stored_key(key), _encode(value, f"the state of {_named(dialog)}, key {name!r}"))
        row.checksum = row.compute_checksum()
        rows.append(row)
    return rows


def state_of(dialog: Dialog, rows: Iterable[SharedKey]) -> dict[str, Any]:
    """The merged state of a session from its own rows, its user's and its app's."""
    prefixes = {owner_of(dialog.app): State.APP_PREFIX, owner_of(dialog.app, dialog.user_id): State.USER_PREFIX}
    return {prefixes.get(row.owner, "") + key: value for row in rows for key, value in (plain_key(row),)}


def plain_key(row: SharedKey) -> tuple[str, Any]:
    """Key and value of one row, the key without prefix. Raises ``CodecError`` if they are not as they were written."""
    named = f"key {row.key!r} of the state of {row.owner}"
    if not _is_as_written(row):
        raise CodecError(f"{named} is damaged: its checksum does not match. The row was left as it is.")
    try:
        key = json.loads(row.key) if row.key.startswith('"') else row.key
        return key, from_json(row.value)
    except ValueError as error:
        raise CodecError(f"{named} cannot be read ({error}). The row was left as it is.") from error


def _owner_of(dialog: Dialog, name: str) -> tuple[str, str]:
    if name.startswith(State.APP_PREFIX):
        return owner_of(dialog.app), name.removeprefix(State.APP_PREFIX)
    if name.startswith(State.USER_PREFIX):
        return owner_of(dialog.app, dialog.user_id), name.removeprefix(State.USER_PREFIX)
    return dialog.owner, name


def _stored_key(key: str) -> str:
    """Itself, or as JSON where no database could hold it, or it could be taken for that."""
    return key if is_text(key) and not key.startswith('"') else json.dumps(key)


def _encode(value: Any, what: str) -> bytes:
    try:
        return to_json(value)
    except Exception as error:  # whatever objects in a value raise when they are looked at
        log.warning("%s: not all of it is JSON, and what is not was kept as its representation: %s", what, error)
    try:
        return to_json(value, serialize_unknown=True)
    except Exception:
        return json.dumps(repr(value)).encode()


# -- events ------------------------------------------------------------------------------------------------


def event_data(event: Event) -> bytes:
    """The JSON that ADK's own services keep of an event."""
    try:
        return event.model_dump_json(exclude_none=True).encode()
    except Exception as error:  # whatever objects in an event raise when they are looked at
        log.warning("event %s: not all of it is JSON; what is not was kept as its representation: %s", event.id, error)
    plain = event.model_dump(exclude_none=True)
    return json.dumps(plain, default=_plain, ensure_ascii=False, skipkeys=True).encode("utf-8", "replace")


def _plain(held: Any) -> Any:
    try:
        return json.loads(to_json(held))
    except Exception:
        return repr(held)


def events_of(dialog: Dialog, rows: Sequence[DialogEvent]) -> list[Event]:
    """Raises ``CodecError``, naming the event, for one that is not as it was written."""
    owner = dialog.owner
    with _collecting_nothing() if len(rows) > MANY else nullcontext():
        return [_event_of(dialog, row, owner) for row in rows]


def _event_of(dialog: Dialog, row: DialogEvent, owner: str) -> Event:
    if not _is_as_written(row, owner):
        raise _unreadable(dialog, row.seq, "its checksum does not match")
    try:
        # One by one: a list of them would be one call, in which no other thread runs.
        return Event.model_validate_json(row.data)
    except ValidationError as error:
        raise _unreadable(dialog, row.seq, str(error)) from error


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Thousands of events are many more objects, none of them garbage: to look for some again and again takes as long
    as to make them."""
    global _paused, _was_enabled
    with _pausing:
        _was_enabled = gc.isenabled() if _paused == 0 else _was_enabled
        _paused += 1
        gc.disable()
    try:
        yield
    finally:
        with _pausing:
            _paused -= 1
            if _paused == 0 and _was_enabled:
                gc.enable()


def refuse_damaged(dialog: Dialog) -> None:
    if not _is_as_written(dialog):
        raise CodecError(f"{_named(dialog)} is damaged: the checksum of its row does not match. It was left as it is.")


def refuse_gaps(dialog: Dialog, rows: Sequence[DialogEvent], after: int) -> None:
    """``rows``: all of its events behind ``after``."""
    seqs = [row.seq for row in rows]
    if seqs != list(range(after + 1, dialog.seq + 1)):
        missing = sorted(set(range(after + 1, dialog.seq + 1)) - set(seqs))
        raise _unreadable(dialog, missing[0] if missing else seqs[-1], "events are missing, or come twice")


def _unreadable(dialog: Dialog, seq: int, why: str) -> CodecError:
    return CodecError(f"{_named(dialog)}, event {seq} cannot be read: {why}. The rows were left as they are.")


def _named(dialog: Dialog) -> str:
    return f"session {dialog.id!r} of {dialog.user_id!r} in {dialog.app!r}"


def _is_as_written(row: Dialog | DialogEvent | SharedKey, *more: Any) -> bool:
    try:
        return row.checksum == row.compute_checksum(*more)
    except (UnicodeEncodeError, OverflowError, TypeError):
        return False
