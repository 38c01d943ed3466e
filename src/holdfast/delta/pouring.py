"""New values put where old ones are, so that the references a program holds to these stay right."""

from __future__ import annotations

from typing import Any

from holdfast.delta.values import digest
from holdfast.errors import CodecError


def tangled(values: list[Any]) -> bool:
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


def put(current: Any, value: Any) -> Any:
    """``value``, poured into ``current`` if both are lists or both are dicts."""
    kind = type(value)
    if type(current) is not kind or current is value:
        return value
    if kind is dict:
        fresh = {key: put(current.get(key), held) for key, held in value.items()}
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
            out[i] = put(old[i], new[i])
    return out


def stay(gone: list[Any], values: list[Any]) -> list[Any]:
    """``values`` with those containers of ``gone`` that only moved: each is taken out of ``gone`` and keeps its
    object."""
    left = {
        _mark(value): i for i, value in reversed(list(enumerate(gone))) if type(value) is list or type(value) is dict
    }
    if not left:
        return values
    out = list(values)
    for k, value in enumerate(out):
        if type(value) is list or type(value) is dict:
            i = left.pop(digest(value), None)
            if i is not None:
                out[k] = gone[i]
    if len(left) < len(gone):
        gone[:] = [gone[i] for i in sorted(left.values())]
    return out


def _mark(value: Any) -> bytes:
    """What a program holds need not be what a state may."""
    try:
        return digest(value)
    except CodecError:
        return b""
