"""Which recorded result belongs to which call of a model, a tool or a node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from holdfast.past import attempts_of
from holdfast.recall import OPEN
from holdfast.store import Checkpoint

Place: TypeAlias = tuple[str, str, str | None, int]  # scope, name, key, n


class Results:
    """A call is answered with the record at its place, if it was given the same. Where another record stands there, it
    may be answered with one of the same name and inputs from the same scope; where none does, the call was in flight.
    A new attempt that other code has begun takes what was recorded before, by name and inputs."""

    def __init__(self, rows: Iterable[Checkpoint]) -> None:
        attempts = list(attempts_of(rows))
        self._here: dict[Place, Checkpoint] = {}
        self._intents: dict[Place, Checkpoint] = {}
        self._earlier: list[Checkpoint] = []
        self._claimed: set[int] = set()
        self.call_ids: set[str] = set()  # of function calls that this process has met in a model's responses
        for row in attempts[-1].rows:
            self._put(row)
        keeps_all = attempts[-1].keeps_results
        for attempt in attempts[:-1]:
            once = {_place(row) for row in attempt.rows if row.status == "intent"}
            for row in attempt.rows:
                if row.kind == "step" and row.status == "done" and (keeps_all or _place(row) in once):
                    self._earlier.append(row)

    def _put(self, row: Checkpoint) -> None:
        if row.kind != "step":
            return
        if row.status == "intent":
            self._intents[_place(row)] = row
        elif row.status not in OPEN:
            self._here[_place(row)] = row
            self._intents.pop(_place(row), None)
        else:
            self._intents.pop(_place(row), None)

    def find(self, asked: Checkpoint) -> Checkpoint | None:
        """The result of the call that ``asked`` describes, now claimed by it."""
        here = self._here.get(_place(asked))
        if here is not None and _fits(here, asked) and here.seq not in self._claimed:
            return self._claim(here)
        if here is not None or asked.key is not None:
            for row in self._here.values():
                of_another_call = row.key is not None and row.key in self.call_ids
                if row.scope == asked.scope and row.name == asked.name and _fits(row, asked) and not of_another_call:
                    if row.seq not in self._claimed:
                        return self._claim(row)
        if here is None:
            for row in self._earlier:
                if row.name == asked.name and _fits(row, asked) and row.seq not in self._claimed:
                    return self._claim(row)
        return None

    def begun(self, asked: Checkpoint) -> Checkpoint | None:
        """The intent with which another process began this call, if nothing closes it."""
        intent = self._intents.get(_place(asked))
        return intent if intent is not None and _fits(intent, asked) else None

    @property
    def intents(self) -> list[Checkpoint]:
        """Those that nothing closes."""
        return sorted(self._intents.values(), key=lambda row: row.seq)

    def settled(self, intent: Checkpoint) -> None:
        self._intents.pop(_place(intent), None)

    def _claim(self, row: Checkpoint) -> Checkpoint:
        self._claimed.add(row.seq)
        return row


def _place(row: Checkpoint) -> Place:
    return row.scope, row.name, row.key, row.n


def _fits(row: Checkpoint, asked: Checkpoint) -> bool:
    return row.fingerprint == asked.fingerprint and row.version == asked.version
