"""The steps of drawn programs, and the ledger of what they do. Imported by the zygote.

A step's value follows from its name and its inputs, and no call of a program has the inputs of another one, so that the
ledger tells what was executed twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import holdfast
from holdfast import NOT_DONE, step

from .case import ROOT

sys.path.insert(0, str(ROOT / "tests" / "order"))
import programs

Event = tuple[str, ...]
LONGEST_S = 0.001
INITIAL: dict[str, Any] = {"log": [], "table": {}, "seen": []}


class World:
    """One life of a program, and its ledger: ("began" | "booked", name of the step, tag, idempotency key).

    ``number``: of this life; 0 is the one without holdfast, where all goes well. ``booked``: what the bank has booked
    before it. ``told``: where the ledger is kept if a process may die.
    """

    def __init__(
        self, number: int, timing: int = 0, booked: set[Event] | None = None, told: Path | None = None
    ) -> None:
        self.number = number
        self.events: list[Any] = []
        self._timing = timing
        self._booked = set() if booked is None else booked
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = None if told is None else os.open(told, flags, 0o600)
        self._trials = programs.World(timing)

    def tell(self, what: str, name: str, tag: str, key: str = "") -> None:
        if self._fd is not None:
            os.write(self._fd, (json.dumps([what, name, tag, key]) + "\n").encode())
        self.events.append((what, name, tag, key))
        if what == "booked":
            self._booked.add((name, tag))

    def has_booked(self, name: str, tag: str) -> bool:
        return (name, tag) in self._booked

    def is_first_trial(self, name: str, tag: str) -> bool:
        self._trials.enter(name, tag)
        return self._trials.began.count((name, tag)) == 1

    def pause_s(self, name: str, tag: str) -> float | None:
        chance = random.Random(f"{self._timing}/{name}/{tag}")
        kind = chance.random()
        return None if not self._timing or kind < 0.5 else 0.0 if kind < 0.8 else chance.uniform(0.0, LONGEST_S)


now = World(0)


def live(world: World) -> World:
    """What is executed from now on is told to ``world``."""
    global now
    now = world
    return world


def digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=3).hexdigest()


def chance_of(*parts: object) -> float:
    return int(digest(*parts), 16) / 0x1000000


def value_of(name: str, tag: str) -> str:
    return f"{name}:{digest(name, tag)}"


# -- steps: each there is twice, async and plain ----------------------------------------------------------------


class Refused(Exception):
    """Certainly nothing was booked."""


def _nothing(name: str, tag: str) -> None:
    pass


def _append(name: str, tag: str) -> None:
    holdfast.state["log"].append(tag)


def _put(name: str, tag: str) -> None:
    holdfast.state["table"][tag] = digest(tag)


def _break(name: str, tag: str) -> None:
    raise LookupError(tag)


def _break_at_first(name: str, tag: str) -> None:
    if now.number == 1 and tag.endswith("!"):
        raise ConnectionError(tag)


def break_on_first_trial(name: str, tag: str) -> None:
    if now.number and now.is_first_trial(name, tag):
        raise ConnectionError(tag)


def _book(name: str, tag: str) -> None:
    now.tell("booked", name, tag, holdfast.idempotency_key())


def _refuse_or_book(name: str, tag: str) -> None:
    if now.number and chance_of(tag, "refused") < 0.5 and now.is_first_trial(name, tag):
        raise Refused
    _book(name, tag)


Act = Callable[[str, str], None]
ASYNC: dict[str, Any] = {}
PLAIN: dict[str, Any] = {}


def _both(
    kind: str, act: Act = _nothing, *, name: str = "", value: Callable[[str, str], Any] = value_of, **options: Any
) -> None:
    """A step named ``name`` for calls of ``kind``; a plain one has a name of its own, as it is another function."""

    async def acting(tag: str) -> Any:
        now.tell("began", here, tag)
        pause_s = now.pause_s(here, tag)
        if pause_s is not None:
            await asyncio.sleep(pause_s)
        act(here, tag)
        if pause_s:
            await asyncio.sleep(pause_s)
        return value(here, tag)

    def acting_plainly(tag: str) -> Any:
        now.tell("began", there, tag)
        time.sleep(now.pause_s(there, tag) or 0.0)
        act(there, tag)
        return value(there, tag)

    here = name or kind
    there = f"{here} in a thread"

    def look(tag: str) -> Any:
        return value(there, tag) if now.has_booked(there, tag) else NOT_DONE

    async def looking(tag: str) -> Any:
        return value(here, tag) if now.has_booked(here, tag) else NOT_DONE

    asked = options.pop("verified", False)
    ASYNC[kind] = step(name=here, **options, **({"verify": looking} if asked else {}))(acting)
    PLAIN[kind] = step(name=there, **options, **({"verify": look} if asked else {}))(acting_plainly)


@dataclass
class Report:
    pages: int


@dataclass
class Grown:
    pages: int
    words: int


for each in (Report, Grown):
    each.__qualname__ = "Report"


def _pages(name: str, tag: str) -> int:
    return int(digest(tag), 16) % 100


def _grow(old: Any) -> Grown:
    return Grown(old["pages"], 2 * old["pages"])


for kind in ("fetch", "parse", "crunch", "fetch, renamed"):
    _both(kind)
_both("peek", ignore="tag")  # its calls are alike, and what they give is not: each is known by its place alone
_both("append", _append)
_both("put", _put)
_both("broken", _break)
_both("shaky", _break_at_first)
_both("flaky", break_on_first_trial, attempts=3, backoff=0.0001)
_both("count", value=lambda name, tag: 1 + int(digest(tag), 16) % 3, returns=int)
_both("decide", value=lambda name, tag: chance_of(tag) < 0.5, returns=bool)
_both("report", value=lambda name, tag: Report(_pages(name, tag)), returns=Report)
for kind, options in {
    "report, grown": {},
    "report, anew": {"version": 2},
    "report, upgraded": {"version": 2, "upgrade": {"": _grow}},
}.items():
    _both(
        kind,
        name="report",
        value=lambda name, tag: Grown(_pages(name, tag), 2 * _pages(name, tag)),
        returns=Grown,
        **options,
    )
_both("pay", _book, once=True)
_both("pay, renamed", _book, once=True)
_both("pay, once no longer", _book, name="pay")
_both("pay by key", _book, once=True, key=lambda tag: tag)
_both("pay, verified", _book, once=True, verified=True)
_both("pay, refusable", _refuse_or_book, once=True, not_done=Refused, attempts=2, backoff=0.0001)

PAYING = ("pay", "pay by key", "pay, verified", "pay, refusable")
