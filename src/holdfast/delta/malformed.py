"""What was read from a store, and is no change of a state."""

from __future__ import annotations

from typing import Any

from holdfast.delta.values import path_of
from holdfast.errors import CodecError

_LENGTHS = {"set": 3, "del": 2, "add": 2, "merge": 2, "edit": 3}
_INSIDE = frozenset({"add", "merge", "edit"})  # what can be said of one element


def refuse_malformed(ops: Any, where: str, path: str = "") -> None:
    """Raises ``CodecError`` for what was read and is no delta, before any of it is made."""
    if type(ops) is not dict:
        raise CodecError(f"{where} cannot be read: it is no change of {path or 'state'}.", path=path)
    for key, op in ops.items():
        _refuse(op, where, path_of(path, key))


def _refuse(op: Any, where: str, path: str) -> None:
    if type(op) is not list or not op or type(op[0]) is not str or len(op) != _LENGTHS.get(op[0]):
        raise CodecError(f"{where} cannot be read: the change of {path} is of no known kind.", path=path)
    if op[0] == "merge":
        refuse_malformed(op[1], where, path)
        return
    is_whole = type(op[1]) is list
    if op[0] == "edit":
        is_whole = is_whole and _is_length(op[1]) and type(op[2]) is list and all(map(_is_hunk, op[2]))
    elif op[0] != "add":
        is_whole = is_whole and _is_base(op[1])
    if not is_whole:
        raise CodecError(f"{where} cannot be read: the change of {path} is not whole.", path=path)
    for hunk in op[2] if op[0] == "edit" else ():
        if len(hunk) == 2:
            _refuse(hunk[1], where, f"{path}[{hunk[0]}]")
            if hunk[1][0] not in _INSIDE:
                raise CodecError(f"{where} cannot be read: {path}[{hunk[0]}] cannot change so.", path=path)


def _is_base(base: list[Any]) -> bool:
    return len(base) < 2 or (len(base) == 2 and type(base[0]) is bytes and type(base[1]) is str)


def _is_length(base: list[Any]) -> bool:
    kinds = list(map(type, base))
    return kinds == [int] or kinds == [int, bytes, bytes, str]


def _is_hunk(hunk: Any) -> bool:
    if type(hunk) is not list or len(hunk) not in (2, 4) or type(hunk[0]) is not int or hunk[0] < 0:
        return False
    if len(hunk) == 2:
        return True
    at_all = type(hunk[1]) is int and hunk[1] >= 0
    return at_all and type(hunk[2]) in (list, str, bytes) and type(hunk[3]) is bytes
