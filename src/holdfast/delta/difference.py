"""What turns one state into another: by key, by element, by the stretch of a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from holdfast.delta.values import (
    ABSENT,
    IMMUTABLE,
    NUMBERS,
    digest,
    mergeable,
    path_of,
    same,
    shown,
    weight,
)
from holdfast.errors import CodecError

Op: TypeAlias = list[Any]
Delta: TypeAlias = dict[str, Op]

_INLINE = 64  # characters or bytes of a base that is kept as it is: a digest with its text is no shorter
_TEXT_MIN = 256  # characters or bytes from which on a text may be changed in part
_BLOCK = 256  # elements that are compared in one go
_EDITED_MAX = 64  # elements that changed in their places; where more did, others may have moved
_OVERHEAD = 48  # bytes by which an edit has to be lighter than the value it stands for


def diff(
    base: dict[str, Any], new: dict[str, Any], keys: Iterable[str] | None = None, *, overlaps: bool = True
) -> Delta | None:
    """What turns ``base`` into ``new``, two states that share no containers that changed; None if nothing did.

    ``keys`` are those that may have changed. ``overlaps``: whether other parts of the run may change the same values
    before this change is applied. The delta holds references into ``new``, not copies. CodecError if a value is none
    the codec takes.
    """
    writer = _Writer(overlaps)
    try:
        if keys is None:
            return writer.keys(base, new, "") or None
        return writer.some(base, new, keys) or None
    except RecursionError:
        raise CodecError("the state cannot be compared: it contains itself, or is too deep.", path="state") from None


class _Writer:
    """``overlaps`` False spares the digests of what is changed in part: only its length is compared again."""

    __slots__ = ("overlaps",)

    def __init__(self, overlaps: bool) -> None:
        self.overlaps = overlaps

    def some(self, base: dict[Any, Any], new: dict[Any, Any], keys: Iterable[Any]) -> dict[Any, Op]:
        changed: dict[Any, Op] = {}
        for key in keys:
            before, value = base.get(key, ABSENT), new.get(key, ABSENT)
            if before is value:
                continue
            if before is ABSENT:
                changed[key] = ["set", [], value]
            elif value is ABSENT:
                changed[key] = ["del", _base(before, path_of("", key))]
            elif (op := self.value(before, value, path_of("", key))) is not None:
                changed[key] = op
        return changed

    def keys(self, base: dict[Any, Any], new: dict[Any, Any], path: str) -> dict[Any, Op]:
        changed: dict[Any, Op] = {}
        for key, value in new.items():
            before = base.get(key, ABSENT)
            if before is ABSENT:
                changed[key] = ["set", [], value]
            elif before is not value and (op := self.value(before, value, path_of(path, key))) is not None:
                changed[key] = op
        if len(base) + sum(op[0] == "set" and not op[1] for op in changed.values()) != len(new):
            for key, before in base.items():
                if key not in new:
                    changed[key] = ["del", _base(before, path_of(path, key))]
        return changed

    def value(self, base: Any, new: Any, path: str) -> Op | None:
        """The operation that turns the value ``base`` into ``new``; None if they are the same."""
        if base is new:
            return None
        kind = type(base)
        if kind is type(new):
            if kind is dict and mergeable(base) and mergeable(new):
                changed = self.keys(base, new, path)
                return ["merge", changed] if changed else None
            if kind is list:
                return self._list(base, new, path)
            if (kind is str or kind is bytes) and len(base) >= _TEXT_MIN and base != new:
                at, count, middle = _stretch(base, new)
                return self._edit(base, new, [[at, count, middle, b""]], path) or ["set", _base(base, path), new]
        return None if same(base, new) else ["set", _base(base, path), new]

    def _list(self, base: list[Any], new: list[Any], path: str) -> Op | None:
        old, length = len(base), len(new)
        first = next(_different(base, new), None)
        if first is None and old <= length:
            return ["add", new[old:]] if old < length else None
        hunks = self._hunks(base, new, min(old, length) if first is None else first, path)
        return self._edit(base, new, hunks, path) or ["set", _base(base, path), new]

    def _hunks(self, base: list[Any], new: list[Any], first: int, path: str) -> list[list[Any]]:
        old, length = len(base), len(new)
        if old <= length:  # changed in their places, perhaps with more behind them
            places: list[int] = []
            for place in _different(base, new, first):
                places.append(place)
                if len(places) > _EDITED_MAX:
                    break
            if len(places) <= max(1, min(_EDITED_MAX, old // 4)):
                hunks = [self._inside(i, base[i], new[i], path) for i in places]
                if old < length:
                    hunks.append([old, 0, new[old:], b""])
                return _joined(hunks)
        behind = 0
        while behind < min(old, length) - first and same(base[old - 1 - behind], new[length - 1 - behind]):
            behind += 1
        hunks, at, now = [], first, first
        kept = _paired(base, new, range(first, old - behind), range(first, length - behind), path)
        for i, j in [*kept, (old - behind, length - behind)]:
            if i - at == j - now:
                hunks += [self._inside(at + k, base[at + k], new[now + k], path) for k in range(i - at)]
            elif i > at or j > now:
                hunks.append([at, i - at, new[now:j], b""])
            at, now = i + 1, j + 1
        return _joined(hunks)

    def _inside(self, i: int, before: Any, now: Any, path: str) -> list[Any]:
        """The hunk that turns one element into another: what changed inside of it, or what stands in its place."""
        if type(before) is type(now) and type(now) in (dict, list, str, bytes):
            op = self.value(before, now, f"{path}[{i}]")
            if op is not None and op[0] != "set":
                return [i, op]
        return [i, 1, [now], b""]

    def _edit(self, base: Any, new: Any, hunks: list[list[Any]], path: str) -> Op | None:
        """None if the new value is hardly bigger than what changed of it."""
        if weight(new, limit := weight(hunks) + _OVERHEAD) <= limit:
            return None
        if self.overlaps:
            return ["edit", [len(base), digest(base, path), digest(new, path), shown(base)], hunks]
        for hunk in hunks:
            if len(hunk) == 4 and hunk[1]:
                hunk[3] = digest(base[hunk[0] : hunk[0] + hunk[1]], path)
        return ["edit", [len(base)], hunks]


def _different(base: list[Any], new: list[Any], start: int = 0) -> Iterator[int]:
    """The places that both lists have and at which they are not the same."""
    end = min(len(base), len(new))
    for low in range(start, end, _BLOCK):
        high = min(low + _BLOCK, end)
        if not same(base[low:high], new[low:high]):
            yield from (i for i in range(low, high) if not same(base[i], new[i]))


def _paired(base: list[Any], new: list[Any], old: range, now: range, path: str) -> list[tuple[int, int]]:
    """Places of equal elements in the middle of two lists, increasing on both sides."""
    if not old or not now:
        return []
    places: dict[bytes, list[int]] = {}
    for i in reversed(old):
        places.setdefault(digest(base[i], path), []).append(i)
    pairs: list[tuple[int, int]] = []
    last = -1
    for j in now:
        free = places.get(digest(new[j], f"{path}[{j}]"))
        while free and free[-1] <= last:
            free.pop()
        if free:
            last = free.pop()
            pairs.append((last, j))
    return pairs


def _joined(hunks: list[list[Any]]) -> list[list[Any]]:
    """Replacements side by side, as one."""
    joined: list[list[Any]] = []
    for hunk in hunks:
        last = joined[-1] if joined else None
        if last is not None and len(last) == len(hunk) == 4 and last[0] + last[1] == hunk[0] and last[1] and hunk[1]:
            last[1] += hunk[1]
            last[2] = last[2] + hunk[2]
        else:
            joined.append(hunk)
    return joined


def _stretch(base: Any, new: Any) -> tuple[int, int, Any]:
    """(where two texts begin to differ, how much of the old one is gone there, what stands in its place)."""
    end = min(len(base), len(new))
    head = _common(end, lambda low, high: bool(base[low:high] == new[low:high]))
    old, now = len(base), len(new)
    tail = _common(end - head, lambda low, high: bool(base[old - high : old - low] == new[now - high : now - low]))
    return head, old - head - tail, new[head : now - tail]


def _common(end: int, agree: Any) -> int:
    """How far two texts agree, at most ``end``: ``agree(low, high)`` tells it of a stretch."""
    low, high = 0, end
    while low < high:
        middle = (low + high + 1) // 2
        if agree(low, middle):
            low = middle
        else:
            high = middle - 1
    return low


def _base(value: Any, path: str) -> list[Any]:
    kind = type(value)
    if kind in NUMBERS or (kind in IMMUTABLE and (not isinstance(value, (str, bytes)) or len(value) <= _INLINE)):
        return [value]
    return [digest(value, path), shown(value)]


def inserted(ops: dict[Any, Op], path: str) -> Iterator[tuple[str, Any]]:
    """What the changes bring into a state, each with the path its program knows it under."""
    for key, op in ops.items():
        yield from _inserted(op, f"{path}[{key!r}]")


def _inserted(op: Op, path: str) -> Iterator[tuple[str, Any]]:
    if op[0] == "merge":
        yield from inserted(op[1], path)
    elif op[0] in ("set", "add"):
        yield path, op[-1]
    elif op[0] == "edit":
        moved = 0
        for hunk in op[2]:
            if len(hunk) == 2:
                yield from _inserted(hunk[1], f"{path}[{hunk[0] + moved}]")
            elif isinstance(hunk[2], list):
                for i, value in enumerate(hunk[2], hunk[0] + moved):
                    yield f"{path}[{i}]", value
            if len(hunk) == 4:
                moved += len(hunk[2]) - hunk[1]
