"""The time that ``now()`` tells a workflow's body: that of the last outcome delivered to it, so the same on every
resume."""

from __future__ import annotations

from .recall import enclosing, place_of, scope_of
from .store import Checkpoint


class LogicalTime:
    """``began_ms`` is when the run was created; all times are in milliseconds since the Unix epoch."""

    def __init__(self, began_ms: int) -> None:
        self._told_ms = {"": began_ms}  # by scope, when the last outcome delivered in it had ended
        self._begun_ms: dict[str, int] = {}  # of the scopes that do not see the time of what is around them go on

    def begins(self, scope: str, ms: int) -> None:
        """In ``scope`` it is ``ms``, whatever is delivered around it meanwhile, until something is delivered in it."""
        self._begun_ms[scope] = ms

    def delivering(self, row: Checkpoint) -> None:
        scope, ended = row.scope, row.started_ms + int(row.duration_ms)
        if ended > self._told_ms.get(scope, 0):
            self._told_ms[scope] = ended
        if self._begun_ms or len(self._told_ms) > 1:
            inside = scope_of(*place_of(row))  # is over
            self._told_ms.pop(inside, None)
            self._begun_ms.pop(inside, None)

    def ms(self, scope: str) -> int:
        """The insides of other calls are left out: once these are finished, a resume does not live through them
        again."""
        latest = self._told_ms[""]
        for outer in enclosing(scope) if scope else ():
            latest = max(self._begun_ms.get(outer, latest), self._told_ms.get(outer, 0))
        return latest
