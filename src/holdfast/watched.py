"""The locals that were bound before a loop whose finished turns are skipped: a turn must not change them.

``total += x`` over ten turns gives 45 the first time and 30 where a resume skips the first six, without an error. So a
turn that rebinds such a local, or resizes the container it holds, is refused.
"""

from __future__ import annotations

import dis
import inspect
from collections import deque
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

_SIZED = (list, dict, set, bytearray, deque)
_COMPARED_MAX = 100  # items of a list or dict that are looked at each; of a longer one, its length
_SCALARS = (type(None), bool, int, float, str, bytes)
_ABSENT: Any = object()
_BETWEEN = frozenset({"EXTENDED_ARG", "NOP", "CACHE"})


class Watched:
    """What locals held when the loop began, and what was in that when the turn did; ``changed`` says of the first that
    differs what it is called, what was done to it, and what it holds."""

    __slots__ = ("_held", "changed")

    def __init__(self, frame: FrameType) -> None:
        self.changed: tuple[str, str, Any] | None = None
        targets = targets_of(frame.f_code, frame.f_lasti)
        self._held = {
            name: (value, _content_of(value)) for name, value in frame.f_locals.items() if name not in targets
        }

    @classmethod
    def of(cls, before: Watched | None, frame: FrameType) -> Watched:
        """At each turn's end, and at the beginning (``before`` is None), of the code that loops."""
        if before is None:
            return cls(frame)
        before.changed = before._change(frame.f_locals)
        return before

    def go_on(self) -> None:
        """A turn begins. A list of the state may have grown by what the last one changed there: that is recorded."""
        for name, (value, content) in self._held.items():
            if content is not None and not _is_same(content, _content_of(value)):
                self._held[name] = value, _content_of(value)

    def _change(self, now: dict[str, Any]) -> tuple[str, str, Any] | None:
        for name, (value, content) in self._held.items():
            held = now.get(name, _ABSENT)
            if held is value:
                if content is not None and not _is_same(content, _content_of(held)):
                    return name, "changed", held
            elif not _is_same_value(value, held):
                return name, "rebound", held
        return None


def _content_of(value: Any) -> tuple[Any, ...] | None:
    if not isinstance(value, _SIZED):
        return None
    if isinstance(value, (list, dict)) and len(value) <= _COMPARED_MAX:
        return (*value, *value.values()) if isinstance(value, dict) else tuple(value)
    return (len(value),)


def _is_same(before: tuple[Any, ...], now: tuple[Any, ...] | None) -> bool:
    return now is not None and len(before) == len(now) and all(map(_is_same_value, before, now))


def _is_same_value(before: Any, now: Any) -> bool:
    return now is before or (type(now) is type(before) and isinstance(now, _SCALARS) and now == before)


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


@lru_cache(maxsize=1000)
def is_loop_at(code: CodeType, at: int) -> bool:
    """Whether a ``for`` statement begins at this instruction, and none that hands out what it goes through: a
    comprehension, ``enumerate``, ``list`` or a generator would give less where finished turns are skipped."""
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR) or code.co_name.endswith("comp>"):
        return False
    ops = [each for each in dis.get_instructions(code) if each.offset >= at and each.opname not in _BETWEEN]
    begins = [each.opname for each in ops[:2]]
    return begins in (["GET_ITER", "FOR_ITER"], ["GET_AITER", "GET_ANEXT"])
