"""Which recorded result belongs to which call of a model, a tool or a node."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.past import attempts_of
from holdfast.recall import OPEN, Place, place_of
from holdfast.store import Checkpoint


class Results:
    """A call is answered with the record at its place, if it was given the same. Where another record stands there, it
    may be answered with one of the same name and inputs from the same scope; where none does, the call was in flight.
    A new attempt that other code has begun takes what was recorded before, by name and inputs."""

    def __init__(self, rows: Iterable[Checkpoint]) -> None:
        self._here: dict[Place, Checkpoint] = {}
        self._intents: dict[Place, Checkpoint] = {}
        self._earlier: list[Checkpoint] = []
        self._claimed: set[int] = set()
        self.call_ids: set[str] = set()  # of function calls that this process has met in a model's responses
        attempts = list(attempts_of(rows))
        keeps_all = attempts[-1].keeps_results
        once: set[Place] = set()
        for attempt in attempts:
            self._here = {}
            for row in attempt.rows:
                if row.kind == "step":
                    self._put(row, once)
            if attempt is not attempts[-1]:
                self._earlier += [row for row in self._here.values() if keeps_all or place_of(row) in once]
        # What a person has settled since.
        self._earlier += [row for row in self._here.values() if place_of(row) in once]

    def _put(self, row: Checkpoint, once: set[Place]) -> None:
        place = place_of(row)
        if row.status == "intent":
            self._intents[place] = row
            once.add(place)
            return
        self._intents.pop(place, None)
        if row.status not in OPEN:
            self._here[place] = row

    def find(self, asked: Checkpoint) -> Checkpoint | None:
        """The result of the call that ``asked`` describes, now claimed by it."""
        here = self._here.get(place_of(asked))
        if here is not None and _fits(here, asked) and here.seq not in self._claimed:
            return self._claim(here)
        others: list[Checkpoint] = []
        if here is not None or asked.key is not None:
            others += [row for row in self._here.values() if row.scope == asked.scope and row.key not in self.call_ids]
        if here is None:
            others += self._earlier
        for row in others:
            if row.name == asked.name and _fits(row, asked) and row.seq not in self._claimed:
                return self._claim(row)
        return None

    def begun(self, asked: Checkpoint) -> Checkpoint | None:
        """The intent with which another process, or an attempt of other code, began this call, if nothing closes it."""
        for intent in self._intents.values():
            is_other = intent.key in self.call_ids and intent.key != asked.key
            if intent.name == asked.name and intent.fingerprint == asked.fingerprint and not is_other:
                return intent
        return None

    @property
    def unmet(self) -> Checkpoint | None:
        """The first intent that nothing closes, of a call that this process has not met."""
        open_ = (intent for intent in self._intents.values() if intent.key not in self.call_ids)
        return min(open_, key=lambda row: row.seq, default=None)

    def settled(self, intent: Checkpoint) -> None:
        """It is known what came of it."""
        self._intents.pop(place_of(intent), None)

    def _claim(self, row: Checkpoint) -> Checkpoint:
        self._claimed.add(row.seq)
        return row


def _fits(row: Checkpoint, asked: Checkpoint) -> bool:
    return row.fingerprint == asked.fingerprint and row.version == asked.version
