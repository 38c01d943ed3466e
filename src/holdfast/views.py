"""The state of a run, as each part of it sees it and changes it.

A value that nobody was handed is shared between views and never changed in place: a view costs what is handed out of
it, and what was set in it. What is handed out is a plain ``list`` or ``dict`` that its program may change at any time,
so it is copied first, and compared when the change is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

from . import delta
from .errors import StateConflict
from .state import Change, decode_change
from .store import Checkpoint
from .weights import Weights

_ABSENT: Any = object()


class View:
    """The state as one scope sees it. ``base`` is what it was when the scope began, and does not change while the scope
    lasts; ``overlaps``: whether other parts of the run may change the state meanwhile."""

    __slots__ = ("_base", "_changed", "_overlaps", "_own", "_values")

    def __init__(self, base: dict[str, Any], *, overlaps: bool = False) -> None:
        self._base = base
        self._overlaps = overlaps
        self._values: dict[str, Any] | None = None  # like the base, until something differs
        self._own: set[str] = set()  # keys whose value a program may hold: it is changed in place
        self._changed: dict[str, None] = {}  # keys that may differ from the base, in the order they came to it

    @property
    def current(self) -> dict[str, Any]:
        """The values, for reading only."""
        values = self._values
        return self._base if values is None else values

    def begin(self, *, alone: bool) -> View:
        """The view of a step that begins now. ``alone``: nothing else can change this view while the step runs."""
        if alone:
            return View(self.current)
        begun = dict(self.current)
        for key in self._own & begun.keys():
            begun[key] = delta.copy(begun[key])
        return View(begun, overlaps=True)

    def anew(self) -> View:
        """The view of another attempt of the same step."""
        return View(self._base, overlaps=self._overlaps)

    def change(self) -> dict[str, Any] | None:
        if self._values is None:
            return None
        return delta.diff(self._base, self._values, self._changed, overlaps=self._overlaps)

    # -- what programs do ------------------------------------------------------------------------------------

    def hand_out(self, key: str) -> Any:
        """The value of ``key``, which its program may change in place from now on. Raises ``KeyError``."""
        value = self.current[key]
        if key in self._own or delta.is_fixed(value):
            return value
        values = self._touched()
        value = values[key] = delta.copy_of_recorded(value)
        self._own.add(key)
        self._changed[key] = None
        return value

    def put(self, key: str, value: Any) -> None:
        self._touched()[key] = value
        self._own.add(key)
        self._changed[key] = None

    def remove(self, key: str) -> None:
        """Raises ``KeyError``."""
        del self._touched()[key]
        self._own.discard(key)
        self._changed[key] = None

    # -- what is delivered -----------------------------------------------------------------------------------

    def apply(self, change: Change, seq: int) -> None:
        """Make the change delivered with ``seq``; ``StateConflict`` if an overlapping part of the run changed the same
        key. Values that were handed out change in place."""
        if change.step:
            self.make(change.step)

    def make(self, ops: dict[str, Any]) -> None:
        """Change it so, as its own code would. Raises ``StateConflict``."""
        self._perform(delta.planned(self._touched(), ops))

    def _touched(self) -> dict[str, Any]:
        if self._values is None:
            self._values = dict(self._base)
        return self._values

    def _perform(self, plan: dict[str, list[Any]]) -> None:
        values = self._touched()
        delta.perform(values, {key: step for key, step in plan.items() if key in self._own})
        _replace(values, {key: step for key, step in plan.items() if key not in self._own})
        self._changed.update(dict.fromkeys(plan))


class ItemsView(View):
    """The state as each item of a map begins with it: as it was when the map began. What an item has changed is made
    in the view ``around`` the map."""

    __slots__ = ("_around",)

    def __init__(self, around: View) -> None:
        super().__init__(around.begin(alone=False).current, overlaps=True)
        self._around = around

    def begin(self, *, alone: bool) -> View:
        return self.anew()  # others are under way, or may be

    def apply(self, change: Change, seq: int) -> None:
        self._around.apply(change, seq)


class Carried(NamedTuple):
    """``body``: what the body has changed that no row carries; ``full``: whole values, in place of all changes before,
    of which there are too many to read, each with its digest."""

    body: dict[str, Any] | None
    full: dict[str, list[Any]] | None


_NOTHING = Carried(None, None)


class BodyView(View):
    """The live state of a run, changed by its body at any time. ``base`` is what the rows tell a reader of it.

    ``recorded`` are the rows this process began with; the body's changes they carry are made again by its code."""

    __slots__ = ("_chunks", "_recorded", "_steps", "_weights")

    def __init__(self, initial: dict[str, Any], recorded: list[Checkpoint], weights: Weights | None = None) -> None:
        super().__init__(initial)
        self._recorded = recorded
        self._chunks: list[Change] = []
        self._weights = weights or Weights()
        self._steps: dict[str, list[Any]] = {}  # how what is being carried is performed

    def _touched(self) -> dict[str, Any]:
        if self._values is None:
            self._values = dict(self._base)
            changes = [decode_change(row) for row in self._recorded if row.delta is not None and not row.scope]
            self._chunks = [change for change in changes if change.body or change.full]
            self._recorded = []
        return self._values

    def _read_on(self, delivered: int) -> None:
        """Make the recorded changes of the body that a reader makes before anything behind ``delivered``."""
        while self._chunks and self._chunks[0].after <= delivered:
            chunk = self._chunks.pop(0)
            if chunk.body:
                self._reader_performs(chunk.body, delta.planned(self._base, chunk.body, check=False))
                self._compare(chunk.body)
            self._weights.forget(chunk.full)

    def _reader_performs(self, ops: dict[str, Any], plan: dict[str, list[Any]]) -> None:
        _replace(self._base, plan)
        self._weights.add(ops)

    def _compare(self, keys: dict[str, Any]) -> None:
        """A reader's value of these keys may be another than the live one now."""
        values = self._touched()
        for key in keys:
            if values.get(key, _ABSENT) is not self._base.get(key, _ABSENT):
                self._changed[key] = None

    def apply(self, change: Change, seq: int) -> None:
        if self._values is not None:
            self._read_on(seq - 1)
        if change.step:
            self._deliver(change.step)
        self._weights.forget(change.full)

    def _deliver(self, ops: dict[str, Any]) -> None:
        base, values = self._base, self._values
        if values is None:
            self._reader_performs(ops, delta.planned(base, ops))
            return
        if all(values.get(key, _ABSENT) is base.get(key, _ABSENT) for key in ops):
            plan = delta.planned(base, ops)
            self._reader_performs(ops, plan)
            for key in plan:
                self._is_shared(key)
            return
        # A reader does not know yet what the body did since the last row, so it may decide otherwise about a
        # conflict than the live state does; the next chunk tells it the difference.
        conflict, live = None, {}
        try:
            live = delta.planned(values, ops)
        except StateConflict as found:
            conflict = found
        try:
            self._reader_performs(ops, delta.planned(base, ops))
        except StateConflict:
            pass
        self._perform(live)
        self._compare(ops)
        if conflict is not None:
            raise conflict

    def _is_shared(self, key: str) -> None:
        """The value of this key is that of a reader, and nobody was handed it."""
        values = self._touched()
        if key in self._base:
            values[key] = self._base[key]
        else:
            values.pop(key, None)
        self._own.discard(key)
        self._changed.pop(key, None)

    def carry(self, delivered: int) -> Carried:
        """What no row carries yet, after the outcome ``delivered``."""
        body: dict[str, Any] | None = None
        self._steps = {}
        if self._values is not None:
            self._read_on(delivered)
            if self._chunks:
                return _NOTHING  # recorded rows further on carry what the body is just doing again
            if self._changed:
                body = delta.diff(self._base, self._values, self._changed, overlaps=False)
            if body:
                self._steps = delta.planned(self._base, delta.copy(body), check=False)
        if body is None and not self._weights.over:
            return _NOTHING
        return Carried(body, self._weights.full(self._base, self._steps, body or {}) or None)

    def carried(self, chunk: Carried) -> None:
        """A row carries ``chunk`` now, which is what ``carry`` said last."""
        if chunk.body:
            self._reader_performs(chunk.body, self._steps)
            values = self._touched()
            for key in list(self._changed):
                if key not in self._own or key not in values or delta.is_fixed(values[key]):
                    self._is_shared(key)
        self._weights.forget(chunk.full)
        self._steps = {}


def _replace(values: dict[str, Any], plan: dict[str, list[Any]]) -> None:
    """Put new values in the place of those that nobody was handed."""
    for key, step in plan.items():
        if step[0] == "del":
            values.pop(key, None)
        else:
            values[key] = delta.performed(values.get(key), step)


class StateMapping(MutableMapping[str, Any]):
    """A state as programs see it. Keys are ``str``; values are plain ``list``, ``dict`` and what else the codec takes.
    Changes inside a value are seen."""

    __slots__ = ("_view",)
    _name = "session.state"

    def __init__(self, view: Callable[[], View]) -> None:
        self._view = view

    def __getitem__(self, key: str) -> Any:
        return self._view().hand_out(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a key of {self._name} is a str, got {key!r}")
        self._view().put(key, value)

    def __delitem__(self, key: str) -> None:
        self._view().remove(key)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._view().current))

    def __len__(self) -> int:
        return len(self._view().current)

    def __contains__(self, key: object) -> bool:
        return key in self._view().current

    def __repr__(self) -> str:
        return repr(self._view().current)
