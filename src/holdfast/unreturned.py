"""Leases that could not be handed back, because the store was lost just then, or refused what was to be written."""

from __future__ import annotations

import threading

from .errors import CodecError, HoldfastError, StoreError
from .failure import Failure
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
            given = Batch(finishes=[end for end in ends.values() if end.run_no in held])
            refused = self._store.commit(given).refused
            left = {no: _after(ends[no], why) for no, why in refused.items() if isinstance(no, int)}
        except StoreError:
            left = ends
        if left:
            with self._lock:
                self._ends = {**left, **self._ends}


def _after(end: Finish, why: HoldfastError) -> Finish:
    """How a run is handed back whose hand-back was refused: the same again, or, where that is in vain, with nothing in
    it but why."""
    if not isinstance(why, CodecError):
        return end
    error = None if end.error is None else Failure(type(why).__name__, str(why)).encode()
    return Finish(run_no=end.run_no, epoch=end.epoch, status=end.status, error=error, parent_no=end.parent_no)
