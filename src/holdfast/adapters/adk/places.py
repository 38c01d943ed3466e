"""Where in an invocation a call is made: which agent or node, inside which other, the how manieth of its kind.

A place is the same in every process that goes through the invocation: agents are told apart by name and by how often
they ran before inside the same one, nodes also by what they are given, so that an item inserted into a list takes no
other item's place."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .turn import Turn

T = TypeVar("T")

_current: ContextVar[Place | None] = ContextVar("holdfast_adk_place", default=None)


class Place:
    """``scope`` names it. ``holds_others``: an agent, a node or a call was made inside, so that it is gone through
    again rather than recalled as a whole."""

    def __init__(self, turn: Turn, scope: str = "", outer: Place | None = None) -> None:
        self.turn = turn
        self.scope = scope
        self.holds_others = False
        self._outer = outer
        self._counts: dict[str, int] = {}

    def count(self, name: str) -> int:
        """How many of this name were made here before; this one counts from now on."""
        n = self._counts.get(name, 0)
        self._counts[name] = n + 1
        return n

    def inside(self, name: str) -> Place:
        """The place that an agent, a node or a tool opens here."""
        here = f"{name}#{self.count(name)}"
        return Place(self.turn, f"{self.scope} > {here}" if self.scope else here, self)

    def is_passed_through(self) -> None:
        """Something goes on inside that is recorded by itself, or leaves events of its own."""
        place: Place | None = self
        while place is not None and not place.holds_others:
            place.holds_others = True
            if self.turn.invocation is not None:
                self.turn.invocation.landed(place)
            place = place._outer


def current_place() -> Place | None:
    """Where the code that asks is; None outside of every invocation that holdfast looks after."""
    return _current.get()


def enter(place: Place) -> None:
    """From here on this task is inside ``place``."""
    _current.set(place)


async def go_through(place: Place | None, steps: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """``steps``, each of them taken inside ``place``. What is between two of them belongs to who asks for them."""
    async with aclosing(steps):
        while True:
            token = _current.set(place)
            try:
                step = await anext(steps)
            except StopAsyncIteration:
                return
            finally:
                _current.reset(token)
            yield step
