"""Which invocations of a session are unfinished, so that a window of its events never leaves out the one to be resumed.

Whoever appends an event knows all about the ones before it, or its append is refused. So this is worked out by the
writer, from the row of the session and the event alone, and kept in the row: no history is read for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from google.adk.events.event import Event
from msgspec.structs import replace

from holdfast.errors import CodecError
from holdfast.store import as_text

KEPT = 8  # invocations that are known of a session, the unfinished ones first


class Turn(msgspec.Struct, array_like=True, frozen=True):
    """One invocation: from its first event to its last. ``root`` is the agent that stands for all of it, "" as long as
    none has said anything."""

    invocation: str
    first: int
    last: int
    root: str
    ended: bool


class Revision(NamedTuple):
    """What a ``Session`` object knows of its row; as text it is the session's ``_storage_update_marker``."""

    no: int
    seq: int
    turns: list[Turn]


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(list[Turn])
_revision_decoder = msgspec.json.Decoder(Revision)


def encode_turns(turns: Sequence[Turn]) -> bytes:
    return _encode(turns) if turns else b""


def decode_turns(data: bytes, of: str) -> list[Turn]:
    try:
        return _decoder.decode(data) if data else []
    except msgspec.MsgspecError as error:
        raise CodecError(f"{of}: what is kept about its invocations cannot be read ({error}).") from error


def marker_of(revision: Revision) -> str:
    return _encode(revision).decode()


def revision_of(marker: str | None) -> Revision | None:
    """None for a marker that is none of ours: the session came from another service."""
    try:
        return None if marker is None else _revision_decoder.decode(marker)
    except msgspec.MsgspecError:
        return None


def turn_name(event: Event) -> str:
    return as_text(event.invocation_id)


def advanced(turns: list[Turn], seq: int, event: Event) -> list[Turn]:
    """The turns with one more event, the one last appended to at the end."""
    name, rewind = turn_name(event), event.actions.rewind_before_invocation_id
    if rewind:
        return _rewound(turns, as_text(rewind))
    if not name:
        return turns
    turn = next((each for each in turns if each.invocation == name), Turn(name, seq, seq, "", False))
    root = turn.root or _root_of(event)
    ended = bool(event.actions.end_of_agent) and root != "" and root == _speaker_of(event)
    kept = [each for each in turns if each.invocation != name]
    kept.append(replace(turn, last=seq, root=root, ended=ended))
    if len(kept) > KEPT:
        kept.remove(next((each for each in kept[:-1] if each.ended), kept[0]))
    return kept


def unfinished(turns: Sequence[Turn]) -> Turn | None:
    """The invocation that would be resumed: of those not known to have ended the one last appended to."""
    return next((turn for turn in reversed(turns) if not turn.ended), None)


def _rewound(turns: list[Turn], before: str) -> list[Turn]:
    """What has been taken back is not resumed."""
    first = next((turn.first for turn in turns if turn.invocation == before), None)
    return turns if first is None else [turn for turn in turns if turn.first < first]


def _root_of(event: Event) -> str:
    """Inside a workflow an event's path begins with the workflow; other agents speak for themselves."""
    if event.author == "user":
        return ""
    return as_text(event.node_info.path.partition("/")[0].partition("@")[0] or event.author)


def _speaker_of(event: Event) -> str:
    """Who has ended: an agent inside a workflow has a path below it."""
    return as_text(event.author) if "/" not in event.node_info.path else ""
