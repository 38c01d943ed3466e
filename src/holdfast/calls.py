"""What a call of a step means: recalled or executed, once, in its place.

The place of a call, ``(branch, scope, name, n)``, is settled where the call is made; what it is answered with, where
it is awaited. Async and plain ``def`` steps share ``perform``: a plain one waits in its thread for instructions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol
from warnings import warn, warn_explicit

from . import clock, codec
from .branches import Frame, StepProgress, entered, frame_of
from .definition import Definition
from .delivery import Pending
from .errors import CodecError, HoldfastError, NotInRun, NotRecorded, StepFailed
from .failure import Failure
from .recall import blank_row, scope_of
from .run import LiveRun
from .salvage import Sought
from .state import decode_change
from .store import Checkpoint
from .upgrades import result_of

Execute = Callable[["Invocation", Frame], Awaitable[Any]]

BACKOFF_MAX_S = 60.0
EXPENSIVE_S = 5.0  # the work whose loss a memory:// run warns about
UNDURABLE_AFTER_S = 30.0
_INPUTS_COMPARED_MAX = 64 * 1024  # bytes; larger ones are not worth encoding twice for a warning
LET_GO_S = 5.0  # how long a task that is cancelled behind a failed attempt is waited for
_IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes})


def cancelled(row: Checkpoint) -> asyncio.CancelledError:
    """The cancellation of a call, with its checkpoint: if it ends the run (a timeout), that call is tried anew.

    No class of its own: ``asyncio.timeout`` looks for the very class.
    """
    error = asyncio.CancelledError()
    error.__dict__["seq"] = row.seq
    return error


class Placed(Protocol):
    """A call, or a wait, with its place."""

    frame: Frame
    in_thread: bool


def refuse_second_call(frame: Frame, name: str) -> None:
    """Every call is made here: not in a run that must stop, nor beside one that a thread of the same branch makes."""
    run = frame.run
    if (run.stop is not None or run.finished) and not run.is_ignoring:
        run.check()
    if frame.thread:
        raise HoldfastError(
            f"run {run.id!r}: {name!r} was called while another call of the same branch is "
            "running in a thread, so their order could not be repeated. Await each asyncio.to_thread(…) before "
            "the next call, or give each a task of its own (asyncio.gather, TaskGroup)."
        )


class Invocation:
    """One call of a step in a run, with its place."""

    __slots__ = ("args", "definition", "frame", "in_thread", "instance", "key", "kwargs", "n")

    def __init__(
        self,
        definition: Definition,
        instance: Any,
        frame: Frame,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.definition = definition
        self.instance = instance
        self.frame = frame
        self.args = args
        self.kwargs = kwargs
        self.in_thread = False
        refuse_second_call(frame, definition.name)
        run = frame.run
        code = definition.function.__code__
        if run.names.get(definition.name) is not code:
            run.name_belongs_to(definition.name, code)
        self.key = None if definition.key is None else definition.key_of(args, kwargs)
        self.n = frame.count(definition.name, self.key)

    def body(self) -> Any:
        return self.definition.call(self.instance, self.args, self.kwargs)

    @property
    def scope(self) -> str:
        """The name of the scope that the body of this call opens."""
        return scope_of(self.frame.scope, self.frame.branch, self.definition.name, self.key, self.n)


# -- performing ------------------------------------------------------------------------------------------------


def perform_in_task(call: Invocation) -> Coroutine[Any, Any, Any]:
    """What performs a call on the task that awaits it, which is the one that asks now and need not be the one that
    made the call.
    """
    refuse_elsewhere(call.frame.run, call.definition.name)
    return perform(call, _in_task)


def refuse_elsewhere(run: LiveRun, name: str) -> None:
    driving = frame_of(asyncio.current_task())
    if driving is None or driving.run is not run:
        raise NotInRun(
            f"run {run.id!r}: a call of {name!r} made in the run is awaited in a task that is not "
            "part of it, so its outcome has no turn. Await it inside the run, with asyncio.create_task, gather or a "
            "TaskGroup."
        )


async def _in_task(call: Invocation, frame: Frame) -> Any:
    task = asyncio.current_task()
    assert task is not None
    driving = frame_of(task)
    assert driving is not None
    frame.task, frame.depth = task, driving.depth
    with entered(frame, task):
        return await call.body()


async def perform(call: Invocation, execute: Execute) -> Any:
    """Answer a call from the record, or execute it and record the outcome."""
    frame, definition = call.frame, call.definition
    run = frame.run
    await arrive(frame)
    inputs = definition.encode_inputs(call.args, call.kwargs)
    digest = codec.fingerprint(inputs)
    older = definition.older_versions
    row = run.recall(frame, definition.name, call.key, call.n, definition.version, inputs, digest, older)
    if row is not None:
        await recalled(call, row)
        return _answer(call, row)
    if run.pool is not None:
        sought = Sought(
            frame, definition.kind, definition.name, call.key, call.n, definition.version, inputs, digest, older
        )
        if (source := run.keep(sought)) is not None:
            row = _row_of(call, inputs, digest)
            await kept(call, row, source)
            return _answer(call, row)
    if clock.monotonic() > run.lease_deadline:
        await run.confirm_lease()
        run.check()
    if run.quiet is not None and (frame.step is None or not frame.step.in_step):
        await run.hold()
    return await _execute(call, execute, _row_of(call, inputs, digest), inputs)


async def arrive(frame: Frame) -> None:
    """The program has come to a call."""
    run = frame.run
    if run.stop is not None or run.finished:
        if run.is_ignoring:
            await run.halt()
        run.check()
    run.delivery.stir()
    if frame.moving is not None:
        frame.moving.rest()
        frame.moving = None


async def recalled(call: Placed, row: Checkpoint) -> None:
    """Wait until a recorded outcome has its turn. Raises ``CancelledError`` again if it was cancelled."""
    run = call.frame.run
    run.recalled += 1
    if run.observer is not None:
        run.observer("recalled", run, row)
    if row.delta is None and row.status != "cancelled" and run.tasks == 1 and not call.in_thread:
        run.delivering(row)  # nothing else runs: the order is kept by itself
    else:
        await _delivered_again(call, row)


async def _delivered_again(call: Placed, row: Checkpoint) -> None:
    """Wait until the recorded outcome may reach the workflow, and apply its change of state."""
    run, task = call.frame.run, asyncio.current_task()
    assert task is not None
    run.under_way[id(row)] = row, task
    try:
        if row.status == "cancelled":
            await _cancelled_again(call, row)
        pending = Pending(call.frame, row, changed=row.delta is not None, in_thread=call.in_thread)
        run.in_turn(pending)
        await pending.wait()
    finally:
        run.call_ended(row)
    if row.status == "cancelled":
        raise cancelled(row)


async def _cancelled_again(call: Placed, row: Checkpoint) -> None:
    """The workflow's own code cancelled this call before, so it will again; what came later waits for that.

    If it does not (it was changed meanwhile), the call is cancelled after rather more than the recorded time, counted
    from the start of that process: what cancels it may be a timeout around other calls too, which are recalled at once.
    """
    run = call.frame.run
    run.delivery.hold(row.seq)
    try:
        await clock.sleep(run.patience.usual_s(row) + row.duration_ms / 1000 * 1.5 + 1)
    except asyncio.CancelledError:
        if run.is_leaving:
            raise
    finally:
        run.delivery.release(row.seq)


async def kept(call: Placed, row: Checkpoint, source: Checkpoint) -> None:
    """Record, as ``row``, the outcome of a call that an earlier attempt has executed, and wait for its turn."""
    run, task = call.frame.run, asyncio.current_task()
    assert task is not None and run.pool is not None
    row.version, row.result, row.attempts = source.version, source.result, 0
    row.started_ms, row.duration_ms = source.started_ms, source.duration_ms  # now() tells the time of then
    run.kept += 1
    if run.observer is not None:
        run.observer("kept", run, row)
    run.under_way[id(row)] = row, task
    try:
        await recorded(call, row, decode_change(source).step, source.seq)
    except CodecError:
        run.pool.give_back(source)
        raise
    finally:
        run.call_ended(row)


def _answer(call: Invocation, row: Checkpoint) -> Any:
    """What a recorded outcome is to the caller: a value, or the failure raised again."""
    run, definition = call.frame.run, call.definition
    try:
        if row.status == "failed":
            failure = Failure.decode(row.result or b"", "the failure")
            raise StepFailed(row.name, failure.type, failure.message, seq=row.seq)
        return result_of(row, definition)
    except CodecError as error:
        raise run.cannot_read(row, error) from error


def _row_of(call: Invocation, inputs: bytes, digest: bytes) -> Checkpoint:
    """The checkpoint of a call that begins now; it is filled in as it goes."""
    frame, definition = call.frame, call.definition
    row = blank_row(frame.run.no, frame.run.epoch, kind=definition.kind)
    row.scope, row.branch, row.name, row.key, row.n = frame.scope, frame.branch, definition.name, call.key, call.n
    row.version, row.fingerprint, row.inputs = definition.version, digest, codec.preview(inputs)
    return row


async def _execute(call: Invocation, execute: Execute, row: Checkpoint, inputs: bytes) -> Any:
    """Run the body, attempt by attempt, and record how it ended."""
    run, task = call.frame.run, asyncio.current_task()
    assert task is not None
    began = clock.monotonic()
    progress = StepProgress(row, call.frame.step)
    run.executed += 1
    if run.observer is not None:
        run.observer("began", run, row)
    run.under_way[id(row)] = row, task
    try:
        try:
            value, failure, change = await _attempts(call, execute, row, progress)
        except asyncio.CancelledError:
            if run.is_leaving:
                raise
            # The workflow's own code cancelled the call: that is history, and stays so.
            row.status, value, failure, change = "cancelled", None, None, None
        else:
            _warn_of_changed_inputs(call, inputs)
        if failure is not None:
            row.status = "failed"
            row.result = Failure.of_step(failure).encode()
        row.duration_ms = (clock.monotonic() - began) * 1000
        row.tokens, row.usd = progress.tokens, progress.usd
        await recorded(call, row, change)
    finally:
        run.call_ended(row)
    if run.observer is not None:
        run.observer("executed", run, row)
    if not run.durable:
        _warn_if_undurable(run, row)
    if row.status == "cancelled":
        raise cancelled(row)
    if failure is not None:
        told = Failure.of_step(failure)
        raise StepFailed(row.name, told.type, told.message, seq=row.seq) from failure
    return value


async def recorded(call: Placed, row: Checkpoint, change: dict[str, Any] | None, kept: int = 0) -> None:
    """Have the row committed, and wait for its turn to reach the workflow. ``kept``: the row of an earlier attempt that
    it is taken from."""
    pending = Pending(call.frame, row, changed=bool(change), in_thread=call.in_thread)
    try:
        call.frame.run.record(pending, change, kept)
    except CodecError as unfit:
        call.frame.run.log.warning("%s", unfit)
        pending.settle()
        raise
    await pending.wait()


async def _attempts(
    call: Invocation, execute: Execute, row: Checkpoint, progress: StepProgress
) -> tuple[Any, BaseException | None, dict[str, Any] | None]:
    """(value, None, change of state) or (None, the final failure, None). A failed attempt leaves nothing."""
    frame, definition, run = call.frame, call.definition, call.frame.run
    scope = call.scope
    if run.records.retries(frame, definition.name, call.key, call.n):
        run.records.try_anew(scope)
    alone = run.alone and (not call.in_thread or frame.task is None)
    base = frame.view.begin(alone=alone)
    for attempt in range(1, definition.attempts + 1):
        row.attempts = attempt
        view = base if definition.attempts == 1 else base.begin(alone=True)
        try:
            body = execute(call, frame.inside(scope, view, progress))
            value = await body if definition.timeout is None else await _within(definition.timeout, body)
            run.check()
            row.result, value = _encoded(run, value, definition)
            return value, None, view.change()
        except CodecError:
            raise  # a mistake in the program, told where it is made and not recorded as history
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if run.is_leaving or (task is not None and task.cancelling()):
                raise
            return None, error, None  # the body itself was cancelled from within: it failed
        except Exception as error:
            run.check()
            if attempt == definition.attempts or not isinstance(error, definition.retry_on):
                return None, error, None
        await clock.sleep(backoff_s(definition.backoff, attempt))
        run.check()
        await _let_go(run, scope)
        run.records.try_anew(scope)
    raise AssertionError("a step has at least one attempt")


def _encoded(run: LiveRun, value: Any, definition: Definition) -> tuple[bytes, Any]:
    """The bytes of a result, and the result as every recall will give it: a value of its own, whatever else still
    holds the step's."""
    where = f"the result of step {definition.name!r}"
    try:
        data = codec.encode(value, definition.result_types, where, root=definition.name)
        if type(value) in _IMMUTABLE:
            return data, value
        return data, codec.decode(data, definition.result_types, where, root=definition.name)
    except CodecError as unfit:  # no checkpoint tells of it, so a line does
        run.log.warning("%s", unfit)
        raise


async def _let_go(run: LiveRun, scope: str) -> None:
    """End what a failed attempt has left under way, as ``gather`` does: the next one makes the same calls again."""
    left = run.tasks_inside(scope)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=LET_GO_S)
        run.check()


def _warn_of_changed_inputs(call: Invocation, inputs: bytes) -> None:
    """A recall gives back what the step returned; what it did to its arguments, it does not."""
    definition = call.definition
    if _IMMUTABLE.issuperset(map(type, call.args)) and _IMMUTABLE.issuperset(map(type, call.kwargs.values())):
        return
    if len(inputs) > _INPUTS_COMPARED_MAX:
        return
    try:
        after = definition.encode_inputs(call.args, call.kwargs)
    except CodecError:
        after = b""
    if after == inputs:
        return
    code, seen = definition.code, definition.function.__globals__.setdefault("__warningregistry__", {})
    warn_explicit(
        f"run {call.frame.run.id!r}: the arguments of step {definition.name!r} were changed while it ran, and a resume "
        "would recall its result without that change. Return what is new, or keep it in holdfast.state.",
        NotRecorded,
        code.co_filename,
        code.co_firstlineno,
        registry=seen,
    )


async def _within(seconds: float, body: Awaitable[Any]) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await body
    except TimeoutError as error:
        if limit.expired() and not str(error):
            raise TimeoutError(f"an attempt took longer than timeout={seconds:g} s") from None
        raise


def backoff_s(base: float, attempt: int) -> float:
    """Seconds before the next attempt: exponential with jitter (Brooker, "Exponential Backoff And Jitter", 2015)."""
    return random.uniform(0.5, 1.0) * min(BACKOFF_MAX_S, base * 2.0 ** min(attempt - 1, 32))


def _warn_if_undurable(run: LiveRun, row: Checkpoint) -> None:
    if run.warned:
        return
    run.expensive += row.duration_ms >= EXPENSIVE_S * 1000
    if run.expensive >= 3 or clock.monotonic() - run.started > UNDURABLE_AFTER_S:
        run.warned = True
        warn(
            f"run {run.id!r} keeps its checkpoints in memory only and would not survive this process. "
            'Open a store that does: holdfast.open("jobs.db").',
            NotRecorded,
            stacklevel=2,
        )
