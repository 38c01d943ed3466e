"""``map``: a function applied to many items, each a call of its own, known by the item's key.

What the items change in the state does not depend on which of them were under way together: each begins with the
state, and with the time, as they were when the map began. So it does not matter in what order a resume comes to them:
it recalls what is recorded, in the order of the record, goes on with what was in flight, and only then begins the rest.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast, overload

from . import branches, clock, codec, context, threads
from .branches import Frame, current_frame
from .calls import Invocation, arrive, checked_key, perform, refuse_elsewhere, refuse_second_call
from .definition import Definition
from .errors import HoldfastError, StepFailed
from .executing import in_task
from .failure import Failure
from .lazy import LazyCoroutine
from .store import is_text
from .views import ItemsView
from .workflow import AsyncStep, AsyncWorkflow, PlainStep, PlainWorkflow

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_KEY_MAX = 200  # characters of an item that stands for itself
_TOLD_EVERY_S = 0.5  # how far it is, to those who watch


@overload
def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T],
    *,
    key: Callable[[T], str] | None = None,
    concurrency: int = 8,
    failures: Literal["raise"] = "raise",
) -> MapCall[list[R]]: ...
@overload
def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T],
    *,
    key: Callable[[T], str] | None = None,
    concurrency: int = 8,
    failures: Literal["collect"],
) -> MapCall[list[R | StepFailed]]: ...
@overload
def map(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    key: Callable[[T], str] | None = None,
    concurrency: int = 8,
    failures: Literal["raise"] = "raise",
) -> MapCall[list[R]]: ...
@overload
def map(
    fn: Callable[[T], R],
    items: Iterable[T],
    *,
    key: Callable[[T], str] | None = None,
    concurrency: int = 8,
    failures: Literal["collect"],
) -> MapCall[list[R | StepFailed]]: ...
def map(
    fn: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    key: Callable[[Any], str] | None = None,
    concurrency: int = 8,
    failures: Literal["raise", "collect"] = "raise",
) -> MapCall[Any]:
    """``fn`` of every item, at most ``concurrency`` at a time; awaited, the results in the order of ``items``.

    ``fn`` is a step, a workflow, or a plain function that calls such (a part of the plan, whose result is recorded
    too), async or ``def``; what is ``def`` runs in threads. Each item is a call known by its ``key`` and not by its
    position: an item that was added or removed since a crash shifts nothing. Without ``key=``, a ``str`` of at most 200
    characters is its own key, and anything else is known by its content. Keys that ``key=`` gives must differ.

    ``failures="raise"``: after the first failure no item begins; those in flight are let finish, and it is raised.
    ``"collect"``: a failure takes the place of the result, as a ``StepFailed``. Items do not see what others change in
    ``holdfast.state``; all that they change is there when they have ended. In plain ``def`` code of a run,
    ``hf.wait(holdfast.map(…))`` waits for it. Outside a run it works plainly.
    """
    mapped = _Mapped(fn)
    if type(concurrency) is not int or concurrency < 1:
        raise ValueError(f"map: concurrency= must be a whole number from 1, got {concurrency!r}")
    if failures not in ("raise", "collect"):
        raise ValueError(f'map: failures= must be "raise" or "collect", got {failures!r}')
    return MapCall(mapped, _items_of(items, key), concurrency, collects=failures == "collect")


class _Item(NamedTuple):
    """``n`` counts the same items before it."""

    position: int
    key: str
    n: int
    value: Any

    @property
    def id(self) -> tuple[str, int]:
        return self.key, self.n


def _items_of(values: Iterable[Any], key: Callable[[Any], str] | None) -> list[_Item]:
    items: list[_Item] = []
    before: dict[str, list[int]] = {}
    for position, value in enumerate(values):
        known_by = _own_key(value) if key is None else checked_key("map", key(value))
        same = before.setdefault(known_by, [])
        if same and key is not None:
            raise HoldfastError(
                f"map: items {same[0]} and {position} have the same key {known_by!r}, so their records could not be "
                "told apart. Let key= return something that differs, or leave out one of them."
            )
        items.append(_Item(position, known_by, len(same), value))
        same.append(position)
    return items


def _own_key(value: Any) -> str:
    """What an item is known by where nobody says it."""
    if type(value) is str and 0 < len(value) <= _KEY_MAX and is_text(value):
        return value
    if type(value) is int:
        return str(value)
    return codec.fingerprint(codec.encode_inputs({"item": value}, "an item of map")).hex()


class _Mapped:
    """What is mapped: a step or workflow, or a plain function, which is a nested workflow then."""

    def __init__(self, fn: Any) -> None:
        self.fn = fn
        self._marked = isinstance(fn, (AsyncStep, PlainStep, AsyncWorkflow, PlainWorkflow))
        self._instance: Any = None
        if self._marked:
            self.definition: Definition = fn._definition
        elif inspect.ismethod(fn):
            self.definition, self._instance = Definition(fn.__func__, kind="workflow").of_method, fn.__self__
        else:
            self.definition = Definition(fn, kind="workflow")

    def invocation(self, frame: Frame, item: _Item) -> Invocation:
        if self._marked:
            definition, instance, args = self.fn._of_call((item.value,))
        else:
            definition, instance, args = self.definition, self._instance, (item.value,)
            definition.declared_version = frame.run.version  # it is part of the plan of whoever maps it
        return Invocation(definition, instance, frame, args, {}, item=item.id)


class MapCall(LazyCoroutine[R_co]):
    """A map that has not begun; its place in the run is settled."""

    __slots__ = (
        "_begun_ms",
        "_collects",
        "_concurrency",
        "_ended",
        "_failed",
        "_items",
        "_mapped",
        "_pool",
        "_results",
        "_running",
        "_told_at",
        "_view",
        "branch",
        "frame",
        "in_thread",
    )

    def __init__(self, mapped: _Mapped, items: list[_Item], concurrency: int, *, collects: bool) -> None:
        super().__init__()
        self._mapped = mapped
        self._items = items
        self._concurrency = concurrency
        self._collects = collects
        self._results: list[Any] = [None] * len(items)
        self._failed: list[Exception] = []
        self._running: set[asyncio.Task[None]] = set()
        self._ended = 0
        self._told_at = clock.monotonic()
        self._pool: ThreadPoolExecutor | None = None
        self.in_thread = False
        frame = current_frame()
        if frame is not None:
            refuse_second_call(frame, "map")
            self.frame = frame
            self.branch = frame.branch_of("map")
        self._coro = None

    @property
    def _name(self) -> str:
        return "holdfast.map"

    def _described(self) -> str:
        return f"map({self._mapped.definition.name}, …)"

    @property
    def is_in_run(self) -> bool:
        return hasattr(self, "frame")

    def _begin(self) -> Coroutine[Any, Any, R_co]:
        if not self.is_in_run:
            context.begin_outside()
            return self._worked([], [], self._items, lambda item: asyncio.create_task(self._outside(item)))
        refuse_elsewhere(self.frame.run, "map")
        return self._performed()

    def perform_in_thread(self) -> R_co:
        """From plain ``def`` code of the run; blocks until all items have ended, or the run must stop."""
        self.take()
        results: R_co = threads.ask_the_loop(self, lambda _: self._performed())
        return results

    async def _performed(self) -> R_co:
        frame, run, items = self.frame, self.frame.run, self._items
        await arrive(frame)
        self._view = ItemsView(frame.view)
        self._begun_ms = run.time.ms(frame.scope)
        ids = {each.id for each in items}
        found = run.records.items(frame.scope, self.branch, self._mapped.definition.name, ids)
        # What its program cancelled waits for that again, in a task of its own.
        recorded = [each for each in items if each.id in found.rows and found.rows[each.id].status != "cancelled"]
        recorded.sort(key=lambda each: found.rows[each.id].seq)
        begun = [each for each in items if each.id in found.begun or (each.id in found.rows and each not in recorded)]
        new = [each for each in items if each.id not in found.rows and each.id not in found.begun]
        return await self._worked(recorded, begun, new, self._in_task)

    async def _worked(
        self,
        recorded: list[_Item],
        begun: list[_Item],
        new: list[_Item],
        start: Callable[[_Item], asyncio.Task[None]],
    ) -> R_co:
        try:
            self._running.update([start(each) for each in begun])
            for item in recorded:
                await self._one(item, self._frame_of_item())
            for item in new:
                while len(self._running) >= self._concurrency:
                    await self._any_ended()
                if self._failed:
                    break
                self._running.add(start(item))
            while self._running:
                await self._any_ended()
        finally:
            await self._let_go()
        self._tell()
        if self._failed:
            raise self._failure()
        return cast("R_co", self._results)

    async def _any_ended(self) -> None:
        ended, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()

    async def _let_go(self) -> None:
        """What is still under way when the map is cancelled, or an item stops it, goes no further."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    # -- an item in a run ----------------------------------------------------------------------------------

    def _in_task(self, item: _Item) -> asyncio.Task[None]:
        frame = self._frame_of_item()
        return branches.task_in(frame, self._one(item, frame))

    def _frame_of_item(self) -> Frame:
        frame = self.frame
        return Frame(frame.run, frame.scope, self.branch, self._view, depth=frame.depth + 1, step=frame.step)

    async def _one(self, item: _Item, frame: Frame) -> None:
        call = self._mapped.invocation(frame, item)
        frame.run.time.begins(call.scope, self._begun_ms)
        try:
            self._has_ended(item, await perform(call, in_task if call.definition.is_async else self._in_thread))
        except StepFailed as failure:
            self._has_ended(item, failure)

    async def _in_thread(self, call: Invocation, frame: Frame, body: Callable[[], Any]) -> Any:
        """``Execute`` for what is plain ``def``."""
        ended = self._in_pool(threads.run_body, frame, body)
        while call.definition.once and not ended.done():
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError:
                # The thread goes on; of what cannot be undone the outcome is waited for, and recorded.
                if frame.run.is_leaving:
                    break
        value, error = await ended
        if isinstance(error, StopIteration):
            raise RuntimeError(f"{call.definition.name} raised StopIteration") from error
        if error is not None:
            raise error
        return value

    def _in_pool(self, work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Its threads are the map's own: maps inside of maps must not wait for one another's."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=len(self._items), thread_name_prefix="holdfast-map")
        inside = partial(contextvars.copy_context().run, work, *args)
        return asyncio.get_running_loop().run_in_executor(self._pool, inside)

    def _has_ended(self, item: _Item, outcome: Any) -> None:
        self._results[item.position] = outcome
        self._ended += 1
        if isinstance(outcome, StepFailed) and not self._collects:
            self._failed.append(outcome)
        if clock.monotonic() - self._told_at > _TOLD_EVERY_S:
            self._tell()

    def _tell(self) -> None:
        if self.is_in_run:
            self._told_at = clock.monotonic()
            self.frame.run.tell(self.frame, (self._ended, len(self._items)))

    def _failure(self) -> Exception:
        """The first one; if it ends the run, the others are tried anew with it."""
        if not self.is_in_run:
            return self._failed[0]
        first, *others = sorted(self._failed, key=lambda each: getattr(each, "seq", 0))
        first.__dict__["beside"] = [each.__dict__["seq"] for each in others]
        return first

    # -- an item outside a run -----------------------------------------------------------------------------

    async def _outside(self, item: _Item) -> None:
        call: Callable[[Any], Any] = self._mapped.fn
        try:
            is_async = self._mapped.definition.is_async
            self._results[item.position] = await (call(item.value) if is_async else self._in_pool(call, item.value))
        except Exception as error:
            if not self._collects:
                self._failed.append(error)
                return
            told = Failure.of_step(error)
            failure = StepFailed(self._mapped.definition.name, told.type, told.message)
            failure.__cause__ = error
            self._results[item.position] = failure
