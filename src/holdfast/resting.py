"""Whether a run only waits: every task of it is blocked on a wait of holdfast's, or on another task of the run.

Looked at when the code has come to rest, not polled. What is not known to be such a wait counts as work: a run that
stays in memory although it only waits costs some memory, one that is unloaded although it works would lose work. So a
timer of asyncio's around a wait (``asyncio.timeout``), a raw future, a socket or ``asyncio.sleep`` keep it in memory.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

from . import branches

if TYPE_CHECKING:
    from .run import LiveRun


def is_waiting(run: LiveRun) -> bool:
    if not run.waits.live or run.stop is not None or run.finished or run.waits.is_unlooked:
        return False
    if run.pendings or not run.delivery.is_empty or any(wait.future.done() for wait in run.waits.live):
        return False
    if any(row.kind != "workflow" for row, _ in run.under_way.values()):
        return False
    own: set[Any] = {*run.members, *(wait.future for wait in run.waits.live)}
    if not all(_is_blocked(task, own) for task in run.members):
        return False
    root = run.root
    if root is not None and root.task is None and not root.thread:
        return False  # the body is a thread that does something else
    return not _has_timer(run)


def _is_blocked(task: asyncio.Task[Any], own: set[Any]) -> bool:
    waiter = getattr(task, "_fut_waiter", None)
    if waiter is None or task.cancelling():
        return False  # it is about to run
    chain = list(awaited_by(task.get_coro()))
    if any(_is_timed(each) for each in chain):
        return False
    if _is_of(waiter, own):
        return True
    frame = branches.frame_of(task)
    if frame is not None and frame.thread and branches.is_of_executor(waiter):
        return True  # a thread, and the call it makes is one of the waits
    return bool(chain) and _is_by_asyncio(chain[-1], own)


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
_COMPLETED = "_wait_for_one"  # of as_completed; its timer is nowhere to be seen


def _is_by_asyncio(innermost: Any, own: set[Any]) -> bool:
    code, frame = _code_of(innermost), frame_of(innermost)
    if code is _WAIT and frame is not None:
        return all(future.done() or _is_of(future, own) for future in frame.f_locals.get("fs", ()))
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
