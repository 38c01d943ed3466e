"""A run's own program: its workflow's body started, and unwound when the run must stop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from . import branches, threads
from .delivery import Stop
from .run import LiveRun
from .workflow import Call

UNWIND_S = 5.0  # how long a stopped program's own cleanup is waited for
_left_behind: list[asyncio.Task[Any]] = []  # were they collected, their code would go on


def start(run: LiveRun, call: Call[Any]) -> asyncio.Future[Any]:
    """Start the body, as the root task of the run, or in a thread of its own if it is a plain ``def``."""
    frame = run.root_frame()
    if not call.definition.is_async:
        return threads.run_in_thread(run, frame, call.body, run.id)
    context = contextvars.copy_context()
    context.run(branches.enter_thread_frame, frame)
    root = asyncio.Task(call.body(), loop=run.loop, name=f"holdfast body {run.id}", context=context)
    branches.label(root, frame)
    frame.task = root
    run.members.add(root)
    return root


async def unwind(run: LiveRun, root: asyncio.Future[Any], *, whole: bool) -> None:
    """Let the program's own cleanup happen; what it does after that is ignored.

    ``whole``: each of its tasks is known to wait for another one or for outside, so none of them serves anybody else.
    """
    if whole:
        for task in list(run.members):
            frame = branches.frame_of(task)
            if task is not root and frame is not None and (frame.step is None or frame.step.row.kind == "workflow"):
                task.cancel()
    if isinstance(root, asyncio.Task) and not root.done():
        root.cancel()
        try:
            await asyncio.wait({root}, timeout=UNWIND_S)
        except asyncio.CancelledError:
            pass  # asked a second time: do not wait
    if not root.done():
        _leave_behind(run, root)
    elif not root.cancelled():
        root.exception()  # looked at, so that asyncio does not report it as lost


def _leave_behind(run: LiveRun, root: asyncio.Future[Any]) -> None:
    """A program that will not stop is left where it is, so that ``asyncio.run`` does not wait for it at its end."""
    root.add_done_callback(lambda done: done.cancelled() or done.exception())
    for task in asyncio.all_tasks(run.loop):
        frame = branches.frame_of(task)
        if frame is not None and frame.run is run:
            asyncio.tasks._unregister_task(task)
            setattr(task, "_log_destroy_pending", False)  # noqa: B010 - neither of these is public
            _left_behind.append(task)


def why_unloaded(root: asyncio.Future[Any]) -> str:
    """A ``sys.exit`` in the program ends the loop, which looks from outside like any other end."""
    error = root.exception() if root.done() and not root.cancelled() else None
    if error is None or isinstance(error, (Exception, Stop)):
        return "stopped from outside"
    return f"stopped by {error!r} in its own code"


def exception_of(root: asyncio.Future[Any]) -> BaseException | None:
    """What the body ended with, a cancellation by its own code included; None if it returned."""
    try:
        return root.exception()
    except asyncio.CancelledError as error:
        return error
