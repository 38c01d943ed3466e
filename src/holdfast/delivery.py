"""The recorded order is repeated.

Whatever depends on completion order (queues, locks, first-completed, tasks spawned by finishing ones) repeats on
resume if outcomes reach the workflow in ``seq`` order, one at a time, each after the code woken by the one before has
come to rest; in the first execution as on recall.

*At rest* means: H turns of the event loop have passed without a new call, H = max(16, 2·depth + 2) with the depth of
the deepest task. An outcome wakes its caller through at most 2·depth + 1 turns (measured through gather, shield,
TaskGroup, ``wait_for``, ``as_completed``). Looking into the loop's ready queue would not do: uvloop has none, and the
checks of two runs would keep each other awake.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import CodecError, HoldfastError, StateConflict
from .resting import Rest
from .state import decode_change
from .store import Checkpoint

if TYPE_CHECKING:
    from .branches import Frame

_TURNS_MIN = 16
_THREAD_GRACE_S = 0.05
_LOOK_AGAIN_S = 0.001


class Stop(BaseException):
    """What carries a public error out of a run past every ``except Exception``; ``hf.run`` raises the error inside."""

    def __init__(self, error: HoldfastError) -> None:
        self.error = error
        super().__init__(f"{type(error).__name__}: {error}")


class Pending:
    """An outcome under way to its caller: recorded or being recorded, not delivered yet."""

    __slots__ = ("_changed", "_error", "_frame", "_future", "_in_thread", "_settled", "row")

    def __init__(self, frame: Frame, row: Checkpoint, *, changed: bool, in_thread: bool) -> None:
        self.row = row
        self._frame = frame
        self._changed = changed
        self._in_thread = in_thread
        self._future: asyncio.Future[None] | None = None
        self._settled = False
        self._error: BaseException | None = None
        frame.run.pendings.add(self)

    def committed(self, _: Any, error: HoldfastError | None) -> None:
        """Told by the journal, on the loop."""
        run = self._frame.run
        if error is not None:
            run.poison(error)
        elif run.stop is None:
            run.in_turn(self)

    def deliver(self) -> None:
        """Its turn has come: apply its change of state, and wake the caller."""
        frame, run, row = self._frame, self._frame.run, self.row
        run.delivering(row)
        error: BaseException | None = None
        try:
            # Live from the row too: what the step left in the state may be in others' hands, and change meanwhile.
            if self._changed:
                frame.view.apply(decode_change(row), row.seq)
        except StateConflict as conflict:
            error = StateConflict(f"run {run.id!r}, step {row.name!r}: {conflict}")
        except CodecError as unreadable:
            error = run.cannot_read(row, unreadable)
        if self._in_thread:
            frame.moving = run.delivery.follow_thread(frame.task)
        self.settle(error)

    def settle(self, error: BaseException | None = None) -> None:
        if not self._settled:
            self._settled, self._error = True, error
            self._frame.run.pendings.discard(self)
            if self._future is not None and not self._future.done():
                self._future.set_result(None)

    async def wait(self) -> None:
        """Wait for delivery. Raises ``Stop`` if the run must stop, ``StateConflict`` if the change does not apply.

        An outcome that is recorded wins over a cancellation that comes after it, else the record and the program
        would tell two stories; the cancellation reaches the task at its next pause."""
        run, interrupted = self._frame.run, False
        while not self._settled:
            self._future = run.loop.create_future()
            try:
                await self._future
            except asyncio.CancelledError:
                if run.is_leaving and not isinstance(self._error, Stop):
                    raise
                interrupted = True
        if self._error is not None:
            if isinstance(self._error, Stop):
                raise Stop(self._error.error)  # one of its own for each task that meets it
            raise self._error
        if interrupted:
            task = asyncio.current_task()
            assert task is not None
            run.loop.call_soon(pass_on_cancellation, task)


def cancel_once(task: asyncio.Task[Any]) -> None:
    """A second cancellation would take from the program the time to unwind that the first has given it."""
    if not task.cancelling():
        task.cancel()


def pass_on_cancellation(task: asyncio.Task[Any]) -> None:
    """A cancellation that came after the outcome was recorded reaches the task at its next pause, if it stands."""
    if not task.done() and task.cancelling():
        task.uncancel()
        task.cancel()


class Delivery:
    """The outcomes of one run that wait for their turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, must_wait: Callable[[int], bool] = lambda _: False) -> None:
        self._loop = loop
        self._must_wait = must_wait  # whether something recorded before this ``seq`` has not been asked for yet
        self._looking = False
        self._ready: list[tuple[int, int, Pending]] = []
        self._pushed = 0
        self._held: set[int] = set()
        self._threads = 0  # threads that were handed an outcome and have not come to rest
        self._turns = 0
        self._turning = False
        # How much the run only waits, to be asked when the code has come to rest, and what was answered last.
        self._asked: Callable[[], Rest] | None = None
        self.rest = Rest.WORKS
        self.rests: Callable[[Rest], None] = lambda _: None
        self.turns_needed = _TURNS_MIN

    def deepen(self, depth: int) -> None:
        self.turns_needed = max(self.turns_needed, 2 * depth + 2)

    def stir(self) -> None:
        """The run's code is moving: whatever waits must see it at rest anew."""
        self._turns = 0
        self._rests(Rest.WORKS)

    def _rests(self, rest: Rest) -> None:
        if rest is not self.rest:
            self.rest = rest
            self.rests(rest)

    def when_at_rest(self, then: Callable[[], Rest]) -> None:
        """Ask, when the code is at rest and no outcome is under way, how it ``rests`` until outside moves it."""
        self._asked = then
        self._turns = 0
        self._turn_on()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way to the program: no outcome, no thread that was handed one."""
        return not (self._ready or self._held or self._threads)

    def push(self, pending: Pending) -> None:
        """Deliver it when the run is at rest and nothing with a lower ``seq`` waits."""
        self._pushed += 1
        heapq.heappush(self._ready, (pending.row.seq, self._pushed, pending))
        self._turns = 0
        self._turn_on()

    def hold(self, seq: int) -> None:
        """Nothing behind ``seq`` is delivered until it is released."""
        self._held.add(seq)

    def release(self, seq: int) -> None:
        self._held.discard(seq)
        self._turn_on()

    def clear(self) -> None:
        self._ready.clear()
        self._held.clear()
        self._asked = None

    def _turn_on(self) -> None:
        if not self._turning and (self._ready or self._asked):
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turns += 1
        if self._turns < self.turns_needed:
            self._loop.call_soon(self._turn)
            return
        self._turning = False
        if self._asked is not None and self.is_empty:
            asked, self._asked = self._asked, None
            self._rests(asked())
        if not self._ready or self._threads:
            return
        if self._held and min(self._held) < self._ready[0][0]:
            return
        if self._must_wait(self._ready[0][0]):
            if not self._looking:
                self._looking = True
                self._loop.call_later(_LOOK_AGAIN_S, self._look_again)
            return
        _, _, pending = heapq.heappop(self._ready)
        self._turns = 0
        pending.deliver()
        self._turn_on()

    def _look_again(self) -> None:
        self._looking = False
        self._turn_on()

    def follow_thread(self, task: asyncio.Task[Any] | None) -> MovingThread | None:
        """A thread that ``task`` awaits is about to be handed an outcome, and to move.

        Turns of the loop say nothing about a thread. The task is found blocked on the executor's future, which is
        done once the thread has returned; where that is one of several (a gather of executor futures), or the thread
        goes on to something else, it is given a short grace.
        """
        waiter: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
        if waiter is None:
            return None
        self._threads += 1
        return MovingThread(self._loop, waiter, self._thread_rests)

    def _thread_rests(self) -> None:
        self._threads -= 1
        self._turns = 0
        self._turn_on()


class MovingThread:
    """A thread between an outcome it is handed and its next call, its end, or other work."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[Any], rested: Callable[[], None]
    ) -> None:
        self.has_outcome = False  # set by the thread: on a busy machine it may take its time to come to it
        self._loop = loop
        self._rested = rested
        self._over = self._seen = False
        self._timer = loop.call_later(_THREAD_GRACE_S, self._look)
        waiter.add_done_callback(self.rest)

    def rest(self, _: object = None) -> None:
        if not self._over:
            self._over = True
            self._timer.cancel()
            self._rested()

    def _look(self) -> None:
        """The grace begins when the thread has been seen to have its outcome."""
        if self._seen:
            self.rest()
        else:
            self._seen = self.has_outcome
            self._timer = self._loop.call_later(_THREAD_GRACE_S, self._look)
