"""Which recorded values that are kept beside their rows may be in memory before their turn: a few.

A resume that asks for a thousand of them at once is to hold no thousand. What is delivered next must always be able to
come, or all would wait for it.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

AHEAD_MAX = 8
LAST = 2**63  # the turn of what is numbered only when it has come


class Bringing:
    """Of one run, on its loop."""

    def __init__(self) -> None:
        self._turns: list[int] = []  # of those that are in memory, or on their way there
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = count()

    def enter(self, turn: int) -> asyncio.Future[None]:
        """Done when what is delivered at this ``turn`` may be brought."""
        free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (turn, next(self._count), free))
        self._let_in()
        return free

    def leave(self, turn: int, entered: asyncio.Future[None]) -> None:
        """It has been delivered, or nobody waits for it any more."""
        if entered.done() and not entered.cancelled():
            self._turns.remove(turn)
            self._let_in()
        else:
            entered.cancel()

    def _let_in(self) -> None:
        while self._waiting and (len(self._turns) < AHEAD_MAX or self._waiting[0][0] < min(self._turns)):
            turn, _, free = heapq.heappop(self._waiting)
            if not free.done():
                self._turns.append(turn)
                free.set_result(None)
