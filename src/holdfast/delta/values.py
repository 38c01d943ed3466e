"""Plain values: copied, compared with their types, hashed, weighed."""

from __future__ import annotations

from _blake2 import blake2b  # hashlib would load OpenSSL at every start
from copy import deepcopy
from decimal import Decimal
from itertools import chain
from math import copysign, inf
from operator import is_
from typing import Any

from msgspec import ValidationError, convert

from holdfast.codec import canonical
from holdfast.errors import CodecError

ABSENT: Any = object()
NUMBERS = frozenset({int, float, complex, Decimal})
IMMUTABLE = frozenset({type(None), bool, str, bytes}) | NUMBERS
_EQUAL_IS_SAME = frozenset({type(None), bool, int, str, bytes})  # not float: -0.0 == 0.0, and nan != nan
_TEXT = frozenset({type(None), str})  # nothing else that a state can hold is equal to one of these
_TEXTS = list[dict[str, str | None]]  # not numbers: of a Decimal, msgspec would make a float
_MERGED_KEYS = frozenset({str, int})
_HEAD, _SCALAR = 3, 5  # about what the encoding of a container adds to its content, and that of a number takes


def digest(value: Any, path: str = "state") -> bytes:
    """8 bytes that stand for ``value`` and its types; CodecError naming ``path`` if the codec refuses it."""
    return blake2b(canonical(value, "the state", path), digest_size=8).digest()


def is_fixed(value: Any) -> bool:
    """Whether nobody can change it."""
    return type(value) in IMMUTABLE


def copy_of_recorded(value: Any) -> Any:
    """A copy of what holds nothing but what the codec takes."""
    if type(value) is list and value and type(value[0]) is dict:
        try:
            return convert(value, _TEXTS)  # checks and copies in one go, and refuses at the first other value
        except ValidationError:
            pass
    return copy(value)


def copy(value: Any) -> Any:
    """A deep copy of plain containers, sharing what cannot change. A list referred to twice becomes two."""
    try:
        return _copied(value)
    except RecursionError:
        raise CodecError("the state cannot be copied: it contains itself, or is too deep.", path="state") from None


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in IMMUTABLE:
        return value
    if kind is list:
        kinds = set(map(type, value))
        if kinds <= IMMUTABLE:
            return value.copy()
        if kinds == {dict} and _kinds_inside(value) <= IMMUTABLE:
            return list(map(dict.copy, value))  # what most lists of records are
        return list(map(_copied, value))
    if kind is dict:
        if set(map(type, value.values())) <= IMMUTABLE:
            return value.copy()
        return {key: _copied(held) for key, held in value.items()}
    if kind is tuple:
        return value if set(map(type, value)) <= IMMUTABLE else tuple(map(_copied, value))
    return deepcopy(value)


def _kinds_inside(rows: list[dict[Any, Any]]) -> set[type]:
    return set(map(type, chain.from_iterable(map(dict.values, rows))))


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal with equal types all the way down: 1, True and 1.0 are three values.

    ``a`` holds only what the codec takes.
    """
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return False
    if kind in _EQUAL_IS_SAME:
        return bool(a == b)
    if kind is float:
        return bool(a == b and copysign(1, a) == copysign(1, b)) or (a != a and b != b)
    if kind is list or kind is tuple:
        return len(a) == len(b) and _same_items(a, b)
    if kind is dict:
        if len(a) != len(b):
            return False
        if all(map(is_, a, b)) and all(map(is_, a.values(), b.values())):
            return True  # a copy that nobody touched: it shares what cannot change
        if mergeable(a) and mergeable(b):
            return all(same(held, b.get(key, ABSENT)) for key, held in a.items())
    return digest(a) == digest(b)


def _same_items(a: Any, b: Any) -> bool:
    """Of two lists, or two tuples, of one length. Untouched ones are seen to be so without a look at each item."""
    kinds = set(map(type, b))
    if len(kinds) == 1 and kinds <= _EQUAL_IS_SAME and kinds == set(map(type, a)):
        return bool(a == b)
    if kinds == {dict}:
        if _kinds_inside(b) <= _TEXT and set(map(type, chain.from_iterable(b))) <= _TEXT:
            return bool(a == b)
        if set(map(type, a)) == kinds and _are_untouched(a, b):
            return True
    return all(map(same, a, b))


def _are_untouched(a: Any, b: Any) -> bool:
    """Whether the dicts in the one have the very keys and values of those in the other."""
    if list(map(len, a)) != list(map(len, b)) or not all(map(is_, chain.from_iterable(a), chain.from_iterable(b))):
        return False
    held, now = chain.from_iterable(map(dict.values, a)), chain.from_iterable(map(dict.values, b))
    return all(map(is_, held, now))


def mergeable(value: dict[Any, Any]) -> bool:
    """Whether keys that compare equal are the same; True and 1, say, are one key to a dict but two values."""
    return set(map(type, value)) <= _MERGED_KEYS


def weight(value: Any, limit: float = inf) -> int:
    """About how many bytes the encoding of ``value`` has; counted no further than ``limit``."""
    total, queue = 0, [value]
    for each in queue:
        kind = type(each)
        if kind is str or kind is bytes:
            total += _HEAD + len(each)
        elif kind is dict:
            total += _HEAD
            queue.extend(each)
            queue.extend(each.values())
        elif kind is list or kind is tuple or kind is set or kind is frozenset:
            total += _HEAD
            queue.extend(each)
        else:
            total += _SCALAR
        if total > limit:
            break
    return total


def shown(value: Any) -> str:
    """A short text of a value. repr of a big one would cost more than the conflict is worth."""
    if value is ABSENT:
        return "absent"
    from reprlib import Repr

    short = Repr()
    short.maxstring = short.maxother = 40
    return short.repr(value)[:80]


def path_of(path: str, key: Any) -> str:
    return f"{path}[{key!r}]" if path else str(key)
