"""``@workflow`` and ``@step``, and the call objects they make.

Calling an async step or workflow gives an object that *is* a coroutine (``StepCall``, ``Call``); plain ``def``
functions are called as ever."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import sys
import warnings
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import update_wrapper
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast, overload

from . import codec, context, threads
from .branches import current_frame
from .calls import Invocation, perform_in_task
from .definition import DEFAULT_QUEUE, Definition
from .errors import NotRecorded
from .lazy import LazyCoroutine

P = ParamSpec("P")
P2 = ParamSpec("P2")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class _Awaitable(LazyCoroutine[R_co]):
    """A call that has not begun."""

    __slots__ = ("_args", "_definition", "_instance", "_invocation", "_kwargs")

    def __init__(self, definition: Definition, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self._definition = definition
        self._instance = instance
        self._args = args
        self._kwargs = kwargs
        frame = current_frame()
        if frame is None:
            _warn_if_lost(definition)
        elif definition.kind == "step":
            threads.refuse_off_loop(definition.name)
        self._invocation = None if frame is None else Invocation(definition, instance, frame, args, kwargs)
        self._coro = None

    @property
    def _name(self) -> str:
        return self._definition.name

    def _described(self) -> str:
        return f"{self._definition.kind} {self._definition.name!r}"

    def _begin(self) -> Coroutine[Any, Any, R_co]:
        if self._invocation is not None:
            return perform_in_task(self._invocation)
        context.begin_outside()
        return cast("Coroutine[Any, Any, R_co]", self.body())

    def body(self) -> Any:
        """Call the function itself: a coroutine for an async one, else its result."""
        return self._definition.call(self._instance, self._args, self._kwargs)


class StepCall(_Awaitable[R_co]):
    """A call of an async step: a coroutine whose place in the run is settled already."""

    __slots__ = ()


class Call(_Awaitable[R_co]):
    """A call of a workflow: what ``hf.run`` and ``hf.start`` take; awaited, it runs in place."""

    __slots__ = ("_bound",)

    @property
    def definition(self) -> Definition:
        return self._definition

    @property
    def arguments(self) -> dict[str, Any]:
        return self._definition.bind(self._args, self._kwargs)

    def encoded(self) -> bytes:
        """The arguments, whole, so that the run can be resumed without being given them again."""
        where = f"the arguments of {self._definition.name!r}"
        return codec.encode(self.arguments, self._definition.parameter_types, where, root="")

    def inputs(self) -> bytes:
        return self._definition.encode_inputs(self._args, self._kwargs)

    def _begin(self) -> Coroutine[Any, Any, R_co]:
        if not self._definition.is_async:
            raise TypeError(
                f"workflow {self._definition.name!r} is a plain def, so what bind() gives cannot be awaited: hand it "
                "to hf.run(…), or call the workflow itself"
            )
        return super()._begin()


class _Decorated(Generic[P, R]):
    """What the four kinds of decorated function share."""

    _definition: Definition
    _instance: Any
    _owner: type | None  # the class it was looked up on; its instance may then be the first argument

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._instance = None
        self._owner = None
        update_wrapper(cast("Callable[..., Any]", self), definition.function)
        if definition.is_async:
            _mark_as_coroutine_function(self)

    def _looked_up(self, instance: Any, owner: type | None) -> Any:
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        if instance is None:
            bound._owner = owner
        else:
            bound._instance, bound._definition = instance, self._definition.of_method
        return bound

    def _of_call(self, args: tuple[Any, ...]) -> tuple[Definition, Any, tuple[Any, ...]]:
        """What is called, on what, with what: the object or class that a method is called on is no input."""
        may_be_on = self._owner is not None or (args and isinstance(args[0], type))
        if may_be_on and self._instance is None and args and self._is_on(args[0]):
            return self._definition.of_method, args[0], args[1:]
        return self._definition, self._instance, args

    def _is_on(self, first: Any) -> bool:
        """Whether the first argument is what a method is called on: ``Agent.think(ada, …)``, or a ``@classmethod`` as
        Python 3.13 binds it."""
        if self._owner is not None and isinstance(first, self._owner):
            return True
        if not isinstance(first, type):
            return False
        found = inspect.getattr_static(first, self._definition.function.__name__, None)
        return isinstance(found, classmethod) and getattr(found.__func__, "_definition", None) is self._definition

    def __repr__(self) -> str:
        return f"<{self._definition.kind} {self._definition.name}>"


class AsyncStep(_Decorated[P, R]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StepCall[R]:
        return StepCall(*self._of_call(args), kwargs)

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> AsyncStep[P, R]: ...
    @overload
    def __get__(self: AsyncStep[Concatenate[S, P2], R], obj: S, owner: type | None = None) -> AsyncStep[P2, R]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._looked_up(obj, owner)


class PlainStep(_Decorated[P, R]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", _call_plain(*self._of_call(args), kwargs))

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> PlainStep[P, R]: ...
    @overload
    def __get__(self: PlainStep[Concatenate[S, P2], R], obj: S, owner: type | None = None) -> PlainStep[P2, R]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._looked_up(obj, owner)


class AsyncWorkflow(_Decorated[P, R]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        return Call(*self._of_call(args), kwargs)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """The same as calling it; plain ``def`` workflows have only this."""
        return Call(*self._of_call(args), kwargs)

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> AsyncWorkflow[P, R]: ...
    @overload
    def __get__(
        self: AsyncWorkflow[Concatenate[S, P2], R], obj: S, owner: type | None = None
    ) -> AsyncWorkflow[P2, R]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._looked_up(obj, owner)


class PlainWorkflow(_Decorated[P, R]):
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", _call_plain(*self._of_call(args), kwargs))

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """A call to be run durably: ``hf.run(review.bind("A-17"), id=…)``."""
        return Call(*self._of_call(args), kwargs)

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> PlainWorkflow[P, R]: ...
    @overload
    def __get__(
        self: PlainWorkflow[Concatenate[S, P2], R], obj: S, owner: type | None = None
    ) -> PlainWorkflow[P2, R]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._looked_up(obj, owner)


def _call_plain(definition: Definition, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    frame = current_frame()
    if frame is None:
        _warn_if_lost(definition)
        return definition.call(instance, args, kwargs)
    threads.refuse_on_loop(definition.name, definition.kind)
    return threads.perform_in_thread(Invocation(definition, instance, frame, args, kwargs))


def _warn_if_lost(definition: Definition) -> None:
    if definition.kind == "step" and (why := threads.why_lost()) is not None:
        warnings.warn(f"step {definition.name!r} was called {why}", NotRecorded, stacklevel=4)


def no_call(given: object) -> str:
    """Why ``given`` is no call of a workflow, and what to write. A call that was made by mistake is closed."""
    if isinstance(given, StepCall):
        hint = "A step is awaited in a workflow; run that."
    elif isinstance(given, (AsyncStep, PlainStep)):
        hint = "A step is called in a workflow; run that."
    elif isinstance(given, AsyncWorkflow):
        hint = "It has to be called: give it its arguments."
    elif isinstance(given, PlainWorkflow):
        hint = "It has to be bound to its arguments: .bind(…)."
    elif inspect.iscoroutine(given):
        hint = "Mark the function with @workflow."
    else:
        hint = "A plain def workflow that is called has run already: .bind(…) makes the call to be run."
    if isinstance(given, Coroutine):
        given.close()  # this error tells enough; it need not be told besides that nobody awaited it
    return (
        f"expected a call of a workflow, such as review(…) or, for a plain def, review.bind(…); got {given!r}. {hint}"
    )


def _mark_as_coroutine_function(decorated: Any) -> None:
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(decorated)
    else:
        decorated._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


Step: TypeAlias = AsyncStep[..., Any] | PlainStep[..., Any]
Workflow: TypeAlias = AsyncWorkflow[..., Any] | PlainWorkflow[..., Any]
_numbers = itertools.count()
marked: weakref.WeakValueDictionary[int, Workflow] = weakref.WeakValueDictionary()
"""The workflows there are in this process, numbered as they were marked."""
marked_steps: weakref.WeakValueDictionary[int, Step] = weakref.WeakValueDictionary()


class _StepDecorator:
    """``@step(…)``: keeps the kind of function, async or plain, in its type."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload  # An async function is a Callable too; the first overload that fits is the exact one.
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, function: Callable[P, R]) -> PlainStep[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        definition = Definition(function, kind="step", **self._options)
        decorated: Step = AsyncStep(definition) if definition.is_async else PlainStep(definition)
        marked_steps[next(_numbers)] = decorated
        return decorated


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
@overload
def step(function: Callable[P, R], /) -> PlainStep[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    version: str | int | None = None,
    upgrade: Mapping[str | int, Callable[[Any], Any]] | None = None,
    key: Callable[..., str] | None = None,
    ignore: str | Iterable[str] = (),
    returns: Any = codec.MISSING,
    attempts: int = 1,
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception,
    backoff: float = 1.0,
    timeout: float | None = None,
    once: bool = False,
    verify: Callable[..., Any] | None = None,
    not_done: type[Exception] | tuple[type[Exception], ...] = (),
) -> _StepDecorator: ...
def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Mark a function as a step: the unit that is done once and remembered.

    ``name``: default ``__qualname__``; one name is one step in a run. ``version``: recorded with each checkpoint; a
    record of another version does not fit, unless ``upgrade={1: fn}`` turns its result, which ``fn`` is given, into
    one of the next version named there, or of this one. ``key``: from the arguments to a ``str`` that numbers the call
    instead of its position. ``ignore``: arguments that are no inputs (clients, secrets). ``returns``: the type of the
    result, where the annotation does not say. ``attempts``, ``retry_on``, ``backoff`` (seconds before the second
    attempt, doubled for each further one, with jitter, at most 60), ``timeout`` (seconds an attempt; async only).

    ``once``: what it does cannot be undone, so it is never silently executed twice. Where it is not known what came of
    an attempt (its process died, it timed out, was cancelled, or raised what is not in ``not_done``), ``verify`` is
    called with the step's arguments: it returns the step's result if it happened, ``holdfast.NOT_DONE`` if it certainly
    did not, and raises if it cannot tell. Then, and without it, the run stops with ``InDoubt``. ``not_done``:
    exceptions after which it certainly has not happened. With ``attempts`` above 1 one of the two is needed."""
    decorator = _StepDecorator(_known(options, "step"))
    return decorator if function is None else decorator(function)


class _WorkflowDecorator:
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, function: Callable[P, R]) -> PlainWorkflow[P, R]: ...
    def __call__(self, function: Callable[..., Any]) -> Any:
        definition = Definition(function, kind="workflow", **self._options)
        decorated: Workflow = AsyncWorkflow(definition) if definition.is_async else PlainWorkflow(definition)
        marked[next(_numbers)] = decorated
        return decorated


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
@overload
def workflow(function: Callable[P, R], /) -> PlainWorkflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str | int | None = None,
    on_change: Literal["salvage", "restart", "refuse"] = "salvage",
    schema_version: int | None = None,
    migrate: Callable[[dict[str, Any], int], dict[str, Any]] | None = None,
    queue: str = DEFAULT_QUEUE,
    max_deaths: int = 5,
) -> _WorkflowDecorator: ...
def workflow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Mark a function as a workflow: the plan of a job, whose steps are remembered.

    ``name``: default ``__qualname__``. ``version``: default a fingerprint of the function's syntax tree.
    ``on_change``: what becomes of a run that another version (or Python ``major.minor``) recorded and did not finish.
    "salvage" starts from the top, and steps keep their results where name, step version and inputs are the same;
    "restart" keeps only those of ``once`` steps; "refuse" raises ``VersionMismatch``. ``schema_version``: of the
    shape of the run's state, from 1; ``migrate(state, from_version)`` brings an initial state of another one to it.
    ``queue``: where a worker finds its
    runs. ``max_deaths``: a run that so many processes in a row died over, without a checkpoint between, is parked by
    the worker that finds it."""
    decorator = _WorkflowDecorator(_known(options, "workflow"))
    return decorator if function is None else decorator(function)


_OPTIONS = {
    "step": frozenset(
        {"name", "version", "upgrade", "key", "ignore", "returns", "attempts", "retry_on", "backoff", "timeout"}
    )
    | {"once", "verify", "not_done"},
    "workflow": frozenset({"name", "version", "on_change", "schema_version", "migrate", "queue", "max_deaths"}),
}


def _known(options: dict[str, Any], kind: str) -> dict[str, Any]:
    unknown = options.keys() - _OPTIONS[kind]
    if unknown:
        raise TypeError(
            f"@{kind} got an unexpected option {sorted(unknown)[0]!r}; it takes {', '.join(sorted(_OPTIONS[kind]))}"
        )
    return options
