"""What people do to a program while its run is under way: edits of drawn programs, drawn from the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from .drawn import Drawn, Generator, nodes_of
from .drawn_steps import PAYING

Path = tuple[int, ...]
Edit = Callable[[Drawn, random.Random], "Drawn | None"]


class Edited(NamedTuple):
    program: Drawn
    what: list[str]  # in words


def edited(program: Drawn, chance: random.Random) -> Edited:
    """One to three edits, as they come."""
    what: list[str] = []
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
        for name in chance.sample(sorted(EDITS), len(EDITS)):
            after = EDITS[name](program, chance)
            if after is not None and after != program:
                program = after
                what.append(name)
                break
    return Edited(program, what)


def _of_kind(program: Drawn, chance: random.Random, fits: Callable[[str, Any], bool]) -> tuple[Path, Any] | None:
    found = [(path, node) for path, node in nodes_of(program.tree) if fits(*node)]
    return chance.choice(found) if found else None


def _replaced(node: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    kind, nodes = node
    return kind, [_replaced(each, path[1:], new) if k == path[0] else each for k, each in enumerate(nodes)]


def _with(program: Drawn, path: Path, new: Any) -> Drawn:
    return Drawn(_replaced(program.tree, path, new), program.plainly, program.options)


def _is_fork(kind: str, rest: Any) -> bool:
    return not isinstance(rest, str)


def inserted(program: Drawn, chance: random.Random) -> Drawn | None:
    found = _of_kind(program, chance, _is_fork)
    assert found is not None  # the root is one
    path, (kind, nodes) = found
    at, tag = chance.randrange(len(nodes) + 1), f"i{chance.randrange(10**6)}"
    return _with(program, path, (kind, [*nodes[:at], (chance.choice(Generator.LEAVES), tag), *nodes[at:]]))


def removed(program: Drawn, chance: random.Random) -> Drawn | None:
    found = _of_kind(program, chance, lambda kind, rest: _is_fork(kind, rest) and len(rest) > 1)
    if found is None:
        return None
    path, (kind, nodes) = found
    at = chance.randrange(len(nodes))
    return _with(program, path, (kind, [*nodes[:at], *nodes[at + 1 :]]))


def reordered(program: Drawn, chance: random.Random) -> Drawn | None:
    found = _of_kind(program, chance, lambda kind, rest: _is_fork(kind, rest) and len(rest) > 1)
    if found is None:
        return None
    path, (kind, nodes) = found
    nodes = list(nodes)
    a, b = chance.sample(range(len(nodes)), 2)
    nodes[a], nodes[b] = nodes[b], nodes[a]
    return _with(program, path, (kind, nodes))


def renamed(program: Drawn, chance: random.Random) -> Drawn | None:
    names = {"fetch": "fetch, renamed", "parse": "fetch", "pay": "pay, renamed"}
    found = _of_kind(program, chance, lambda kind, rest: kind in names)
    if found is None:
        return None
    path, (kind, tag) = found
    return _with(program, path, (names[kind], tag))


def other_inputs(program: Drawn, chance: random.Random) -> Drawn | None:
    found = _of_kind(program, chance, lambda kind, rest: not _is_fork(kind, rest))
    if found is None:
        return None
    path, (kind, tag) = found
    return _with(program, path, (kind, f"{tag}'"))


def once_no_longer(program: Drawn, chance: random.Random) -> Drawn | None:
    found = _of_kind(program, chance, lambda kind, rest: kind == "pay")
    return None if found is None else _with(program, found[0], ("pay, once no longer", found[1][1]))


def moved_inside(program: Drawn, chance: random.Random) -> Drawn | None:
    """Into a step, a workflow or a task of its own."""
    found = _of_kind(program, chance, lambda kind, rest: not _is_fork(kind, rest))
    if found is None:
        return None
    path, leaf = found
    return _with(program, path, (chance.choice(("nest", "child", "gather", "thread")), [leaf]))


def paying_moved(program: Drawn, chance: random.Random) -> Drawn | None:
    """To another part of the program, as it is."""
    found = _of_kind(program, chance, lambda kind, rest: kind in PAYING)
    if found is None or len(found[0]) < 2:
        return None
    path, leaf = found
    kind, nodes = next(node for at, node in nodes_of(program.tree) if at == path[:-1])
    if len(nodes) < 2:
        return None
    without = _with(program, path[:-1], (kind, [each for each in nodes if each is not leaf]))
    kind, nodes = without.tree
    return _with(without, (), (kind, [*nodes, leaf]))


def _of_fork(name: str, *edits: str) -> Edit:
    def edit(program: Drawn, chance: random.Random) -> Drawn | None:
        found = _of_kind(program, chance, lambda kind, rest: kind.startswith(f"{name}:") and " " not in kind)
        if found is None:
            return None
        path, (kind, nodes) = found
        return _with(program, path, (f"{kind} {chance.choice(edits)}", nodes))

    return edit


def _of_all(*options: str, only: str = "") -> Edit:
    """An edit of what the program uses, which ``only`` leaves of a kind notice."""

    def edit(program: Drawn, chance: random.Random) -> Drawn | None:
        if program.options.intersection(options):
            return None
        if only and _of_kind(program, chance, lambda kind, rest: kind == only) is None:
            return None
        return Drawn(program.tree, program.plainly, program.options | {chance.choice(options)})

    return edit


EDITS: dict[str, Edit] = {
    "inserted": inserted,
    "removed": removed,
    "renamed": renamed,
    "reordered": reordered,
    "inputs changed": other_inputs,
    "loop bound changed": _of_fork("loop", "longer", "shorter"),
    "branch flipped": _of_fork("branch", "flipped"),
    "helper changed": _of_all("helper"),
    "return type grown": _of_all("grown", "anew", "upgraded", only="report"),
    "once no longer": once_no_longer,
    "moved inside": moved_inside,
    "payment moved": paying_moved,
}
