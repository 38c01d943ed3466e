"""``sleep``, ``wait_for`` and, in a workflow's body, ``hf.run``: what a run waits for while nothing of it is kept busy.

A wait is a call with a place of its own, like that of a step, settled where it is made. Its outcome is recorded and
recalled like a step's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from . import clock, codec, threads
from .branches import Frame, current_frame
from .calls import arrive, cancelled, kept, recalled, recorded, refuse_elsewhere, refuse_second_call
from .errors import CodecError, HoldfastError, NotInRun, StepFailed
from .expected import Expected
from .failure import Failure
from .lazy import LazyCoroutine
from .recall import blank_row
from .salvage import Sought
from .store import Checkpoint

if TYPE_CHECKING:
    from .workflow import Call

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_LONGEST_S = 100 * 366 * 86400.0  # a century


def sleep(seconds: float) -> WaitCall[None]:
    """Wait so long. In a workflow's body the end of it is fixed when it begins, by the store's clock, and holds however
    often the run is resumed meanwhile: ``await holdfast.sleep(3 * 86400)`` ends three days after it began. In a step
    and outside a run it sleeps plainly.
    """
    _refuse_unfit("sleep", seconds)
    frame = _frame_of_body()
    if frame is None:
        return WaitCall("sleep", "sleep", None, seconds=seconds)
    return WaitCall("sleep", "sleep", frame, seconds=seconds, inputs={"seconds": float(seconds)})


def wait_for(name: str, type: type[T], timeout: float | None = None, ask: str | None = None) -> WaitCall[T]:
    """Wait for the next signal ``name`` that is sent to this run, a value of ``type``.

    Signals are mailboxes: what was sent before the workflow asked is kept, and the first sent is the first received.
    ``timeout`` is in seconds, counted as ``sleep`` does; after it ``TimeoutError`` is raised. ``ask`` says to people
    what they are asked for (``holdfast list --waiting``). A signal that is no ``type`` is set aside, told in the log,
    and the wait goes on. Raises ``NotInRun`` outside of a workflow's body.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise TypeError(f"wait_for() takes the name of a signal first, a non-empty str on one line, got {name!r}")
    if ask is not None and not isinstance(ask, str):
        raise TypeError(f"ask= is what people are asked, a str, got {ask!r}")
    if timeout is not None:
        _refuse_unfit("wait_for", timeout)
    expected = Expected(type)
    frame = _frame_of_body()
    if frame is None:
        raise NotInRun(_no_run_to_send_to(name))
    return WaitCall("signal", name, frame, seconds=timeout, ask=ask, expected=expected)


def child_run(home: object, call: Call[T], id: str, state: Mapping[str, Any] | None) -> WaitCall[T] | None:
    """Another workflow as a run of its own, waited for by this one; None outside of a workflow's body, and on another
    ``Holdfast``."""
    try:
        frame = _frame_of_body()
    except NotInRun:  # of no run that could wait for it
        frame = None
    if frame is None or frame.run.home is not home:
        return None
    call.take()
    if id == frame.run.id:
        raise HoldfastError(f"run {id!r} would wait for itself. Give the run that it begins an id of its own.")
    inputs = {"workflow": call.definition.name, "inputs": call.inputs()}
    child = Child(call, id, state)
    return WaitCall("run", call.definition.name, frame, key=id, child=child, inputs=inputs)


def _frame_of_body() -> Frame | None:
    """Where in a workflow's body this is; None in a step and outside a run."""
    frame = current_frame()
    if frame is None or (frame.step is not None and frame.step.in_step):
        return None
    return frame


def _refuse_unfit(what: str, seconds: float) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"holdfast.{what}() takes seconds, got {seconds!r}")
    if not 0 <= seconds <= _LONGEST_S:
        raise ValueError(f"holdfast.{what}() takes seconds from 0 to {_LONGEST_S:.0f}, got {seconds!r}")


def _no_run_to_send_to(name: str) -> str:
    if current_frame() is not None:
        return (
            f"wait_for({name!r}) is called in a step, and belongs in the workflow: a step is executed again after a "
            "crash, a wait is not. Wait in the workflow's body, and give the step what came."
        )
    return (
        f"wait_for({name!r}) waits for a signal sent to a run, and there is no run here. To test a workflow that "
        'waits, run it in memory and send it what it waits for: `async with holdfast.open("memory://") as hf:`, '
        f'`await hf.start(workflow(…), id="t")`, `await hf.send("t", {name!r}, …)`. (The fixture `hf` of '
        "holdfast.testing is such a Holdfast, and its FakeClock lets timeouts pass.)"
    )


class Child(NamedTuple):
    """What is to be a run of its own."""

    call: Call[Any]
    id: str
    state: Mapping[str, Any] | None


class WaitCall(LazyCoroutine[R_co]):
    """A wait that has not begun: of kind "sleep", "signal" (``name`` is the signal's) or "run" (``key`` is the child's
    id)."""

    __slots__ = (
        "_seconds",
        "ask",
        "child",
        "digest",
        "expected",
        "frame",
        "in_thread",
        "inputs",
        "key",
        "kind",
        "n",
        "name",
    )

    def __init__(
        self,
        kind: str,
        name: str,
        frame: Frame | None,
        *,
        seconds: float | None = None,
        ask: str | None = None,
        expected: Expected | None = None,
        key: str | None = None,
        child: Child | None = None,
        inputs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.name = name
        self.key = key
        self.ask = ask
        self.expected = expected
        self.child = child
        self.in_thread = False
        self._seconds = seconds
        if frame is not None:
            refuse_second_call(frame, key or name)
            self.frame = frame
            self.n = frame.count(name, key)
            # How long a signal is waited for, and what people are asked, is no part of which wait this is.
            self.inputs = codec.encode_inputs(inputs or {}, f"the wait {name!r}")
            self.digest = codec.fingerprint(kind.encode() + self.inputs)
        self._coro = None

    @property
    def _name(self) -> str:
        return {"sleep": "holdfast.sleep", "signal": "holdfast.wait_for"}.get(self.kind, "Holdfast.run")

    def _described(self) -> str:
        told = self.name if self.kind == "signal" else self.key
        return f"{self._name.rpartition('.')[2]}({'' if told is None else repr(told)})"

    @property
    def is_in_run(self) -> bool:
        return hasattr(self, "frame")

    def _begin(self) -> Coroutine[Any, Any, R_co]:
        if not self.is_in_run:
            slept: Any = clock.sleep(self._seconds or 0.0)
            return cast("Coroutine[Any, Any, R_co]", slept)
        refuse_elsewhere(self.frame.run, self.key or self.name)
        return self.performed()

    def perform_in_thread(self) -> R_co:
        """From plain ``def`` code of the run; blocks until the outcome is delivered, or the run must stop."""
        self.take()
        result: R_co = threads.ask_the_loop(self, lambda _: self.performed())
        return result

    async def performed(self) -> Any:
        """Answer it from the record, or wait, and record the outcome."""
        frame, run = self.frame, self.frame.run
        await arrive(frame)
        row, error = run.recall(frame, self.name, self.key, self.n, "", self.inputs, self.digest), None
        if row is not None:
            await recalled(self, row)
        elif run.pool is not None and (source := run.keep(self._sought)) is not None:
            row = self._row()
            await kept(self, row, source)
        else:
            row, error = await self._waited()
        return self._answer(row, error)

    @property
    def _sought(self) -> Sought:
        return Sought(self.frame, self.kind, self.name, self.key, self.n, "", self.inputs, self.digest)

    def _row(self) -> Checkpoint:
        """The checkpoint of its outcome."""
        frame = self.frame
        row = blank_row(frame.run.no, frame.run.epoch, kind=self.kind)
        row.scope, row.branch, row.name, row.key, row.n = frame.scope, frame.branch, self.name, self.key, self.n
        row.fingerprint, row.inputs = self.digest, codec.preview(self.inputs)
        return row

    async def _waited(self) -> tuple[Checkpoint, BaseException | None]:
        frame, run = self.frame, self.frame.run
        if run.irreversible.holds(frame):
            await run.hold()
        begun, row = run.begun(frame, self.name, self.key, self.n, "", self.inputs, self.digest), self._row()
        earlier = None if begun is not None or run.pool is None else run.pool.begun(self._sought)
        if run.rehearsal is not None:
            await run.rehearsal.rest(frame, row)
        wait = run.waits.begin(frame, row, begun, earlier, seconds=self._seconds, ask=self.ask, expected=self.expected)
        wait.child, began = self.child, clock.monotonic()
        if run.observer is not None:
            run.observer("waiting", run, wait.begins)
        try:
            await run.waits.over(wait)
        except asyncio.CancelledError:
            if run.is_leaving:
                raise
            row.status, row.result = "cancelled", None  # by the workflow's own code: that is history, and stays so
        row.duration_ms = (clock.monotonic() - began) * 1000
        await recorded(self, row, None)
        run.looks.ask()
        if run.observer is not None:
            run.observer("executed", run, row)
        if row.status == "cancelled":
            raise cancelled(row)
        return row, wait.error

    def _answer(self, row: Checkpoint, error: BaseException | None) -> Any:
        """What an outcome is to the workflow: a value, or the failure raised again."""
        try:
            if row.status == "failed":
                failure = Failure.decode(row.result or b"", "the failure")
                if self.kind == "run":
                    raise StepFailed(row.name, failure.type, failure.message, seq=row.seq) from error
                late = TimeoutError(failure.message)
                late.__dict__["seq"] = row.seq  # if it ends the run, the wait is made anew
                raise late
            if self.child is not None:
                return codec.decode(
                    row.result or b"", self.child.call.definition.result_types, f"the result of {self.key!r}"
                )
            if self.expected is None:
                return None
            return codec.decode(row.result or b"", self.expected.types, f"the signal {self.name!r}")["value"]
        except CodecError as unreadable:
            raise self.frame.run.cannot_read(row, unreadable) from unreadable
