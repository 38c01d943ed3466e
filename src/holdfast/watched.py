"""The locals that were bound before a loop whose finished turns are skipped: a turn must not change them.

``total += x`` over ten turns gives 45 the first time and 30 where a resume skips the first six, without an error. So a
turn that rebinds such a local, or resizes the container it holds, is refused.
"""

from __future__ import annotations

import dis
from collections import deque
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

_SIZED = (list, dict, set, bytearray, deque)
_SCALARS = (type(None), bool, int, float, str, bytes)
_ABSENT: Any = object()


class Watched:
    """What locals held when the loop began, and its size when the turn did; ``changed`` says of the first that differs
    what it is called, what was done to it, and what it holds."""

    __slots__ = ("_held", "changed")

    def __init__(self, frame: FrameType) -> None:
        self.changed: tuple[str, str, Any] | None = None
        targets = targets_of(frame.f_code, frame.f_lasti)
        self._held = {name: (value, _size_of(value)) for name, value in frame.f_locals.items() if name not in targets}

    @classmethod
    def of(cls, before: Watched | None, frame: FrameType) -> Watched:
        """At each turn's end, and at the beginning (``before`` is None), of the code that loops."""
        if before is None:
            return cls(frame)
        before.changed = before._change(frame.f_locals)
        return before

    def go_on(self) -> None:
        """A turn begins. A list of the state may have grown by what the last one changed there: that is recorded."""
        for name, (value, size) in self._held.items():
            if size is not None and len(value) != size:
                self._held[name] = value, len(value)

    def _change(self, now: dict[str, Any]) -> tuple[str, str, Any] | None:
        for name, (value, size) in self._held.items():
            held = now.get(name, _ABSENT)
            if held is value:
                if size is not None and len(held) != size:
                    return name, "resized", held
            elif type(held) is not type(value) or not isinstance(held, _SCALARS) or held != value:
                return name, "rebound", held
        return None


def _size_of(value: Any) -> int | None:
    return len(value) if isinstance(value, _SIZED) else None


@lru_cache(maxsize=1000)
def targets_of(code: CodeType, at: int) -> frozenset[str]:
    """The names that the loop at this instruction binds at the beginning of each turn."""
    names: set[str] = set()
    storing = False
    for each in dis.get_instructions(code):
        if each.offset <= at:
            continue
        is_store = each.opname.startswith(("STORE_", "UNPACK_"))
        if storing and not is_store:
            break
        storing = storing or is_store
        if is_store and not each.opname.startswith("UNPACK_"):
            names.update(each.argval if isinstance(each.argval, tuple) else [each.argval])
    return frozenset(map(str, names))
