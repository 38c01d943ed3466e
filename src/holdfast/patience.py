"""How long a resume waits for a call that its record says comes first.

The code seems to be at rest and has not made that call: then a thread, a timer or a socket of the program is still on
its way to it, or the code has changed. Threads are waited for; the others for about as long as they took before, and
within the patience of the whole run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .recall import Records
from .store import Checkpoint

PATIENCE_S = 5.0  # all in all, in one run


class Patience:
    """``has_moving_thread`` tells whether a thread of the run is on its way to a call."""

    def __init__(
        self, records: Records, loop: asyncio.AbstractEventLoop, has_moving_thread: Callable[[], bool]
    ) -> None:
        self._records = records
        self._loop = loop
        self._has_moving_thread = has_moving_thread
        self._left_s = PATIENCE_S
        self._awaited: Checkpoint | None = None
        self._awaited_since = 0.0
        self._began_ms: dict[int, int] = {}  # by epoch, when the first of the recorded calls began

    def must_wait(self, seq: int) -> bool:
        """Whether a record earlier than ``seq`` has not been asked for, and may be yet."""
        while (row := self._records.missing_before(seq)) is not None:
            now = self._loop.time()
            if row is not self._awaited:
                self._awaited, self._awaited_since = row, now
            waited = now - self._awaited_since
            if waited < min(self.usual_s(row), self._left_s) or self._has_moving_thread():
                return True
            self._left_s -= waited
            self._records.give_up(row)
        self._awaited = None
        return False

    def usual_s(self, row: Checkpoint) -> float:
        """How long after its start a process came to this call, and half as much again."""
        if not self._began_ms:
            for each in self._records.rows:
                if not each.attempts:
                    continue  # kept from another version, with the times of then
                self._began_ms[each.epoch] = min(each.started_ms, self._began_ms.get(each.epoch, each.started_ms))
        began_ms = self._began_ms.get(row.epoch, row.started_ms)
        return 1.5 * (row.started_ms - began_ms) / 1000 + 0.25 if row.attempts else 0.25
