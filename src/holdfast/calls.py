"""What a call of a step means: recalled or executed, once, in its place.

The place of a call, ``(branch, scope, name, n)``, is settled where the call is made; what it is answered with, where
it is awaited. Async and plain ``def`` steps share ``perform``: a plain one waits in its thread for instructions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol
from warnings import warn, warn_explicit

from msgspec.structs import replace

from . import clock, codec
from .apart import brought, set_apart
from .attempts import attempts
from .blobs import reference_in
from .branches import Frame, StepProgress, frame_of
from .definition import Definition
from .delivery import Pending
from .errors import CodecError, HoldfastError, NotInRun, NotRecorded, StepFailed
from .executing import Execute, in_task
from .failure import Failure
from .once import unrecorded
from .recall import blank_row, scope_of
from .run import LiveRun
from .salvage import Sought
from .state import decode_change
from .store import Checkpoint, is_text
from .upgrades import result_of

EXPENSIVE_S = 5.0  # the work whose loss a memory:// run warns about
UNDURABLE_AFTER_S = 30.0
_INPUTS_COMPARED_MAX = 64 * 1024  # bytes; larger ones are not worth encoding twice for a warning
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
    if frame.step is not None and frame.step.is_asking:
        raise HoldfastError(
            f"run {run.id!r}: {name!r} was called in the verify= of step {frame.step.row.name!r}. What it answers "
            "would be recorded, and an old answer taken for a new one: let verify= ask the outside world itself."
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
        item: tuple[str, int] | None = None,
    ) -> None:
        """``item``: the (key, n) of one item among many."""
        self.definition = definition
        self.instance = instance
        self.frame = frame
        self.args = args
        self.kwargs = kwargs
        self.in_thread = False
        self.key: str | None
        refuse_second_call(frame, definition.name)
        run = frame.run
        code = definition.function.__code__
        if run.names.get(definition.name) is not code:
            run.name_belongs_to(definition.name, code)
        if item is not None:
            self.key, self.n = item
            return
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
    return perform(call, in_task)


def checked_key(of: str, key: Any) -> str:
    """What ``key=`` of a map or a loop has returned. Raises ``HoldfastError``."""
    if not isinstance(key, str) or not key or not is_text(key):
        raise HoldfastError(f"{of}: key= must return a non-empty str that a store can hold, got {key!r}")
    return key


def refuse_elsewhere(run: LiveRun, name: str) -> None:
    driving = frame_of(asyncio.current_task())
    if driving is None or driving.run is not run:
        raise NotInRun(
            f"run {run.id!r}: a call of {name!r} made in the run is awaited in a task that is not "
            "part of it, so its outcome has no turn. Await it inside the run, with asyncio.create_task, gather or a "
            "TaskGroup."
        )


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
        return await _recalled(call, row)
    if run.pool is not None:
        sought = Sought(
            frame, definition.kind, definition.name, call.key, call.n, definition.version, inputs, digest, older
        )
        source, row = run.keep(sought), _row_of(call, inputs, digest)
        if source is not None and source.status == "intent":  # its doubt is one of this attempt from now on
            row.status, row.result, row.attempts = source.status, source.result, source.attempts
            run.note(row, kept=source.seq)
        elif source is not None:
            return await _kept(call, row, source)
    if run.rehearsal is not None and definition.kind == "step":
        await run.rehearsal.rest(frame, _row_of(call, inputs, digest))
    if clock.monotonic() > run.lease_deadline:
        await run.confirm_lease()
        run.check()
    if run.irreversible.holds(frame) or (run.quiet is not None and (frame.step is None or not frame.step.in_step)):
        await run.hold()
    return await _execute(call, execute, _row_of(call, inputs, digest), inputs)


async def _recalled(call: Invocation, row: Checkpoint) -> Any:
    named = reference_in(row.result)
    if named is None:
        await recalled(call, row)
        return _answer(call, row)
    async with brought(call.frame.run, row, named, in_turn=True) as whole:
        await recalled(call, whole)
        return _answer(call, whole)


async def _kept(call: Invocation, row: Checkpoint, source: Checkpoint) -> Any:
    named = reference_in(source.result)
    if named is None:
        await kept(call, row, source)
        return _answer(call, row)
    async with brought(call.frame.run, source, named, in_turn=False) as whole:
        await kept(call, row, source)
        return _answer(call, replace(row, result=whole.result))


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
    row.version, row.result, row.blobs, row.attempts = source.version, source.result, source.blobs, 0
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
    run, definition, task = call.frame.run, call.definition, asyncio.current_task()
    assert task is not None
    began = clock.monotonic()
    progress = StepProgress(row, call.frame.step, once=call.definition.once)
    run.executed += 1
    if run.observer is not None:
        run.observer("began", run, row)
    run.under_way[id(row)] = row, task
    try:
        try:
            value, failure, change = await attempts(call, execute, row, progress, inputs)
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
        # Only here: who recalls a signal, a child or a turn of a loop reads it in its row.
        await set_apart(run, row)
        try:
            await recorded(call, row, change)
        except CodecError as unfit:
            if definition.once and row.status == "done" and row.seq == 0:
                await unrecorded(call, row, unfit)
            raise
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
