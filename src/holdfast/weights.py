"""When a value is written whole again: when reading the changes since would cost more than reading the value."""

from __future__ import annotations

from typing import Any

from . import delta

SLACK = 1.25  # how much heavier than the value its changes may become
_LEAST = 1024  # bytes of changes that are not worth a look


class Weights:
    """How much was written of each key since it was last written whole."""

    __slots__ = ("_due", "_since", "over")

    def __init__(self) -> None:
        self._since: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self.over: set[str] = set()  # keys to be looked at

    def add(self, ops: dict[str, Any]) -> None:
        """These changes were written."""
        for key, op in ops.items():
            if op[0] in ("set", "del"):
                self._forget(key)
                continue
            since = self._since[key] = self._since.get(key, 0) + delta.weight(op)
            if since > self._due.get(key, _LEAST):
                self.over.add(key)

    def full(self, base: dict[str, Any], steps: dict[str, list[Any]], written: dict[str, Any]) -> dict[str, list[Any]]:
        """The keys that are to be written whole, with the digests of their values: those of ``base`` after ``steps``.
        ``written``: what is written of them now, which may be whole itself."""
        found: dict[str, list[Any]] = {}
        for key in sorted(self.over):
            self.over.discard(key)
            if key not in base or written.get(key, [""])[0] in ("set", "del"):
                continue
            value = delta.performed(base[key], steps[key]) if key in steps else base[key]
            self._due[key] = max(_LEAST, SLACK * delta.weight(value))
            if self._since[key] > self._due[key]:
                found[key] = [delta.digest(value, key), value]
        return found

    def forget(self, full: dict[str, list[Any]] | None) -> None:
        """These keys were written whole."""
        for key in full or ():
            self._forget(key)

    def _forget(self, key: str) -> None:
        self._since.pop(key, None)
        self._due.pop(key, None)
        self.over.discard(key)
