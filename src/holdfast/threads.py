"""Steps and workflows that are plain ``def``: they run in threads, their run decides on its loop.

The thread asks the loop, and waits for instructions: run the body now (in this frame), or return this outcome. So
every decision about a run is made on one thread, and recall, attempts and delivery are the same code for both kinds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import Any

from . import branches
from .branches import Frame, entered
from .calls import Invocation, Placed, perform
from .delivery import Stop
from .errors import HoldfastError, StoreError
from .executing import Execute
from .run import LiveRun

Performing = Callable[[Execute], Awaitable[Any]]

_LOOP_CHECK_S = 1.0


class _Run:
    """An instruction to the waiting thread: run the body in this frame, and tell the future how it ended."""

    def __init__(self, frame: Frame, body: Callable[[], Any], ended: asyncio.Future[Any]) -> None:
        self.frame = frame
        self.body = body
        self.ended = ended


class _Return:
    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error


def perform_in_thread(call: Invocation) -> Any:
    """Perform a call of a step from the thread it was made in; blocks until its outcome is delivered."""
    return ask_the_loop(call, lambda execute: perform(call, execute))


def ask_the_loop(call: Placed, perform: Performing) -> Any:
    """Have the loop perform what is called in this thread, and run here what it says."""
    frame, run = call.frame, call.frame.run
    inbox: SimpleQueue[_Run | _Return] = SimpleQueue()
    if run.is_ignoring:
        time.sleep(_LOOP_CHECK_S)
    call.in_thread = True
    frame.thread = threading.get_ident()
    try:
        run.loop.call_soon_threadsafe(_serve_as_task, call, perform, inbox)
        while True:
            told = _next(inbox, run)
            if isinstance(told, _Return):
                if (moving := frame.moving) is not None:
                    moving.has_outcome = True
                if told.error is not None:
                    raise told.error
                return told.value
            _tell(run, told.ended, *run_body(told.frame, told.body))
    finally:
        frame.thread = 0


def _next(inbox: SimpleQueue[_Run | _Return], run: LiveRun) -> _Run | _Return:
    while True:
        try:
            return inbox.get(timeout=_LOOP_CHECK_S)
        except Empty:
            if run.loop.is_closed():
                raise Stop(
                    StoreError(f"run {run.id!r}: its event loop is closed; run the same line again to resume")
                ) from None


def run_body(frame: Frame, body: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """In this thread: what the body returned, or what it raised."""
    try:
        with entered(frame, None):
            return body(), None
    except BaseException as error:
        return None, error


def _tell(run: LiveRun, ended: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    def tell() -> None:
        if ended.done():  # the call was cancelled meanwhile; nobody waits for this outcome
            return
        if isinstance(error, StopIteration):
            ended.set_exception(RuntimeError("the step raised StopIteration"))
        elif error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(value)

    run.loop.call_soon_threadsafe(tell)


def _serve_as_task(call: Placed, perform: Performing, inbox: SimpleQueue[_Run | _Return]) -> None:
    run = call.frame.run
    serving = run.loop.create_task(_serve(run, perform, inbox))
    run.serving.add(serving)
    serving.add_done_callback(run.serving.discard)
    awaiting = call.frame.task
    if awaiting is not None:
        # When the task that awaits this thread is cancelled, the call is: the thread goes on, its outcome counts for
        # nothing.
        def abandoned(_: object) -> None:
            serving.cancel()

        awaiting.add_done_callback(abandoned)
        serving.add_done_callback(lambda _: awaiting.remove_done_callback(abandoned))


async def _serve(run: LiveRun, perform: Performing, inbox: SimpleQueue[_Run | _Return]) -> None:
    async def execute(call: Invocation, frame: Frame, body: Callable[[], Any]) -> Any:
        ended: asyncio.Future[Any] = run.loop.create_future()
        inbox.put(_Run(frame, body, ended))
        while call.definition.once and not ended.done():
            try:
                return await asyncio.shield(ended)
            except asyncio.CancelledError:
                # The thread goes on; of what cannot be undone the outcome is waited for, and recorded.
                if run.is_leaving:
                    break
        return await ended

    try:
        inbox.put(_Return(await perform(execute), None))
    except BaseException as error:
        inbox.put(_Return(None, error))


def run_in_thread(run: LiveRun, frame: Frame, body: Callable[[], Any], name: str) -> asyncio.Future[Any]:
    """Start the body of a plain ``def`` workflow in a thread of its own; the future has its result."""
    ended: asyncio.Future[Any] = run.loop.create_future()

    def work() -> None:
        value, error = run_body(frame, body)
        try:
            _tell(run, ended, value, error)
        except RuntimeError:  # the loop is gone, and so is whoever waited
            pass

    threading.Thread(target=work, name=f"holdfast-{name}", daemon=True).start()
    return ended


def refuse_on_loop(name: str, kind: str) -> None:
    """A plain ``def`` step called on an event loop's thread would block every run of it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise HoldfastError(
        f"{kind} {name!r} is a plain def, and calling it here would block the event loop. Write: "
        f"await asyncio.to_thread({name.rpartition('.')[2]}, …)"
    )


def refuse_off_loop(name: str) -> None:
    """An async step called from plain ``def`` code of a run would never be awaited as part of it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise HoldfastError(
            f"step {name!r} is an async def, and the plain def code that calls it here cannot await it. Make the "
            f"workflow an async def, and write: await {name.rpartition('.')[2]}(…); or make the step a plain def."
        ) from None


def why_lost() -> str | None:
    """How a step called here without a run came to lose the run it seems to be meant for; None if nothing says so."""
    if branches.forked_from is not None:
        return (
            f"in a process that was forked by run {branches.forked_from!r}, so its result is not recorded. Call it in "
            "the run's own process, and let what is forked do plain work."
        )
    if not branches.live_runs or threading.current_thread() is threading.main_thread():
        return None
    try:
        if asyncio.get_running_loop() in branches.live_runs.values():
            return None
    except RuntimeError:
        pass
    return (
        "in a thread that belongs to no run while one is live, so its result is not recorded. In an async workflow, "
        "start the thread with asyncio.to_thread, which carries the run along."
    )
