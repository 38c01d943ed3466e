"""The change of a state, and its replay: pure functions over plain values, no I/O and no clock.

A delta maps changed keys to operations, which are plain data the codec takes:

* ``["set", base, value]``    the key now holds ``value``
* ``["del", base]``           the key is gone
* ``["add", values]``         ``values`` were added to the end of a list
* ``["merge", {key: op, …}]`` some keys of a dict changed

``base`` says what the key held when the step began, so that ``apply`` sees whether somebody else changed it:
``[]`` nothing, ``[value]`` this scalar, ``[digest, text]`` a value of this digest, ``text`` being for people.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib would load OpenSSL, 2 ms of every cold start
from collections.abc import MutableMapping
from copy import deepcopy
from decimal import Decimal
from math import copysign
from operator import is_
from typing import Any, TypeAlias

from holdfast.codec import canonical
from holdfast.errors import CodecError, StateConflict

Op: TypeAlias = list[Any]
Delta: TypeAlias = dict[str, Op]

_ABSENT: Any = object()
_NUMBERS = frozenset({int, float, complex, Decimal})
_IMMUTABLE = frozenset({type(None), bool, str, bytes}) | _NUMBERS
_EQUAL_IS_SAME = frozenset({type(None), bool, int, str, bytes})  # not float: -0.0 == 0.0, and nan != nan
_MERGED_KEYS = frozenset({str, int})
_INLINE = 64  # characters or bytes of a base that is kept as it is: a digest with its text is no shorter


def digest(value: Any, path: str = "state") -> bytes:
    """8 bytes that stand for ``value`` and its types; CodecError naming ``path`` if the codec refuses it."""
    return blake2b(canonical(value, "the state", path), digest_size=8).digest()


def copy(value: Any) -> Any:
    """A deep copy of plain containers, sharing what cannot change. A list referred to twice becomes two."""
    try:
        return _copied(value)
    except RecursionError:
        raise CodecError("the state cannot be copied: it contains itself, or is too deep.", path="state") from None


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is list:
        return value.copy() if set(map(type, value)) <= _IMMUTABLE else list(map(_copied, value))
    if kind is dict:
        if set(map(type, value.values())) <= _IMMUTABLE:
            return value.copy()
        return {key: _copied(held) for key, held in value.items()}
    if kind is tuple:
        return value if set(map(type, value)) <= _IMMUTABLE else tuple(map(_copied, value))
    return deepcopy(value)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal with equal types all the way down: 1, True and 1.0 are three values."""
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
        if len(a) != len(b):
            return False
        kinds = set(map(type, a))
        if len(kinds) == 1 and kinds <= _EQUAL_IS_SAME and kinds == set(map(type, b)):
            return bool(a == b)
        return all(map(same, a, b))
    if kind is dict:
        if len(a) != len(b):
            return False
        if all(map(is_, a, b)) and all(map(is_, a.values(), b.values())):
            return True  # a copy that nobody touched: it shares what cannot change
        if _mergeable(a) and _mergeable(b):
            return all(same(held, b.get(key, _ABSENT)) for key, held in a.items())
    return digest(a) == digest(b)


def _mergeable(value: dict[Any, Any]) -> bool:
    """Whether keys that compare equal are the same; True and 1, say, are one key to a dict but two values."""
    return set(map(type, value)) <= _MERGED_KEYS


def diff(base: dict[str, Any], new: dict[str, Any]) -> Delta | None:
    """What turns ``base`` into ``new``, two states that share no containers; None if nothing changed.

    The delta holds references into ``new``, not copies. CodecError if a value is none the codec takes.
    """
    try:
        return _diff_keys(base, new, "") or None
    except RecursionError:
        raise CodecError("the state cannot be compared: it contains itself, or is too deep.", path="state") from None


def diff_value(base: Any, new: Any, path: str = "state") -> Op | None:
    """The operation that turns the value ``base`` into ``new``; None if they are the same."""
    if base is new:
        return None
    kind = type(base)
    if kind is type(new) is list:
        old = len(base)
        if old < len(new) and same(base, new[:old]):
            return ["add", new[old:]]
    elif kind is type(new) is dict and _mergeable(base) and _mergeable(new):
        changed = _diff_keys(base, new, path)
        return ["merge", changed] if changed else None
    return None if same(base, new) else ["set", _base(base, path), new]


def _diff_keys(base: dict[Any, Any], new: dict[Any, Any], path: str) -> dict[Any, Op]:
    changed: dict[Any, Op] = {}
    for key, value in new.items():
        before = base.get(key, _ABSENT)
        if before is _ABSENT:
            changed[key] = ["set", [], value]
        elif before is not value and (op := diff_value(before, value, _path(path, key))) is not None:
            changed[key] = op
    if len(base) + sum(op[0] == "set" and not op[1] for op in changed.values()) != len(new):
        for key, before in base.items():
            if key not in new:
                changed[key] = ["del", _base(before, _path(path, key))]
    return changed


def _path(path: str, key: Any) -> str:
    return f"{path}[{key!r}]" if path else str(key)


def _base(value: Any, path: str) -> list[Any]:
    kind = type(value)
    if kind in _NUMBERS or (kind in _IMMUTABLE and (not isinstance(value, (str, bytes)) or len(value) <= _INLINE)):
        return [value]
    return [digest(value, path), _shown(value)]


def apply(state: MutableMapping[str, Any], delta: Delta, *, check: bool = True) -> None:
    """Make the changes of ``delta`` in ``state``, in place, all of them or, on StateConflict, none.

    Containers that stay containers of their type stay the same objects, so references to them stay right;
    nothing inserted is shared with ``delta``. ``check=False`` is for replaying a history: what a key held
    before is not compared, but a delta that does not fit (adding to what is no list) is still refused.
    """
    pending = _pending(state, delta, "", check)
    # Copied before the first change, so that a value that cannot be copied changes nothing.
    _perform(state, copy(pending), pour=not _tangled(_replaced(state, pending)))


def refuse_malformed(ops: Any, where: str, path: str = "") -> None:
    """Raises ``CodecError`` for what was read and is no delta, before any of it is made."""
    if type(ops) is not dict:
        raise CodecError(f"{where} cannot be read: it is no change of {path or 'state'}.", path=path)
    for key, op in ops.items():
        here = _path(path, key)
        if type(op) is not list or not op or type(op[0]) is not str or len(op) != _LENGTHS.get(op[0]):
            raise CodecError(f"{where} cannot be read: the change of {here} is of no known kind.", path=here)
        if op[0] == "merge":
            refuse_malformed(op[1], where, here)
        elif type(op[1]) is not list or (op[0] != "add" and not _is_base(op[1])):
            raise CodecError(f"{where} cannot be read: the change of {here} is not whole.", path=here)


_LENGTHS = {"set": 3, "del": 2, "add": 2, "merge": 2}


def _is_base(base: list[Any]) -> bool:
    return len(base) < 2 or (len(base) == 2 and type(base[0]) is bytes and type(base[1]) is str)


def _pending(held: Any, ops: dict[Any, Op], path: str, check: bool) -> dict[Any, Op]:
    """What still has to be done, as [kind, value] by key; StateConflict if something cannot be."""
    pending: dict[Any, Op] = {}
    for key, op in ops.items():
        current, here, kind = held.get(key, _ABSENT), _path(path, key), op[0]
        if kind == "merge":
            _require(current, dict, here, "changed keys of it")
            pending[key] = [kind, _pending(current, op[1], here, check)]
        elif kind == "add":
            _require(current, list, here, f"added {len(op[1])} value{'' if len(op[1]) == 1 else 's'} to it")
            pending[key] = op
        elif kind == "set":
            if not check or not _stands_already(current, op[1], op[2], here):
                pending[key] = [kind, op[2]]
        elif kind != "del":
            raise CodecError(f"the change of {here} is of unknown kind {kind!r}.", path=here)
        elif current is not _ABSENT and (not check or not _stands_already(current, op[1], _ABSENT, here)):
            pending[key] = [kind, None]
    return pending


def _stands_already(current: Any, base: list[Any], value: Any, path: str) -> bool:
    """False if ``current`` is still the base and ``value`` is to be put; True if ``value`` is there already.

    Two overlapping ``n += 1`` write the same number twice, and one of them would be lost: where the base is a
    number, or nothing and the value a number (``n = state.get("n", 0) + 1``), equal values conflict too.
    """
    if not base:
        untouched = current is _ABSENT
    elif current is _ABSENT:
        untouched = False
    elif len(base) == 1:
        untouched = same(current, base[0])
    else:
        untouched = digest(current, path) == base[0]
    if untouched:
        return False
    counted = type(base[0] if base else value) in _NUMBERS and len(base) < 2
    if current is not _ABSENT and value is not _ABSENT and same(current, value) and not counted:
        return True
    before = "absent" if not base else _shown(base[0]) if len(base) == 1 else base[1]
    both_made = not base and type(current) is type(value) and type(value) in (list, dict)
    raise StateConflict(
        f"Two overlapping parts of the run changed {path}: it was {before} when this one began, is"
        f" {_shown(current)} now, and would become {_shown(value)}. {_MAKE_BEFORE if both_made else _WAY_OUT}"
    )


_WAY_OUT = (
    "Return the value from each step and combine the values in the workflow, or let each write a key of its"
    " own (appending to a list, and different keys of a dict, do not conflict)."
)
_MAKE_BEFORE = (
    "Make it in the workflow, before they begin; then they may append to the list, or set different keys of the dict."
)


def _require(current: Any, kind: type, path: str, what: str) -> None:
    if type(current) is not kind:
        raise StateConflict(
            f"Two overlapping parts of the run changed {path}: this one {what}, a {kind.__name__} when it"
            f" began, but it is {_shown(current)} now. {_WAY_OUT}"
        )


def _shown(value: Any) -> str:
    """A short text of a value. repr of a big one would cost more than the conflict is worth."""
    if value is _ABSENT:
        return "absent"
    from reprlib import Repr

    short = Repr()
    short.maxstring = short.maxother = 40
    return short.repr(value)[:80]


def _replaced(held: Any, pending: dict[Any, Op]) -> list[Any]:
    """The present values of the keys that will be set."""
    found: list[Any] = []
    for key, (kind, value) in pending.items():
        if kind == "merge":
            found += _replaced(held[key], value)
        elif kind == "set":
            found.append(held.get(key))
    return found


def _tangled(values: list[Any]) -> bool:
    """Whether a container is reachable twice, as in ``[row] * 3``: pouring into it would change both."""
    seen: set[int] = set()
    queue: list[Any] = list(values)
    for value in queue:
        if type(value) is list or type(value) is dict:
            if id(value) in seen:
                return True
            seen.add(id(value))
            queue.extend(value.values() if type(value) is dict else value)
    return False


def _perform(held: Any, pending: dict[Any, Op], pour: bool) -> None:
    """Make the changes. Nothing here looks at conflicts, and nothing here raises."""
    for key, (kind, value) in pending.items():
        if kind == "del":
            del held[key]
        elif kind == "add":
            held[key].extend(value)
        elif kind == "merge":
            _perform(held[key], value, pour)
        else:
            held[key] = _put(held.get(key), value) if pour else value


def _put(current: Any, value: Any) -> Any:
    """``value``, poured into ``current`` if both are lists or both are dicts."""
    kind = type(value)
    if type(current) is not kind or current is value:
        return value
    if kind is dict:
        fresh = {key: _put(current.get(key), held) for key, held in value.items()}
        current.clear()
        current.update(fresh)
        return current
    if kind is list:
        current[:] = _matched(current, value)
        return current
    return value


def _matched(old: list[Any], new: list[Any]) -> list[Any]:
    """``new`` with the containers of ``old`` where they belong.

    A container that is in both keeps its object, wherever it moved to; one that changed in its place is
    changed in place. Anything cleverer would sometimes turn the document a body holds into its neighbour.
    """
    if not any(type(value) is list or type(value) is dict for value in new):
        return new
    unused: dict[bytes, list[int]] = {}
    for i, value in enumerate(old):
        if type(value) is list or type(value) is dict:
            unused.setdefault(digest(value), []).append(i)
    out, open_places, free = list(new), [], set(range(len(old)))
    for i, value in enumerate(new):
        if type(value) is list or type(value) is dict:
            twins = unused.get(digest(value))
            if twins:
                twin = i if i in twins else twins[0]
                twins.remove(twin)
                free.discard(twin)
                out[i] = old[twin]
            else:
                open_places.append(i)
    for i in open_places:
        if i in free and len(old) == len(new):
            out[i] = _put(old[i], new[i])
    return out
