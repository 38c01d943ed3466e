"""Whether a run only waits: every task of it is blocked on a wait of holdfast's, or on another task of the run.

Looked at when the code has come to rest. What is not known to be such a wait counts as work: a run that stays in memory
although it only waits costs some memory, one that is unloaded although it works would lose work. A timer of asyncio's
(``asyncio.timeout`` around a wait, ``asyncio.sleep`` beside one) would be lost with the process, so it keeps the run in
memory; but it is no work, and takes no slot of a worker. A raw future or a socket is work.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextvars import Context
from enum import IntEnum
from types import CodeType
from typing import TYPE_CHECKING, Any

from . import branches

if TYPE_CHECKING:
    from .run import LiveRun


_LOOK_AGAIN_S = 0.5
_CHEAP_S = 0.001
_SHARE = 10  # a look that took longer is followed by so many times as long without one


class Rest(IntEnum):
    """How much a run only waits: one that is ``IDLE`` needs no slot, one that ``WAITS`` no memory."""

    WORKS = 0
    IDLE = 1
    WAITS = 2


class Looks:
    """When it is looked at whether a run only waits: as soon as its code has come to rest, but a run of thousands of
    tasks, each of which has to be looked at, not after each of thousands of outcomes."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._again: asyncio.Handle | None = None
        # By the loop's time. A handle does not always tell: uvloop's has no ``when`` if it is due at once.
        self._again_at = 0.0
        self._not_before = 0.0

    def ask(self) -> None:
        """Something has changed, and it may be that from now on the run only waits."""
        run = self._run
        if run.waits.live and run.stop is None and not run.finished:
            pause = self._not_before - run.loop.time()
            if pause > 0:
                self._ask_in(pause)
            else:
                run.delivery.when_at_rest(self._look)

    def _look(self) -> Rest:
        loop = self._run.loop
        began = loop.time()
        found = rest_of(self._run)
        took = loop.time() - began
        if took > _CHEAP_S:
            self._not_before = began + _SHARE * took
        if found is not Rest.WAITS:  # what it does besides (a timer, a thread) may end without any call of ours
            self._ask_in(_LOOK_AGAIN_S)
        return found

    def _ask_in(self, seconds: float) -> None:
        loop = self._run.loop
        at = loop.time() + seconds
        if self._again is not None:
            if self._again_at <= at:
                return
            self._again.cancel()
        self._again_at = at
        self._again = loop.call_later(seconds, self._ask_again, context=Context())  # it is no timer of the run's

    def _ask_again(self) -> None:
        self._again = None
        self.ask()

    def end(self) -> None:
        if self._again is not None:
            self._again.cancel()  # a timer would keep all of the run in memory


def rest_of(run: LiveRun) -> Rest:
    if not run.waits.live or run.stop is not None or run.finished or run.waits.unlooked:
        return Rest.WORKS
    if run.pendings or not run.delivery.is_empty or any(wait.future.done() for wait in run.waits.live):
        return Rest.WORKS
    if any(row.kind != "workflow" for row, _ in run.under_way.values()):
        return Rest.WORKS
    root = run.root
    if root is not None and root.task is None and not root.thread:
        return Rest.WORKS  # the body is a thread that does something else
    own: set[Any] = {*run.members, *(wait.future for wait in run.waits.live)}
    found = Rest.WAITS
    for task in run.members:
        found = min(found, _rest_of_task(task, own))
        if found is Rest.WORKS:
            return found
    return Rest.IDLE if _has_timer(run) else found


def _rest_of_task(task: asyncio.Task[Any], own: set[Any]) -> Rest:
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None or task.cancelling():
        return Rest.WORKS  # it is about to run
    chain = list(awaited_by(task.get_coro()))
    if chain and _code_of(chain[-1]) is _SLEEP:
        return Rest.IDLE
    frame = branches.frame_of(task)
    # A thread whose call is one of the waits is blocked on it, too.
    in_thread = frame is not None and frame.thread and branches.is_of_executor(waiter)
    if not (in_thread or _is_of(waiter, own) or (chain and _is_by_asyncio(chain[-1], own))):
        return Rest.WORKS
    return Rest.IDLE if any(_is_timed(each) for each in chain) else Rest.WAITS


def leans_on_others(run: LiveRun) -> bool:
    """Whether a task of a run that waits is blocked in a lock, queue or event. Whose it is cannot be seen: one that is
    shared with other runs (a limit on a rate) is let go of by them, and nobody tells a run that was let go of."""
    for task in run.members:
        chain = list(awaited_by(task.get_coro()))
        if chain and _code_of(chain[-1]) in _SHAREABLE:
            return True
    return False


def _is_of(future: Any, own: set[Any]) -> bool:
    """Whether only the run itself can bring ``future`` about: a task or wait of it, or a gather of such."""
    if future in own:
        return True
    children = getattr(future, "_children", None)
    return children is not None and all(child.done() or _is_of(child, own) for child in children)


# Where asyncio's own primitives pause for another task: a plain future is all there is to see.
_SHAREABLE: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (
        asyncio.Queue.get,
        asyncio.Queue.put,
        asyncio.Queue.join,
        asyncio.Lock.acquire,
        asyncio.Event.wait,
        asyncio.Condition.wait,
        asyncio.Semaphore.acquire,
    )
)
_GROUP = asyncio.TaskGroup.__aexit__
_PAUSES = _SHAREABLE | {_GROUP.__code__, getattr(asyncio.TaskGroup, "_aexit", _GROUP).__code__}  # _aexit from 3.13
_WAIT: CodeType = vars(asyncio.tasks)["_wait"].__code__  # what asyncio.wait pauses in
_WAIT_FOR: CodeType = asyncio.wait_for.__code__
_SLEEP: CodeType = asyncio.sleep.__code__
_COMPLETED = "_wait_for_one"  # of as_completed; its timer is nowhere to be seen


def _is_by_asyncio(innermost: Any, own: set[Any]) -> bool:
    code, frame = _code_of(innermost), frame_of(innermost)
    if code is _WAIT and frame is not None:
        return all(future.done() or _is_of(future, own) for future in frame.f_locals.get("fs", ()))
    if code is _WAIT_FOR and frame is not None:  # until 3.11 it pauses in a future of its own
        return _is_of(frame.f_locals.get("fut"), own)
    return code in _PAUSES


def _is_timed(awaiting: Any) -> bool:
    """Whether this coroutine has a timer of asyncio's running around what it awaits."""
    code, frame = _code_of(awaiting), frame_of(awaiting)
    if frame is None:
        return False
    if code in (_WAIT, _WAIT_FOR):
        return frame.f_locals.get("timeout") is not None
    if code is not None and code.co_name == _COMPLETED and code.co_filename == asyncio.tasks.__file__:
        return True
    # ``async with asyncio.timeout(…)`` leaves the way out on the coroutine's stack, which the garbage collector sees.
    for held in gc.get_referents(awaiting):
        limit = getattr(held, "__self__", None)
        if isinstance(limit, asyncio.Timeout) and limit.when() is not None:
            return True
    return False


def awaited_by(coro: Any) -> Iterator[Any]:
    """The coroutines (and asynchronous generators) a task is in, outermost first."""
    while coro is not None:
        if hasattr(coro, "_coro"):  # a call of ours
            coro = coro._coro
        elif _code_of(coro) is not None:
            yield coro
            coro = next((inner for name in _AWAITS if (inner := getattr(coro, name, None)) is not None), None)
        else:  # what ``__await__`` gave, or a step of an asynchronous generator: it holds what it stands for
            coro = next((held for held in gc.get_referents(coro) if _code_of(held) is not None), None)


_AWAITS = ("cr_await", "ag_await", "gi_yieldfrom")


def _code_of(coro: Any) -> CodeType | None:
    for name in ("cr_code", "ag_code", "gi_code"):
        if (code := getattr(coro, name, None)) is not None:
            assert isinstance(code, CodeType)
            return code
    return None


def frame_of(coro: Any) -> Any:
    """The Python frame of a coroutine (or asynchronous generator); None where it has ended."""
    for name in ("cr_frame", "ag_frame", "gi_frame"):
        if (frame := getattr(coro, name, None)) is not None:
            return frame
    return None


# -- other timers ----------------------------------------------------------------------------------------------

_timed: dict[asyncio.AbstractEventLoop, set[LiveRun]] = {}  # looked at once for all the runs that ask in one turn


def _has_timer(run: LiveRun) -> bool:
    """Whether code of the run's body has a timer on the loop (anyio's, say). uvloop does not show its timers."""
    loop = run.loop
    if loop not in _timed:
        _timed[loop] = {
            frame.run
            for handle in list(getattr(loop, "_scheduled", ()))
            if not handle.cancelled()
            and (context := getattr(handle, "_context", None)) is not None
            and (frame := branches.frame_in(context)) is not None
            and (frame.step is None or frame.step.row.kind == "workflow")
        }
        loop.call_soon(_timed.pop, loop, None)
    return run in _timed[loop]
