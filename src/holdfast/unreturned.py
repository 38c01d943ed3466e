"""Leases that could not be handed back, because the store was lost just then."""

from __future__ import annotations

import threading

from .errors import StoreError
from .store import Batch, Finish, Store


class Unreturned:
    """The heartbeat prolongs whatever its owner holds, and nobody here advances these any more: as long as the process
    lives, nobody else would get them. So they are handed back as soon as the store answers again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ends: dict[int, Finish] = {}
        self._lock = threading.Lock()

    def add(self, end: Finish) -> None:
        with self._lock:
            self._ends[end.run_no] = end

    def renewed(self, held: set[int] | None) -> None:
        """Told by the heartbeat, on the journal's thread. What was claimed anew meanwhile has another epoch."""
        if held is None or not self._ends:
            return
        with self._lock:
            ends, self._ends = self._ends, {}
        try:
            self._store.commit(Batch(finishes=[end for end in ends.values() if end.run_no in held]))
        except StoreError:
            with self._lock:
                self._ends = {**ends, **self._ends}
