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
from typing import Any, TypeAlias

_SIZED = (list, dict, set, bytearray, deque)
_COMPARED_MAX = 100  # items of a list or dict that are looked at each; of a longer one, its length
_SCALARS = (type(None), bool, int, float, str, bytes)
_ABSENT: Any = object()
Loop: TypeAlias = tuple[CodeType, int]  # at which of its instructions
# By the id of a Python frame: whether each loop of it that began has come to its end.
GoneThrough: TypeAlias = dict[int, dict[Loop, bool]]
_BETWEEN = frozenset({"EXTENDED_ARG", "NOP", "CACHE"})


class Watched:
    """What locals held when the loop began, and what was in that when the turn did; ``changed`` says of the first that
    differs what it is called, what was done to it, and what it holds."""

    __slots__ = ("_gone_through", "_held", "_loop", "changed")

    def __init__(self, frame: FrameType, gone_through: GoneThrough) -> None:
        self.changed: tuple[str, str, Any] | None = None
        self._loop = frame.f_code, frame.f_lasti
        self._gone_through = gone_through.setdefault(id(frame), {})
        loops = {**self._gone_through, self._loop: self._gone_through.get(self._loop, True)}
        targets = targets_of(*self._loop).union(_bound_in_turns(loops, *self._loop))
        self._gone_through[self._loop] = False
        self._held = {
            name: (value, _content_of(value)) for name, value in frame.f_locals.items() if name not in targets
        }

    @classmethod
    def of(cls, before: Watched | None, frame: FrameType, gone_through: GoneThrough) -> Watched:
        """At each turn's end, and at the beginning (``before`` is None), of the code that loops. ``gone_through`` is
        kept for all loops of a run."""
        if before is None:
            return cls(frame, gone_through)
        before.changed = before._change(frame.f_locals)
        return before

    def end(self) -> None:
        """The loop has come to its end. What its turns have left bound, a later loop may bind anew: where they are
        skipped it is not bound at all. Where a loop was left in a turn, that turn binds it on every resume."""
        self._gone_through[self._loop] = True

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


def _bound_in_turns(loops: dict[Loop, bool], code: CodeType, at: int) -> set[str]:
    """The locals that nothing which may have been executed when this loop begins binds, but turns of those of the loops
    that were not left in one."""
    bodies = [_body_of(*loop) for loop, is_over in loops.items() if is_over and loop[0] is code]
    last_line = _last_line(code, at)
    return {
        name
        for name, stores in _stores_of(code).items()
        if all(line > last_line or any(first < offset <= last for first, last in bodies) for offset, line in stores)
    }


@lru_cache(maxsize=1000)
def _body_of(code: CodeType, at: int) -> tuple[int, int]:
    """From the head of a loop to the last instruction that goes back to it."""
    return at, max((each.offset for each in _backwards(code) if each.argval == at), default=at)


@lru_cache(maxsize=1000)
def _last_line(code: CodeType, at: int) -> int:
    """Of this loop and those around it: what stands behind was not executed before."""
    end = max((each.offset for each in _backwards(code) if each.argval <= at <= each.offset), default=at)
    return max(line for each, line in _lines(code) if at <= each.offset <= end)


def _backwards(code: CodeType) -> list[dis.Instruction]:
    return [each for each in dis.get_instructions(code) if "JUMP" in each.opname]


def _lines(code: CodeType) -> list[tuple[dis.Instruction, int]]:
    """(instruction, its line), of those that have one."""
    placed = (
        (each, each.positions.lineno if each.positions is not None else None) for each in dis.get_instructions(code)
    )
    return [(each, line) for each, line in placed if line is not None]


@lru_cache(maxsize=1000)
def _stores_of(code: CodeType) -> dict[str, list[tuple[int, int]]]:
    """(offset, line) where the locals are bound that no argument and no other function binds."""
    given = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    given += bool(code.co_flags & inspect.CO_VARKEYWORDS)
    own = set(code.co_varnames[given:]).difference(code.co_cellvars)
    stores: dict[str, list[tuple[int, int]]] = {}
    for each, line in _lines(code):
        if each.opname.startswith("STORE_"):
            for name in own.intersection(each.argval if isinstance(each.argval, tuple) else [each.argval]):
                stores.setdefault(name, []).append((each.offset, line))
    return stores


@lru_cache(maxsize=1000)
def is_loop_at(code: CodeType, at: int) -> bool:
    """Whether a ``for`` statement begins at this instruction, and none that hands out what it goes through: a
    comprehension, ``enumerate``, ``list`` or a generator would give less where finished turns are skipped."""
    if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR) or code.co_name.endswith("comp>"):
        return False
    ops = [each for each in dis.get_instructions(code) if each.offset >= at and each.opname not in _BETWEEN]
    begins = [each.opname for each in ops[:2]]
    return begins in (["GET_ITER", "FOR_ITER"], ["GET_AITER", "GET_ANEXT"])
