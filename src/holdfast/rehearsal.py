"""Where a run that only rehearses its program stops: at each call whose outcome is not recorded, for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from . import codec
from .branches import Frame, frame_of, is_of_executor
from .diverging import called, in_words, readable_inputs
from .doubt import open_intents
from .recall import scope_of
from .resting import Rest
from .store import Checkpoint
from .whereabouts import Line, line_of

if TYPE_CHECKING:
    from .run import LiveRun


class Unrecorded(NamedTuple):
    """A call that would be executed, or a wait that would be waited. ``again``: its recorded failure ended the run, and
    is tried anew. ``in_doubt``: it is executed once, and has begun without an outcome, so it would stop the run or ask
    ``verify=``."""

    kind: str
    name: str
    call: str  # in words
    place: str  # in words, "" in the workflow's own body
    scope: str  # that its body would open
    inputs: Any
    line: Line | None
    again: bool
    in_doubt: bool


class Rehearsal:
    """The calls at which the branches of a run rest."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._threads: set[int] = set()
        self.would: list[Unrecorded] = []
        self.is_at_rest = False

    async def rest(self, frame: Frame, row: Checkpoint) -> None:
        """``row`` is the one that the call would fill in. Does not return."""
        again = self._run.records.retries(frame, row.name, row.key, row.n)
        scope = scope_of(row.scope, row.branch, row.name, row.key, row.n)
        inputs = readable_inputs(row.kind, row.inputs or codec.encode_inputs({}, ""))
        place = (row.scope, row.branch, row.name, row.key, row.n)
        begun = open_intents(self._run.records.rows)
        in_doubt = any((each.scope, each.branch, each.name, each.key, each.n) == place for each in begun)
        words = called(row), in_words(row.scope, row.branch)
        self.would.append(Unrecorded(row.kind, row.name, *words, scope, inputs, line_of(frame), again, in_doubt))
        self._run.records.expect_nothing_inside(scope)
        if frame.thread:
            self._threads.add(frame.thread)
        self._run.delivery.stir()
        while True:
            try:
                await self._run.halt()
            except asyncio.CancelledError:
                if self._run.is_leaving:
                    raise
                # A timer of the program's, say: whether the call would still be under way then, nobody knows.
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()

    def look(self) -> None:
        """Ask, when the code has come to rest, whether nothing can move it any more."""
        self._run.delivery.when_at_rest(self._looked)

    def _looked(self) -> Rest:
        self.is_at_rest = self._is_still()
        return Rest.WORKS

    def _is_still(self) -> bool:
        """Whether nothing is left on the loop, which is the run's alone, that could move its code. A time limit around
        a call counts for nothing: it would cut short what nobody executes here."""
        run, loop = self._run, cast("Any", self._run.loop)
        if (
            run.pendings
            or not run.delivery.is_empty
            or any(row.kind != "workflow" for row, _ in run.under_way.values())
        ):
            return False
        if loop._ready or len(loop._selector.get_map() or ()) > 1:  # one is the loop's own
            return False
        if any(not handle.cancelled() and _callback_of(handle) not in _LIMITS for handle in loop._scheduled):
            return False
        root = run.root
        if root is not None and root.task is None and root.thread not in self._threads:
            return False
        return not any(map(self._is_in_thread, run.members))

    def _is_in_thread(self, task: asyncio.Task[Any]) -> bool:
        """Whether it awaits a thread that is not itself at rest."""
        frame = frame_of(task)
        at_rest = frame is not None and frame.thread in self._threads
        return not at_rest and is_of_executor(getattr(task, "_fut_waiter", None))


_LIMITS = frozenset({"_on_timeout", "_release_waiter"})  # what asyncio's timeouts and waits have called when time is up


def _callback_of(handle: Any) -> str:
    return getattr(handle._callback, "__name__", "")
