"""The signals sent to a run, and which of them its waits have taken.

What was taken is told by the checkpoints: an outcome holds the number of its signal, so that taking it and going on are
one commit. Nothing in the mailbox itself ever changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from . import codec
from .store import BEFORE_ALL, Checkpoint, Signal
from .store.damage import flaw_of_signal, legible


class Mailbox:
    """Mail by name, first in first out. ``rows``: what the run began with."""

    def __init__(self, rows: list[Checkpoint]) -> None:
        self._rows: list[Checkpoint] | None = rows
        self._taken: set[int] = set()
        self._mail: dict[str, deque[Signal]] = {}
        self.last_n = BEFORE_ALL  # the last one seen that is as it was sent
        self.damaged: list[Signal] = []  # and not told yet
        self._strange: set[int] = set()  # the numbers of all that were damaged

    def put(self, signals: Iterable[Signal]) -> list[str]:
        """The names that there is new mail of. Of what was damaged on its way nobody can tell whom it is for."""
        names: list[str] = []
        if self._rows is not None:
            self._taken = {n for row in self._rows if (n := signal_taken_by(row)) is not None}
            self._rows = None
        for signal in signals:
            if flaw_of_signal(signal) is not None:
                if signal.n not in self._strange:
                    self._strange.add(signal.n)
                    self.damaged.append(legible(signal))
            elif signal.n > self.last_n:
                self.last_n = signal.n
                if signal.n not in self._taken:
                    self._mail.setdefault(signal.name, deque()).append(signal)
                    names.append(signal.name)
        return names

    def first(self, name: str) -> Signal | None:
        mail = self._mail.get(name)
        return mail[0] if mail else None

    def take(self, signal: Signal) -> None:
        """The first of its name."""
        mail = self._mail[signal.name]
        assert mail[0] is signal
        mail.popleft()
        if not mail:
            del self._mail[signal.name]

    def give_back(self, signal: Signal) -> None:
        """The wait it was meant for was cancelled before that was recorded."""
        mail = [*self._mail.get(signal.name, ()), signal]
        self._mail[signal.name] = deque(sorted(mail, key=lambda each: each.n))


def signal_taken_by(row: Checkpoint) -> int | None:
    """The number of the signal that a row of a wait has taken, or set aside; None if it has none."""
    if row.kind != "signal" or row.status not in ("done", "refused") or row.result is None:
        return None
    told: Any = codec.readable(row.result)
    n = told.get("signal") if isinstance(told, dict) else None
    return n if isinstance(n, int) else None
