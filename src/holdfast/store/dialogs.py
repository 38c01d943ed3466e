"""Conversations: sessions of agent frameworks, the events in them, and the state that several of them share.

They are no runs. A run belongs to one owner at a time, and its rows are fenced by an epoch; to a dialog anybody may
add, and what decides between two is the number of the event that each takes for the last one. Both are written by the
journal's thread (docs/design/adk.md).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec.msgpack import Encoder

from holdfast.errors import CodecError, HoldfastError, StoreError
from holdfast.store.refusing import Refused

_ENCODE = Encoder().encode

Verdict: TypeAlias = bool | HoldfastError


@lru_cache(maxsize=4096)
def owner_of(*names: str) -> str:
    """Whose keys in ``shared``: an app's, those of a user in it, or those of one dialog of that user. Any names give
    text that every store can hold."""
    return json.dumps(names, separators=(",", ":"))


class Dialog(msgspec.Struct, kw_only=True):
    """One conversation of a user with an app. ``no`` is the integer that stands for it in the table of its events, 0
    before it is opened; it is never given out again."""

    no: int = 0
    app: str
    user_id: str
    id: str
    seq: int = 0  # of its last event
    at: float  # seconds since the Unix epoch, by whoever wrote its last event, or opened it
    turns: bytes = b""  # what whoever writes the events keeps about them, see ``adapters.adk.revision``
    checksum: int = 0

    @property
    def owner(self) -> str:
        return owner_of(self.app, self.user_id, self.id)

    def compute_checksum(self) -> int:
        """CRC-32 over all but the number, which the checksums of its events depend on instead."""
        return zlib.crc32(_ENCODE((self.app, self.user_id, self.id, self.seq, self.at, self.turns)))


class DialogEvent(msgspec.Struct, gc=False):
    """One event. Unique by ``(dialog_no, seq)``; ``seq`` counts from 1, in the order of writing."""

    dialog_no: int
    seq: int
    turn: str  # which turn of the conversation it is part of; "" for none
    at: float  # seconds since the Unix epoch, by whoever wrote it
    data: bytes
    checksum: int = 0

    def compute_checksum(self, owner: str) -> int:
        """CRC-32 over the row and the names of its dialog: under another one it is not as it was written."""
        return zlib.crc32(_ENCODE((owner, self.dialog_no, self.seq, self.turn, self.at, self.data)))


class SharedKey(msgspec.Struct):
    """One key of the state of an app, a user or a dialog (see ``owner_of``)."""

    owner: str
    key: str
    value: bytes
    checksum: int = 0

    def compute_checksum(self) -> int:
        return zlib.crc32(_ENCODE((self.owner, self.key, self.value)))


class Extension(msgspec.Struct, kw_only=True):
    """The next event of a dialog, the dialog's row as it is with it, and the keys that it sets: all or nothing."""

    dialog: Dialog
    event: DialogEvent
    shared: list[SharedKey]


class Snapshot(NamedTuple):
    """A dialog as it is now, with the keys of its own, its user's and its app's state, read at one moment."""

    dialog: Dialog
    shared: list[SharedKey]


class Dialogs(Protocol):
    """What every store does for dialogs. Rows are given back unchecked: who uses one checks it."""

    def open_dialog(self, new: Dialog, shared: Sequence[SharedKey]) -> int | None:
        """Open a dialog and set keys, in one transaction. Its number; None if there is one of these names, and then
        nothing is written."""
        ...

    def extend(self, given: Sequence[Extension]) -> list[Verdict]:
        """Write events in one transaction; in several, where one is refused or a dialog has two. Called from the
        journal's thread.

        An event is written where its dialog's last one is the one before it (True), or where it stands already (True: a
        batch sent again after a lost connection). Else, or if the dialog is gone, nothing is written of it (False). An
        error says why the store cannot hold it. Of two that set one key the later one counts.
        Raises ``StoreError``, after which none of it may be taken for written."""
        ...

    def dialog(self, app: str, user_id: str, id: str) -> Snapshot | None: ...

    def dialogs(self, app: str, user_id: str | None, *, after: tuple[str, str] = ("", ""), limit: int) -> list[Dialog]:
        """Those of an app, or of one user in it, ordered by user and id, behind the user and id ``after``."""
        ...

    def shared(self, owners: Sequence[str]) -> list[SharedKey]:
        """All keys of these owners, ordered by owner and key."""
        ...

    def dialog_events(self, no: int, *, after: int = 0, until: int, turn: str | None = None) -> list[DialogEvent]:
        """The events with ``after < seq <= until`` in order of ``seq``; of one turn only, if it is named."""
        ...

    def last_before(self, no: int, at: float, *, until: int) -> int:
        """The ``seq`` of the last event, up to ``until``, that is older than ``at``; 0 if none is."""
        ...

    def delete_dialog(self, app: str, user_id: str, id: str) -> bool:
        """Delete a dialog, its events and its own keys. Whether there was one."""
        ...


def extended(given: Sequence[Extension], write: Callable[[Sequence[Extension]], set[int]]) -> list[Verdict]:
    """``write`` is given extensions of different dialogs, and returns the numbers of those that stand. What it refuses
    is sent again in halves, until what is refused is a single one."""
    return [verdict for part in _rounds(given) for verdict in _in_halves(part, write)]


def _rounds(given: Sequence[Extension]) -> Iterator[Sequence[Extension]]:
    start, seen = 0, set[int]()
    for place, each in enumerate(given):
        if each.dialog.no in seen:
            yield given[start:place]
            start, seen = place, set()
        seen.add(each.dialog.no)
    if seen:
        yield given[start:]


def _in_halves(given: Sequence[Extension], write: Callable[[Sequence[Extension]], set[int]]) -> list[Verdict]:
    try:
        written = write(given)
        return [each.dialog.no in written for each in given]
    except Refused as refused:
        if len(given) == 1:
            why = (CodecError if refused.for_good else StoreError)(str(refused))
            why.__cause__ = refused
            return [why]
    middle = len(given) // 2
    return _in_halves(given[:middle], write) + _in_halves(given[middle:], write)
