"""A change made in a state: first planned, with all that may stand against it, then performed, which cannot fail."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from holdfast.delta.difference import Delta, Op
from holdfast.delta.pouring import put, stay, tangled
from holdfast.delta.values import ABSENT, NUMBERS, copy, digest, path_of, same, shown
from holdfast.errors import CodecError, StateConflict

Plan = dict[Any, list[Any]]

_WAY_OUT = (
    "Return the value from each step and combine the values in the workflow, or let each write a key of its"
    " own (appending to a list, and different keys of a dict, do not conflict)."
)
_MAKE_BEFORE = (
    "Make it in the workflow, before they begin; then they may append to the list, or set different keys of the dict."
)


def apply(state: MutableMapping[str, Any], delta: Delta, *, check: bool = True) -> None:
    """Make the changes of ``delta`` in ``state``, in place, all of them or, on StateConflict, none.

    Containers that stay containers of their type stay the same objects, so references to them stay right;
    nothing inserted is shared with ``delta``. ``check=False`` is for replaying a history: what a key held
    before is not compared, but a delta that does not fit (adding to what is no list) is still refused.
    """
    perform(state, planned(state, delta, check=check))


def planned(held: Mapping[Any, Any], ops: Mapping[Any, Op], path: str = "", *, check: bool = True) -> Plan:
    """What still has to be done, by key; StateConflict if something cannot be. Nothing is changed yet."""
    plan: Plan = {}
    for key, op in ops.items():
        current, here, kind = held.get(key, ABSENT), path_of(path, key), op[0]
        if kind == "set":
            if not check or not _stands_already(current, op[1], op[2], here):
                plan[key] = ["set", op[2]]
        elif kind == "del":
            if current is not ABSENT and (not check or not _stands_already(current, op[1], ABSENT, here)):
                plan[key] = ["del"]
        elif (step := _planned_inside(current, op, here, check)) is not None:
            plan[key] = step
    return plan


def _planned_inside(current: Any, op: Op, path: str, check: bool) -> list[Any] | None:
    """Of an operation that changes a value in part."""
    kind = op[0]
    if kind == "merge":
        _require(type(current) is dict, current, path, "changed keys of it, a dict when it began")
        return [kind, planned(current, op[1], path, check=check)]
    if kind == "add":
        plural = "" if len(op[1]) == 1 else "s"
        _require(type(current) is list, current, path, f"added {len(op[1])} value{plural} to it, a list when it began")
        return op
    if kind != "edit":
        raise CodecError(f"the change of {path} is of unknown kind {kind!r}.", path=path)
    guard, hunks = op[1], op[2]
    if check and len(guard) > 1:
        before = b"" if current is ABSENT else digest(current, path)
        if before == guard[2]:
            return None  # somebody else made the same change
        if before != guard[1]:
            raise _conflict(path, guard[3], shown(current), "another in parts", _WAY_OUT)
    _require(
        type(current) in (list, str, bytes) and len(current) == guard[0] and _fit(current, hunks),
        current,
        path,
        "changed parts of it, as it was when it began",
    )
    made = [_planned_hunk(current, hunk, path, check and len(guard) == 1) for hunk in hunks]
    return ["edit", made]


def _planned_hunk(current: Any, hunk: list[Any], path: str, check: bool) -> list[Any]:
    at = hunk[0]
    if len(hunk) == 2:
        return [at, _planned_inside(current[at], hunk[1], f"{path}[{at}]", check)]
    if check and hunk[1]:
        _require(
            digest(current[at : at + hunk[1]], path) == hunk[3],
            current,
            path,
            f"changed it from place {at} on, as it was when it began",
        )
    return [at, hunk[1], hunk[2]]


def _fit(current: Any, hunks: list[list[Any]]) -> bool:
    """Whether the hunks are in order, and within the value."""
    reached, kind = 0, type(current)
    for hunk in hunks:
        count = 1 if len(hunk) == 2 else hunk[1]
        if hunk[0] < reached or hunk[0] + count > len(current):
            return False
        if kind is not (list if len(hunk) == 2 else type(hunk[2])):
            return False
        reached = hunk[0] + count
    return True


def _stands_already(current: Any, base: list[Any], value: Any, path: str) -> bool:
    """False if ``current`` is still the base and ``value`` is to be put; True if ``value`` is there already.

    Two overlapping ``n += 1`` write the same number twice, and one of them would be lost: where the base is a
    number, or nothing and the value a number (``n = state.get("n", 0) + 1``), equal values conflict too.
    """
    if not base:
        untouched = current is ABSENT
    elif current is ABSENT:
        untouched = False
    elif len(base) == 1:
        untouched = same(base[0], current)
    else:
        untouched = digest(current, path) == base[0]
    if untouched:
        return False
    counted = type(base[0] if base else value) in NUMBERS and len(base) < 2
    if current is not ABSENT and value is not ABSENT and same(value, current) and not counted:
        return True
    before = "absent" if not base else shown(base[0]) if len(base) == 1 else base[1]
    both_made = not base and type(current) is type(value) and type(value) in (list, dict)
    raise _conflict(path, before, shown(current), shown(value), _MAKE_BEFORE if both_made else _WAY_OUT)


def _conflict(path: str, before: str, now: str, then: str, way_out: str) -> StateConflict:
    return StateConflict(
        f"Two overlapping parts of the run changed {path}: it was {before} when this one began, is"
        f" {now} now, and would become {then}. {way_out}"
    )


def _require(fits: bool, current: Any, path: str, what: str) -> None:
    if not fits:
        raise StateConflict(
            f"Two overlapping parts of the run changed {path}: this one {what}, but it is {shown(current)} now."
            f" {_WAY_OUT}"
        )


def perform(state: MutableMapping[str, Any], plan: Plan) -> None:
    """Make what was planned, in place, with copies of what it brings."""
    plan = copy(plan)  # before the first change, so that a value that cannot be copied changes nothing
    pour = not tangled(_replaced(state, plan))
    for key, step in plan.items():
        _perform(state, key, step, pour)


def performed(held: Any, step: list[Any]) -> Any:
    """The value that ``held`` becomes by one step of a plan. What did not change is shared with ``held``, which stays
    as it is, and what is new with the plan."""
    kind = step[0]
    if kind == "set":
        return step[1]
    if kind == "add":
        return held + step[1]
    if kind == "merge":
        changed = dict(held)
        for key, inner in step[1].items():
            if inner[0] == "del":
                del changed[key]
            else:
                changed[key] = performed(changed.get(key), inner)
        return changed
    if type(held) is not list:
        return _text(held, step[1])
    edited = held.copy()
    for hunk in reversed(step[1]):
        if len(hunk) == 2:
            if hunk[1] is not None:
                edited[hunk[0]] = performed(edited[hunk[0]], hunk[1])
        else:
            edited[hunk[0] : hunk[0] + hunk[1]] = hunk[2]
    return edited


def _text(held: Any, hunks: list[list[Any]]) -> Any:
    for at, count, values in reversed(hunks):
        held = held[:at] + values + held[at + count :]
    return held


def _perform(held: Any, key: Any, step: list[Any], pour: bool) -> None:
    """In place; ``held`` is the dict or list that holds the value."""
    kind = step[0]
    if kind == "del":
        del held[key]
    elif kind == "add":
        held[key].extend(step[1])
    elif kind == "merge":
        for name, inner in step[1].items():
            _perform(held[key], name, inner, pour)
    elif kind == "set":
        value = step[1]
        held[key] = put(held.get(key), value) if pour else value
    elif type(held[key]) is list:
        _edit(held[key], step[1], pour)
    else:
        held[key] = _text(held[key], step[1])


def _edit(held: list[Any], hunks: list[list[Any]], pour: bool) -> None:
    inside = [hunk for hunk in hunks if len(hunk) == 2 and hunk[1] is not None]
    pieces = [hunk for hunk in hunks if len(hunk) == 3]
    pour = pour and not tangled([held[hunk[0]] for hunk in inside])
    for hunk in inside:  # their places are still those of the old list
        if pour:
            _perform(held, hunk[0], hunk[1], pour)
        else:
            held[hunk[0]] = performed(held[hunk[0]], hunk[1])
    gone = [value for at, count, _ in pieces for value in held[at : at + count]]
    for at, count, values in reversed(pieces):
        held[at : at + count] = stay(gone, values) if pour else values


def _replaced(held: Any, plan: Plan) -> list[Any]:
    """The present values of the keys that will be set."""
    found: list[Any] = []
    for key, step in plan.items():
        if step[0] == "merge":
            found += _replaced(held[key], step[1])
        elif step[0] == "set":
            found.append(held.get(key))
    return found
