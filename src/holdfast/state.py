"""The durable mapping of a run, as each part of it sees it.

A step works on a view of its own: the state when it began and its own changes. They are recorded in its row and
applied all at once when its outcome is delivered, live and on recall by the same code. The workflow's own changes
between steps are made again by its code; rows carry them (as a chunk, tagged with the seq they came after) for
readers only."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec

from . import codec, delta
from .errors import CodecError, StateConflict
from .past import present
from .store import Checkpoint, RunRow


class Change(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What a row says of state: the step's own change, and the body's changes made after ``after`` was delivered.

    ``kept``: the row of an earlier attempt that its outcome, this change among it, was taken from; 0 if none."""

    step: dict[str, Any] | None = None
    body: dict[str, Any] | None = None
    after: int = 0
    kept: int = 0


def encode_change(change: Change, where: str) -> bytes | None:
    if not (change.step or change.body or change.kept):
        return None
    plain = {name: value for name, value in msgspec.structs.asdict(change).items() if value}
    try:
        return codec.encode(plain, codec.Types.none, where, root="state")
    except CodecError:
        for ops in (change.step or {}, change.body or {}):
            _blame(ops, where, "state")
        raise


def _blame(ops: dict[Any, Any], where: str, path: str) -> None:
    """Raise ``CodecError`` for the value in ``ops`` that cannot be stored, by the path its program knows it under."""
    for key, op in ops.items():
        here = f"{path}[{key!r}]"
        if op[0] == "merge":
            _blame(op[1], where, here)
        elif op[0] in ("set", "add"):
            codec.encode(op[-1], codec.Types.none, where, root=here)


def initial_state(row: RunRow) -> dict[str, Any]:
    """What the state was when the run was created. Raises ``CodecError``."""
    where = f"the initial state of {row.id!r}"
    held = codec.decode(row.state, codec.Types.none, where, root="state") if row.state else {}
    if type(held) is not dict:
        raise CodecError(f"{where} is no dict. The bytes are kept as they are.", path="state")
    return held


def decode_change(row: Checkpoint) -> Change:
    if row.delta is None:
        return Change()
    where = f"the state change of checkpoint {row.seq}"
    try:
        change = msgspec.convert(codec.decode(row.delta, codec.Types.none, where, root="state"), Change)
    except msgspec.ValidationError as error:
        raise CodecError(f"{where} cannot be read: {error}. It is kept as it is.", path="state") from None
    for ops in (change.step or {}, change.body or {}):
        delta.refuse_malformed(ops, where)
    return change


class View:
    """The state as one scope sees it. ``base`` is what it was when the scope began; it is copied on first touch."""

    __slots__ = ("_base", "_values")

    def __init__(self, base: dict[str, Any]) -> None:
        self._base = base
        self._values: dict[str, Any] | None = None

    @property
    def values(self) -> dict[str, Any]:
        values = self._values
        if values is None:
            values = self._values = delta.copy(self._base)
        return values

    @property
    def current(self) -> dict[str, Any]:
        """The values for reading only, without the copy that a first touch costs."""
        values = self._values
        return self._base if values is None else values

    def begin(self, *, alone: bool) -> View:
        """The view of a step that begins now. ``alone``: nothing else can change this view while the step runs."""
        return View(self.current if alone else delta.copy(self.current))

    def change(self) -> dict[str, Any] | None:
        return None if self._values is None else delta.diff(self._base, self._values)

    def apply(self, change: dict[str, Any], seq: int) -> None:
        """Make the change delivered with ``seq``, in place; ``StateConflict`` if an overlapping part of the run
        changed the same key.
        """
        delta.apply(self.values, change)


class BodyView(View):
    """The state as the workflow's own body sees it: the live state of the run.

    Beside it stands the state that a reader of the rows would arrive at, from the body's first touch on: before that
    the two are the same. ``recorded`` are the rows this process began with; the body's changes they carry are made
    again by its code."""

    __slots__ = ("_carried", "_chunks", "_recorded")

    def __init__(self, initial: dict[str, Any], recorded: list[Checkpoint]) -> None:
        super().__init__(initial)
        self._recorded = recorded
        self._carried: dict[str, Any] | None = None
        self._chunks: list[tuple[int, dict[str, Any]]] = []

    def touch(self) -> None:
        """The body is about to use the state; from now on it may change at any time."""
        if self._carried is None:
            self._carried = delta.copy(self.current)
            changes = [decode_change(row) for row in self._recorded if row.delta is not None and not row.scope]
            self._chunks = [(change.after, change.body) for change in changes if change.body]
            self._recorded = []

    def _read_on(self, delivered: int) -> None:
        """Make the recorded changes of the body that a reader makes before anything behind ``delivered``."""
        while self._chunks and self._chunks[0][0] <= delivered:
            assert self._carried is not None
            delta.apply(self._carried, self._chunks.pop(0)[1], check=False)

    def apply(self, change: dict[str, Any], seq: int) -> None:
        if self._carried is not None:
            # A reader does not know yet what the body did since the last row, so it may decide otherwise about a
            # conflict than the live state does; the next chunk tells it the difference.
            self._read_on(seq - 1)
            with suppress(StateConflict):
                delta.apply(self._carried, change)
        super().apply(change, seq)

    def carry(self, delivered: int) -> dict[str, Any] | None:
        """The body's changes that no row carries yet, after the outcome ``delivered``; None if there are none."""
        if self._carried is None:
            return None
        self._read_on(delivered)
        if self._chunks:
            return None  # recorded rows further on carry what the body is just doing again
        return delta.diff(self._carried, self.values)

    def carried(self, chunk: dict[str, Any]) -> None:
        """A row carries ``chunk`` now."""
        assert self._carried is not None
        delta.apply(self._carried, chunk, check=False)


def replay(initial: dict[str, Any], rows: Iterable[Checkpoint]) -> dict[str, Any]:
    """The state after the checkpoints ``rows``, as a reader arrives at it. What earlier attempts of the run made of the
    state is no part of it; ``initial`` is that of the last attempt."""
    events: list[tuple[int, int, int, dict[str, Any]]] = []
    for row in present(list(rows)):
        if row.delta is None or row.scope:
            continue
        change = decode_change(row)
        if change.step:
            events.append((row.seq, 0, 0, change.step))
        if change.body:
            events.append((change.after, 1, row.seq, change.body))
    state: dict[str, Any] = delta.copy(initial)
    for _, is_body, _, ops in sorted(events, key=lambda event: event[:3]):
        try:
            delta.apply(state, ops, check=not is_body)
        except StateConflict:
            if is_body:
                raise
    return state
