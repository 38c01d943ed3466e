"""What a call of a step means: recalled or executed, once, in its place.

The place of a call, ``(branch, scope, name, n)``, is settled where the call is made; what it is answered with, where
it is awaited. Async and plain ``def`` steps share ``perform``: a plain one waits in its thread for instructions.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any
from warnings import warn, warn_explicit

from . import clock, codec
from .branches import Frame, StepProgress
from .definition import Definition
from .errors import CodecError, HoldfastError, NotRecorded, StateConflict, StepFailed
from .records import told_by
from .run import LiveRun, Pending, scope_of
from .state import decode_change
from .store import Checkpoint

log = logging.getLogger("holdfast")

Execute = Callable[[Frame], Awaitable[Any]]

BACKOFF_MAX_S = 60.0
EXPENSIVE_S = 5.0  # the work whose loss a memory:// run warns about
UNDURABLE_AFTER_S = 30.0
LET_GO_S = 5.0  # how long a task that is cancelled behind a failed attempt is waited for
_IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes})


def _cancelled(row: Checkpoint) -> asyncio.CancelledError:
    """The cancellation of a call, with its checkpoint: if it ends the run (a timeout), that call is tried anew.

    No class of its own: ``asyncio.timeout`` looks for the very class.
    """
    error = asyncio.CancelledError()
    error.__dict__["seq"] = row.seq
    return error


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
        if not frame.run.is_ignoring:
            frame.run.check()
        if frame.in_thread:
            raise HoldfastError(
                f"run {frame.run.id!r}: {definition.name!r} was called while another call of the same branch is "
                "running in a thread, so their order could not be repeated. Await each asyncio.to_thread(…) before "
                "the next call, or give each a task of its own (asyncio.gather, TaskGroup)."
            )
        frame.run.name_belongs_to(definition.name, definition.function.__code__)
        self.key = definition.key_of(args, kwargs)
        self.n = frame.count(definition.name, self.key)

    @property
    def scope(self) -> str:
        """The name of the scope that the body of this call opens."""
        return scope_of(self.frame.scope, self.frame.branch, self.definition.name, self.key, self.n)


# -- performing ------------------------------------------------------------------------------------------------


async def perform(call: Invocation, execute: Execute) -> Any:
    """Answer a call from the record, or execute it and record the outcome."""
    run, definition = call.frame.run, call.definition
    if run.is_ignoring:
        await run.halt()
    run.check()
    run.delivery.stir()
    if call.frame.thread_rested is not None:
        call.frame.thread_rested()
        call.frame.thread_rested = None
    inputs = definition.encode_inputs(call.args, call.kwargs)
    digest = codec.fingerprint(inputs)
    row = run.recall(call.frame, definition.name, call.key, call.n, definition.version, inputs, digest)
    if row is not None:
        return await _recall(call, row)
    if clock.monotonic() > run.lease_deadline:
        await run.confirm_lease()
        run.check()
    task = asyncio.current_task()
    assert task is not None
    run.call_began(task, call.scope)
    try:
        return await _execute(call, execute, inputs, digest)
    finally:
        run.call_ended(task)


async def _recall(call: Invocation, row: Checkpoint) -> Any:
    run = call.frame.run
    run.recalled += 1
    if run.observer is not None:
        run.observer("recalled", run, row)
    if row.status != "cancelled" and row.delta is None and run.alone and not call.in_thread:
        run.in_turn(row, lambda: None)  # nothing else runs: the order is kept by itself
        return _answer(call, row)
    task = asyncio.current_task()
    assert task is not None
    run.call_began(task, call.scope)
    try:
        if row.status == "cancelled":
            await _cancelled_again(call, row)
        await _delivered(call, row)
    finally:
        run.call_ended(task)
    return _answer(call, row)


async def _cancelled_again(call: Invocation, row: Checkpoint) -> None:
    """The workflow's own code cancelled this call before, so it will again; what came later waits for that.

    If it does not (it was changed meanwhile), the call is cancelled after rather more than the recorded time, counted
    from the start of that process: what cancels it may be a timeout around other calls too, which are recalled at once.
    """
    run = call.frame.run
    run.delivery.hold(row.seq)
    try:
        await clock.sleep(run.usual_s(row) + row.duration_ms / 1000 * 1.5 + 1)
    except asyncio.CancelledError:
        if run.is_leaving:
            raise
    finally:
        run.delivery.release(row.seq)
    await _delivered(call, row)
    raise _cancelled(row)


async def _delivered(call: Invocation, row: Checkpoint) -> None:
    """Wait until the outcome of ``row`` may reach the workflow, and apply its change of state."""
    run = call.frame.run
    pending = run.pending()
    run.in_turn(row, _delivery(call, row, pending))
    await _settled(run, pending)


def _delivery(call: Invocation, row: Checkpoint, pending: Pending, *, changed: bool = True) -> Callable[[], None]:
    run, frame = call.frame.run, call.frame

    def deliver() -> None:
        error: BaseException | None = None
        try:
            # Live from the row too: what the step left in the state may be in others' hands, and change meanwhile.
            ops = decode_change(row).step if changed else None
            if ops:
                frame.view.apply(ops, row.seq)
        except StateConflict as conflict:
            error = StateConflict(f"run {run.id!r}, step {row.name!r}: {conflict}")
        except CodecError as unreadable:
            error = run.poison(_unreadable(run, row, unreadable))
        if call.in_thread:
            frame.thread_rested = run.delivery.follow_thread(frame.task)
        run.settled(pending, error)

    return deliver


async def _settled(run: LiveRun, pending: Pending) -> None:
    if await pending.wait(run):
        task = asyncio.current_task()
        assert task is not None
        run.loop.call_soon(_pass_on_cancellation, task)


def _pass_on_cancellation(task: asyncio.Task[Any]) -> None:
    """A cancellation that came after the outcome was recorded reaches the task at its next pause, if it stands."""
    if not task.done() and task.cancelling():
        task.uncancel()
        task.cancel()


def _answer(call: Invocation, row: Checkpoint) -> Any:
    """What a recorded outcome is to the caller: a value, or the failure raised again."""
    run, definition = call.frame.run, call.definition
    try:
        if row.status == "failed":
            failure = codec.decode(row.result or b"", codec.Types.none, "the failure")
            raise StepFailed(row.name, failure["type"], failure["message"], seq=row.seq)
        return codec.decode(row.result or b"", definition.result_types, "the result")
    except CodecError as error:
        raise run.poison(_unreadable(run, row, error)) from error


def _unreadable(run: LiveRun, row: Checkpoint, error: CodecError) -> CodecError:
    log.error("run %s: checkpoint %s (%s) cannot be read: %s", run.id, row.seq, row.name, error)
    return CodecError(f"run {run.id!r}, checkpoint {row.seq} ({row.name}) cannot be read: {error}", path=error.path)


async def _execute(call: Invocation, execute: Execute, inputs: bytes, digest: bytes) -> Any:
    """Run the body, attempt by attempt, and record how it ended."""
    frame, definition = call.frame, call.definition
    run = frame.run
    row = Checkpoint(
        run_no=run.no,
        seq=0,
        epoch=run.epoch,
        kind=definition.kind,
        scope=frame.scope,
        branch=frame.branch,
        name=definition.name,
        key=call.key,
        n=call.n,
        version=definition.version,
        status="done",
        attempts=1,
        started_ms=clock.now_ms(),
        duration_ms=0.0,
        tokens=None,
        usd=None,
        fingerprint=digest,
        inputs=codec.preview(inputs),
        result=None,
        delta=None,
    )
    began = clock.monotonic()
    progress = StepProgress(definition.name, definition.kind)
    run.executed += 1
    if run.observer is not None:
        run.observer("began", run, row)
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
        row.result = codec.encode(_describe(failure), codec.Types.none, "a failure")
    row.duration_ms = (clock.monotonic() - began) * 1000
    row.tokens, row.usd = progress.tokens, progress.usd
    pending = run.pending()
    try:
        run.record(row, change, _delivery(call, row, pending, changed=bool(change)))
    except CodecError:
        run.settled(pending)
        raise
    await _settled(run, pending)
    if run.observer is not None:
        run.observer("executed", run, row)
    if not run.durable:
        _warn_if_undurable(run, row)
    if row.status == "cancelled":
        raise _cancelled(row)
    if failure is not None:
        described = _describe(failure)
        raise StepFailed(row.name, described["type"], described["message"], seq=row.seq) from failure
    return value


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
        view = base.begin(alone=True)
        try:
            body = execute(frame.inside(scope, view, progress))
            value = await body if definition.timeout is None else await _within(definition.timeout, body)
            run.check()
            where = f"the result of step {definition.name!r}"
            row.result = codec.encode(value, definition.result_types, where, root=definition.name)
            if type(value) not in _IMMUTABLE:
                # The first time as every other time: a value of its own, whatever else still holds the step's.
                value = codec.decode(row.result, definition.result_types, where, root=definition.name)
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
    if all(type(each) in _IMMUTABLE for each in (*call.args, *call.kwargs.values())):
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
    async with asyncio.timeout(seconds):
        return await body


def backoff_s(base: float, attempt: int) -> float:
    """Seconds before the next attempt: exponential with jitter (Brooker, "Exponential Backoff And Jitter", 2015)."""
    return random.uniform(0.5, 1.0) * min(BACKOFF_MAX_S, base * 2.0 ** min(attempt - 1, 32))


def _describe(failure: BaseException) -> dict[str, Any]:
    kind = type(failure)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(failure, StepFailed):
        return {"type": failure.error_type, "message": failure.message, "traceback": ""}
    message, lines = told_by(failure)
    return {"type": name, "message": message, "traceback": lines}


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
