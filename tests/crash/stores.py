"""Stores that fail, wait and watch when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from holdfast import Holdfast
from holdfast.store import Batch, Committed, Store


class Wrapped:
    """Any store, with a commit of the test's own around the store's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[Batch] = []  # that went through

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def commit(self, batch: Batch) -> Committed:
        committed = self.store.commit(batch)
        self.batches.append(batch)
        return committed

    @property
    def seqs(self) -> list[int]:
        """Of the rows written, in the order of writing."""
        return [row.seq for batch in self.batches for row in batch.appends]


class Gated(Wrapped):
    """Commits wait at the gate while it is closed."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()

    def commit(self, batch: Batch) -> Committed:
        if not self.gate.is_set():
            self.at_gate.set()
            assert self.gate.wait(20)
        return super().commit(batch)


class Failing(Wrapped):
    """The commits for which ``when`` is true raise ``error``; ``late``: after they were written all the same."""

    def __init__(self, store: Store, when: Callable[[Batch], bool], error: Exception, *, late: bool = False) -> None:
        super().__init__(store)
        self.when, self.error, self.late = when, error, late
        self.asked: list[Batch] = []

    def commit(self, batch: Batch) -> Committed:
        self.asked.append(batch)
        if not self.when(batch):
            return super().commit(batch)
        if self.late:
            super().commit(batch)
        raise self.error


def on(store: Any) -> Holdfast:
    return Holdfast(store)
