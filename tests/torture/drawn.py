"""Programs drawn from a seed whose result does not depend on time: what they give without holdfast is what they must
give however often they are killed. Imported by the zygote.

The tree is drawn by the generator of tests/order; here stands what it means.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Coroutine
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import holdfast
from holdfast import step, workflow
from holdfast.workflow import Call

from . import drawn_steps as steps
from .drawn_steps import (
    ASYNC,
    INITIAL,
    LONGEST_S,
    PAYING,
    PLAIN,
    Event,
    World,
    break_on_first_trial,
    chance_of,
    digest,
    live,
)

import programs  # isort: skip - the steps have put its folder on the path

# -- steps and workflows of steps -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inside:
    """What the body of a nested call performs."""

    nodes: Any
    options: frozenset[str]
    guarded: bool


inside: dict[str, Inside] = {}  # by the tag of the nested call


async def _perform_inside(name: str, tag: str, plainly: bool) -> str:
    steps.now.tell("began", name, tag)
    told = inside[tag]
    performer = Performer(told.options, plainly=plainly)
    before = deepcopy(dict(holdfast.state)) if steps.now.number == 0 else {}
    try:
        return await performer.sequence(told.nodes, tag.partition(" ")[0], told.guarded)
    except Exception:
        if steps.now.number == 0:  # what fails leaves nothing behind
            for key in holdfast.state:
                del holdfast.state[key]
            holdfast.state.update(before)
        raise


@step(name="nest")
async def nest(tag: str) -> str:
    return await _perform_inside("nest", tag, plainly=False)


@step(name="nest, attempted", attempts=2, backoff=0.0001)
async def nest_attempted(tag: str) -> str:
    got = await _perform_inside("nest, attempted", tag, plainly=False)
    break_on_first_trial("nest, attempted", tag)
    return got


@workflow(name="child", version="1")
async def child(tag: str) -> str:
    return await _perform_inside("child", tag, plainly=False)


@step(name="nest in a thread")
def nest_plain(tag: str) -> str:
    return finished(_perform_inside("nest in a thread", tag, plainly=True))


@workflow(name="child in a thread", version="1")
def child_plain(tag: str) -> str:
    return finished(_perform_inside("child in a thread", tag, plainly=True))


ASYNC |= {"nest": nest, "attempted": nest_attempted, "child": child}
PLAIN |= {"nest": nest_plain, "attempted": nest_plain, "child": child_plain}


def finished(coroutine: Coroutine[Any, Any, str]) -> str:
    """The result of a coroutine that only calls plain code, on this thread."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return str(end.value)
    raise AssertionError("plain code has waited for a loop")


# -- programs -----------------------------------------------------------------------------------------------------


class Generator(programs.Generator):
    LEAVES = (
        *("fetch", "parse") * 2,
        "append",
        "put",
        "crunch",
        "flaky",
        "broken",
        "shaky",
        "report",
        "sleep",
        *PAYING * 2,
    )
    FORKS = ("sequence", "gather", "group", "loop", "branch", "guard", "nest", "attempted", "child", "thread")

    def node(self, depth: int, *, racing: bool = False) -> Any:
        """What asks a step how to go on has a tag for that."""
        kind, rest = super().node(depth, racing=racing)
        return (f"{kind}:{self.tag()}" if kind in ("loop", "branch") else kind), rest


@dataclass(frozen=True)
class Drawn:
    """A program. ``options`` say what else its code is like; ``plainly``: all of it is plain ``def`` code."""

    tree: Any
    plainly: bool
    options: frozenset[str] = field(default_factory=frozenset)

    def call(self, version: str = "1", on_change: str = "salvage") -> Call[list[Any]]:
        """The same program each time, whose steps are those of this process."""
        marked: Any = workflow(name="drawn", version=version, on_change=on_change)  # type: ignore[call-overload]
        if self.plainly:
            return marked(lambda: json.loads(finished(self._perform()))).bind()  # type: ignore[no-any-return]

        async def body() -> list[Any]:
            return json.loads(await self._perform())  # type: ignore[no-any-return]

        return marked(body)()  # type: ignore[no-any-return]

    async def _perform(self) -> str:
        got = await Performer(self.options, plainly=self.plainly).perform(self.tree, "", guarded=False)
        state = {key: sorted(holdfast.state[key]) for key in INITIAL}
        return json.dumps([got, state])

    def without(self) -> tuple[list[Any] | None, list[Event]]:
        """What it gives without holdfast (None: it fails), and what it books."""
        world = live(World(0))

        async def main() -> list[Any]:
            holdfast.state.update(deepcopy(INITIAL))  # begun here, its threads share it
            return json.loads(await self._perform())  # type: ignore[no-any-return]

        try:
            return asyncio.run(main()), _booked(world)
        except (LookupError, ConnectionError):
            return None, _booked(world)


def _booked(world: World) -> list[Event]:
    return [event[1:3] for event in world.events if event[0] == "booked"]


def drawn(seed: int) -> Drawn:
    generator = Generator(seed)
    tree = generator.tree()
    return Drawn(tree, plainly=generator.chance.random() < 0.2)


def without_peeks(node: Any) -> Any:
    """Of a program that is going to be edited: calls that are alike may take each other's results then."""
    kind, rest = node
    return ("fetch" if kind == "peek" else kind), rest if isinstance(rest, str) else [*map(without_peeks, rest)]


@dataclass
class Performer:
    """Interprets a tree. ``at``: the turns of the loops around, ``guarded``: a failure is caught further out."""

    options: frozenset[str]
    plainly: bool
    before: str = ""  # what the last call gave: some inputs are made of it

    async def perform(self, node: Any, at: str, guarded: bool) -> str:
        kind, rest = node
        if isinstance(rest, str):
            return await self._leaf(kind, f"{rest}{at}", guarded)
        if kind in ("sequence", "gather", "group", "guard"):
            return await getattr(self, kind)(rest, at, guarded)
        name, _, edit = kind.partition(":")
        return await getattr(self, f"_{name}")(rest, at, guarded, edit)

    async def _call(self, kind: str, tag: str) -> Any:
        if self.plainly:
            return PLAIN[kind](tag)
        if kind == "crunch":
            return await asyncio.to_thread(PLAIN[kind], tag)
        return await ASYNC[kind](tag)

    async def _leaf(self, kind: str, tag: str, guarded: bool) -> str:
        if "helper" in self.options and chance_of(tag, "helped") < 0.3:
            tag += " helped"
        if self.before and chance_of(tag, "after") < 0.25:
            tag += f" after {self.before}"
        if kind == "sleep":
            if not self.plainly and steps.now.number:
                await holdfast.sleep(LONGEST_S * chance_of(tag))
            return "slept"
        if kind == "shaky" and not guarded:
            tag += "!"
        if kind == "report":
            kind += next((f", {each}" for each in ("grown", "anew", "upgraded") if each in self.options), "")
        if chance_of(tag, "seen") < 0.2:
            holdfast.state["seen"].append(tag)
        try:
            got = await self._call(kind, tag)
        except Exception as error:
            if kind != "broken" or chance_of(tag, "caught") < 0.3:
                raise
            got = error.message if isinstance(error, holdfast.StepFailed) else error
        self.before = digest(str(got))
        return str(got)

    async def sequence(self, nodes: Any, at: str, guarded: bool) -> str:
        return _joined([await self.perform(each, at, guarded) for each in nodes])

    async def guard(self, nodes: Any, at: str, guarded: bool) -> str:
        got = []
        try:
            for each in nodes:
                got.append(await self.perform(each, at, True))
        except Exception:
            got.append("failed")
        return _joined(got)

    async def gather(self, nodes: Any, at: str, guarded: bool) -> str:
        if self.plainly or steps.now.number == 0:
            return _joined([await self._apart(each, at) for each in nodes])
        got = await asyncio.gather(*(self._unguarded(each, at) for each in nodes), return_exceptions=True)
        return _joined(["failed" if isinstance(each, BaseException) else each for each in got])

    async def group(self, nodes: Any, at: str, guarded: bool) -> str:
        if self.plainly or steps.now.number == 0:
            return await self.gather(nodes, at, guarded)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._apart(each, at)) for each in nodes]
        return _joined([task.result() for task in tasks])

    async def _unguarded(self, node: Any, at: str) -> str:
        return await replace(self).perform(node, at, True)

    async def _apart(self, node: Any, at: str) -> str:
        """Beside others, which what it has gone through says nothing of."""
        try:
            return await self._unguarded(node, at)
        except Exception:
            return "failed"

    async def _loop(self, nodes: Any, at: str, guarded: bool, edit: str) -> str:
        tag, _, edit = edit.partition(" ")
        bound = await self._call("count", f"{tag}{at}") + {"longer": 1, "shorter": -1}.get(edit, 0)
        return _joined([await self.sequence(nodes, f"{at}/{turn}", guarded) for turn in range(bound)])

    async def _branch(self, nodes: Any, at: str, guarded: bool, edit: str) -> str:
        tag, _, edit = edit.partition(" ")
        way = await self._call("decide", f"{tag}{at}") != (edit == "flipped")
        return await self.perform(nodes[0 if way else -1], at, guarded)

    async def _nest(self, nodes: Any, at: str, guarded: bool, edit: str, kind: str = "nest") -> str:
        return str(await self._call(kind, self._put_inside(nodes, at, guarded)))

    async def _attempted(self, nodes: Any, at: str, guarded: bool, edit: str) -> str:
        return await self._nest(nodes, at, guarded, edit, "attempted")

    async def _child(self, nodes: Any, at: str, guarded: bool, edit: str) -> str:
        return await self._nest(nodes, at, guarded, edit, "child")

    async def _thread(self, nodes: Any, at: str, guarded: bool, edit: str) -> str:
        tag = self._put_inside(nodes, at, guarded)
        return nest_plain(tag) if self.plainly else await asyncio.to_thread(nest_plain, tag)

    def _put_inside(self, nodes: Any, at: str, guarded: bool) -> str:
        """Its inputs are its code, so that other code inside is another call."""
        told = Inside(nodes, self.options, guarded)
        tag = f"{at} {digest(told.nodes, sorted(told.options), guarded)}"
        inside[tag] = told
        return tag


def _joined(got: list[str]) -> str:
    text = " ".join(got)
    return text if len(text) <= 400 else f"{text[:200]} … {digest(text)}"


def nodes_of(node: Any, *path: int) -> Any:
    """(path, node) of each node, the root first."""
    yield path, node
    if not isinstance(node[1], str):
        yield from itertools.chain.from_iterable(nodes_of(each, *path, k) for k, each in enumerate(node[1]))
