"""State and events as the store's rows hold them, and back; nothing is believed that is not as it was written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.adk.events.event import Event
from google.adk.sessions.state import State
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from holdfast.errors import CodecError
from holdfast.store import Dialog, DialogEvent, SharedKey, is_text, owner_of

log = logging.getLogger("holdfast")

_events = TypeAdapter(list[Event])


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
    for row in rows:
        if not _is_as_written(row, owner):
            raise _unreadable(dialog, row.seq, "its checksum does not match")
    try:
        return _events.validate_json(b"[" + b",".join([row.data for row in rows]) + b"]")
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        seq = rows[place[0]].seq if place and isinstance(place[0], int) else 0
        raise _unreadable(dialog, seq, str(error)) from error


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
