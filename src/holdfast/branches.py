"""Which task is which, and in what order outcomes reach them.

A *branch* is the path of (coroutine ``__qualname__``, k) from the root task of a scope, k counting the tasks of that
qualname in creation order inside their parent. Bare creation order would not do: a library that makes a task of its
own would shift every number behind it. Tasks are labelled as they are created, by a factory chained in front of the
loop's own, and looked up by task: two tasks may share one ``contextvars.Context``, so a context variable would put
both into one branch. A context variable serves threads only, which have no task."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .errors import HoldfastError, NotInRun
from .store import as_text

if TYPE_CHECKING:
    from .delivery import MovingThread
    from .run import LiveRun
    from .store import Checkpoint
    from .views import View

T = TypeVar("T")
_ATTRIBUTE = "_holdfast_frame"


class Frame:
    """Where code of a run is: one scope, one branch of it, the state it sees, and what it has counted so far."""

    __slots__ = (
        "branch",
        "children",
        "counts",
        "depth",
        "listed",
        "made",
        "moving",
        "reserved",
        "run",
        "scope",
        "step",
        "task",
        "thread",
        "view",
    )

    def __init__(
        self, run: LiveRun, scope: str, branch: str, view: View, *, depth: int, step: StepProgress | None
    ) -> None:
        self.run = run
        self.scope = scope
        self.branch = branch
        self.view = view
        self.depth = depth
        self.step = step  # the step whose body this is, None in the workflow's own body
        self.task: asyncio.Task[Any] | None = None
        self.counts: dict[tuple[str, str | None], int] = {}
        self.children: dict[str, int] = {}
        self.reserved: dict[int, str] = {}
        self.listed: list[Any] = []  # what as_completed was given, if it has just begun to make tasks
        self.made: dict[int, asyncio.Future[Any]] = {}  # the tasks it has not asked for yet
        self.thread = 0  # the thread in which a call of this frame is under way
        self.moving: MovingThread | None = None  # a thread of this frame that was handed an outcome

    def count(self, name: str, key: str | None = None) -> int:
        """The number of this call among those of the same name (and key) in this frame, from 0."""
        n = self.counts.get((name, key), 0)
        self.counts[name, key] = n + 1
        return n

    def child(self, coro: Any) -> Frame:
        """The frame of a task that is being made here for ``coro``."""
        reserved = self.reserved.pop(id(_given(coro)), None) if self.reserved else None
        label = reserved or self._label(coro)
        branch = f"{self.branch}/{label}" if self.branch else label
        return Frame(self.run, self.scope, branch, self.view, depth=self.depth + 1, step=self.step)

    def _label(self, coro: Any) -> str:
        listed = _listed_by_as_completed()
        if listed is not None:
            # as_completed iterates a set, whose order follows memory addresses: number by the caller's list instead.
            for each in listed:
                if id(each) not in self.reserved and not asyncio.isfuture(each):
                    self.reserved[id(each)] = self._next_label(each)
                    self.listed.append(each)
            return self.reserved.pop(id(_given(coro)))
        return self._next_label(coro)

    def _next_label(self, coro: Any) -> str:
        qualname = as_text(getattr(coro, "__qualname__", None) or type(coro).__qualname__)
        k = self.children.get(qualname, 0)
        self.children[qualname] = k + 1
        return f"{qualname}#{k}"

    def inside(self, scope: str, view: View, step: StepProgress) -> Frame:
        """The frame of a nested call's body: a scope of its own, whose branches are numbered anew."""
        frame = Frame(self.run, scope, "", view, depth=self.depth, step=step)
        frame.task = self.task
        return frame


class StepProgress:
    """What a running step (or nested workflow) has told about itself."""

    __slots__ = ("in_once", "in_step", "is_asking", "key", "row", "tokens", "usd")

    def __init__(self, row: Checkpoint, around: StepProgress | None = None, *, once: bool = False) -> None:
        self.row = row  # its checkpoint, which is being filled in
        # Also in a workflow that a step calls.
        self.in_step: bool = row.kind == "step" or (around is not None and around.in_step)
        self.in_once: bool = once or (around is not None and around.in_once)
        self.is_asking = False  # not the step's own code runs, but its verify=
        self.key: str | None = None  # the idempotency key its intent has recorded
        self.tokens: int | None = None
        self.usd: float | None = None


def _given(coro: Any) -> Any:
    """What the caller gave asyncio: ``coro`` itself, or the awaitable that asyncio wrapped into it."""
    if getattr(coro, "__qualname__", "").endswith("_wrap_awaitable"):
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is not None:
            return frame.f_locals.get("awaitable", coro)
    return coro


def _listed_by_as_completed() -> list[Any] | None:
    """The list that ``asyncio.as_completed`` was given, if it is what makes a task right now."""
    package = asyncio.tasks.__file__
    frame = sys._getframe(3)
    for _ in range(8):
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back  # type: ignore[assignment]
        if frame is None or not frame.f_code.co_filename.startswith(package[: -len("tasks.py")]):
            return None
        if frame.f_code.co_filename == package and frame.f_code.co_name in ("as_completed", "__init__"):
            given = frame.f_locals.get("fs", frame.f_locals.get("aws"))
            if isinstance(given, (list, tuple)):
                return list(given)
            raise HoldfastError(
                "asyncio.as_completed was given something that is not a list or tuple, so its tasks have no order "
                "that a resume could repeat. Give it a list: asyncio.as_completed([…])."
            )
        frame = frame.f_back  # type: ignore[assignment]
    return None


_frame_of_thread: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("holdfast_frame", default=None)
# The live runs of this process and their loops, so that a call without a run can be told from one that lost its run.
live_runs: dict[int, asyncio.AbstractEventLoop] = {}
forked_from: str | None = None  # the run in whose code this process was forked


def current_frame() -> Frame | None:
    """The frame this code runs in; None outside every run. Raises ``NotInRun`` where it would have to guess."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop in this thread
        return _frame_of_thread.get()
    frame: Frame | None = getattr(task, _ATTRIBUTE, None)
    if frame is None and (lost := _frame_of_thread.get()) is not None:
        if task is None:
            raise NotInRun(
                f"run {lost.run.id!r}: a callback of the event loop runs in no task, so what it calls has no place in "
                "the record. Let a task await what the callback was to react to, and call it there."
            )
        if id(lost.run) not in live_runs:
            raise NotInRun(
                f"run {lost.run.id!r} has ended, and what this task ({task.get_name()}) calls can no longer be "
                "recorded in it. Await in the workflow what belongs to the run, before it returns."
            )
        raise NotInRun(
            f"run {lost.run.id!r}: this task ({task.get_name()}) was made behind holdfast's back (a task factory set "
            "later, an eager task, or a loop of its own), so its calls have no place in the record. Create the task "
            "with asyncio.create_task or a TaskGroup on the run's loop, or call the step before handing it over."
        )
    return frame


def frame_of(task: asyncio.Task[Any] | None) -> Frame | None:
    frame: Frame | None = getattr(task, _ATTRIBUTE, None)
    return frame


def has_moving_thread(run: LiveRun) -> bool:
    """Whether a task of ``run`` waits for a thread that is not itself waiting for an outcome. Looks at every task:
    not cheap.
    """
    for task in asyncio.all_tasks(run.loop):
        frame = frame_of(task)
        if frame is None or frame.run is not run or frame.thread:
            continue
        if is_of_executor(getattr(task, "_fut_waiter", None)):
            return True
    return False


def is_of_executor(future: Any) -> bool:
    if any(is_of_executor(child) for child in getattr(future, "_children", ())):  # a gather
        return True
    # asyncio ties the future of a thread pool to its own by callbacks; there is no other sign of it.
    callbacks = getattr(future, "_callbacks", None) or ()
    return any(getattr(each[0], "__qualname__", "").startswith("_chain_future.") for each in callbacks)


def frame_in(context: contextvars.Context) -> Frame | None:
    """Where the code was that made this context."""
    return context.get(_frame_of_thread)


_awaited_by: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("holdfast_awaited_by", default=None)


def awaited_by_thread() -> None:
    """What this context's task does, a thread of the run waits for, and calls nothing meanwhile."""
    _awaited_by.set(_frame_of_thread.get())


def is_awaited_by(frame: Frame) -> bool:
    """Whether this code may call in the place of the thread that waits for it."""
    return _awaited_by.get() is frame


def label(task: asyncio.Task[Any], frame: Frame | None) -> None:
    setattr(task, _ATTRIBUTE, frame)


def enter_thread_frame(frame: Frame) -> None:
    """Make this context's threads part of ``frame``."""
    _frame_of_thread.set(frame)


def unlabelled_task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """A task that is no branch of the run it may be created in."""
    context: contextvars.Context | None = None
    if _frame_of_thread.get() is not None:
        context = contextvars.copy_context()
        context.run(_frame_of_thread.set, None)
    return asyncio.Task(coro, loop=loop, name=name, context=context)


def forget_runs() -> None:
    """In a forked child: the runs, and the loops that would answer their calls, have stayed with the parent."""
    global forked_from
    live_runs.clear()
    frame = _frame_of_thread.get()
    if frame is not None:
        forked_from = frame.run.id
        _frame_of_thread.set(None)


class entered:
    """While the block lasts, the current task (or thread) is in ``frame``."""

    __slots__ = ("_before", "_frame", "_task", "_token")

    def __init__(self, frame: Frame, task: asyncio.Task[Any] | None) -> None:
        self._frame = frame
        self._task = task

    def __enter__(self) -> None:
        if self._task is not None:
            self._before = frame_of(self._task)
            setattr(self._task, _ATTRIBUTE, self._frame)
        self._token = _frame_of_thread.set(self._frame)

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            setattr(self._task, _ATTRIBUTE, self._before)
        try:
            _frame_of_thread.reset(self._token)
        except ValueError:  # closed by the garbage collector, in another context
            pass


TaskFactory = Callable[..., "asyncio.Future[Any]"]


class LabellingFactory:
    """A task factory that tells every task of a run which branch it is; other tasks pass untouched."""

    def __init__(self, before: TaskFactory | None) -> None:
        self._before = before

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any
    ) -> asyncio.Future[Any]:
        parent = frame_of(asyncio.current_task(loop))
        if parent is None or parent.run.finished:
            return self._make(loop, coro, kwargs)
        if parent.made and (made := parent.made.pop(id(coro), None)) is not None:
            return made
        frame = parent.child(coro)
        listed, parent.listed = parent.listed, []
        for each in listed:
            # as_completed iterates a set. Tasks begin in the order they are made in, so they are made in its list's.
            if asyncio.iscoroutine(each):
                parent.made[id(each)] = self._labelled(
                    loop, each, frame if each is coro else parent.child(each), kwargs
                )
        if parent.made and (made := parent.made.pop(id(coro), None)) is not None:
            return made
        return self._labelled(loop, coro, frame, kwargs)

    def _labelled(
        self, loop: asyncio.AbstractEventLoop, coro: Any, frame: Frame, kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        shared: contextvars.Context | None = kwargs.get("context")
        if shared is not None:
            # Two tasks may live in this one context: a thread started from it could not tell which of them it belongs
            # to.
            shared.run(_frame_of_thread.set, frame if _frame_of_thread not in shared else None)
            task = self._make(loop, coro, kwargs)
        else:
            token = _frame_of_thread.set(frame)
            try:
                task = self._make(loop, coro, kwargs)
            finally:
                _frame_of_thread.reset(token)
        if isinstance(task, asyncio.Task):
            label(task, frame)
            frame.task = task
            frame.run.task_started(task, frame.depth)
            task.add_done_callback(frame.run.task_ended)
        return task

    def _make(self, loop: asyncio.AbstractEventLoop, coro: Any, kwargs: dict[str, Any]) -> asyncio.Future[Any]:
        if self._before is not None:
            # uvloop passes options that are None to factories that do not know them yet.
            return self._before(loop, coro, **{name: value for name, value in kwargs.items() if value is not None})
        return asyncio.Task(coro, loop=loop, **kwargs)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Chain the labelling factory in front of the loop's own, if it is not there yet."""
    before = loop.get_task_factory()
    if not isinstance(before, LabellingFactory):
        loop.set_task_factory(cast("Any", LabellingFactory(before)))
