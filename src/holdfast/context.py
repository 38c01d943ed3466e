"""What code inside a run may ask for: its state, its time, its randomness, its costs. Outside a run it all works
plainly.
"""

from __future__ import annotations

import contextvars
import operator
import random as _random
import struct
import uuid as _uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import clock, codec, doubt
from .branches import Frame, current_frame
from .errors import NotInRun
from .news import encode_chunk
from .views import StateMapping, View

if TYPE_CHECKING:
    from .app import Holdfast

_COST_MAX = 10**15  # far above any real cost, so that no sum of them is too big for a store

_plain_state: contextvars.ContextVar[View] = contextvars.ContextVar("holdfast_plain_state")


def begin_outside() -> View:
    """The state of this context outside every run. What is called outside begins it, so that its tasks share it."""
    try:
        return _plain_state.get()
    except LookupError:
        view = View({})
        _plain_state.set(view)
        return view


def _view() -> View:
    frame = current_frame()
    return begin_outside() if frame is None else frame.view


class State(StateMapping):
    """The run's durable mapping, as the code that asks sees it: a step its own view, the workflow's body the live
    state. Outside a run it is an ordinary mapping of this context."""

    __slots__ = ()
    _name = "holdfast.state"

    def __repr__(self) -> str:
        return f"{self._name}({super().__repr__()})"


state = State(_view)


def _frame(what: str) -> Frame:
    frame = current_frame()
    if frame is None:
        raise NotInRun(f"holdfast.{what}() is called outside every run; start one with hf.run(…)")
    return frame


def current() -> Holdfast:
    """The ``Holdfast`` this run belongs to. Raises ``NotInRun``."""
    home: Holdfast = _frame("current").run.home
    return home


def run_id() -> str:
    """The id of the run this code is part of. Raises ``NotInRun``."""
    return _frame("run_id").run.id


def now() -> datetime:
    """The time, in UTC. In a workflow's body it is that of the last outcome delivered, so it is the same on every
    resume; in a step and outside a run, the machine's.
    """
    frame = current_frame()
    in_step = frame is not None and frame.step is not None and frame.step.row.kind == "step"
    ms = clock.now_ms() if frame is None or in_step else frame.run.time.ms(frame.scope)
    return datetime.fromtimestamp(ms / 1000, UTC)


def _bits(frame: Frame, what: str) -> bytes:
    """16 bytes that follow from the run's seed and the place of the call: random, and the same on every resume."""
    place = (frame.run.seed, frame.scope, frame.branch, what, frame.count(f"holdfast.{what}"))
    return codec.fingerprint(repr(place).encode())


def uuid4() -> _uuid.UUID:
    """A random UUID, the same on every resume."""
    frame = current_frame()
    return _uuid.uuid4() if frame is None else uuid4_in(frame)


def uuid4_in(frame: Frame) -> _uuid.UUID:
    """``uuid4`` for who knows where it is asked for."""
    return _uuid.UUID(bytes=_bits(frame, "uuid4"), version=4)


def random() -> float:
    """A random number in [0, 1), the same on every resume."""
    frame = current_frame()
    if frame is None:
        return _random.random()
    return float(struct.unpack("<Q", _bits(frame, "random")[:8])[0] >> 11) * 2.0**-53


_given_key: contextvars.ContextVar[str | None] = contextvars.ContextVar("holdfast_given_key", default=None)


def give_key(key: str) -> None:
    """From here on ``idempotency_key()`` is this one in this context: of a call that another framework makes, where it
    is recorded without a run of ours around it."""
    _given_key.set(key)


def idempotency_key() -> str:
    """32 characters, the same over every attempt of the running step, in every process, and different for every call:
    what payment services and the like take to make one effect of several requests. In ``verify=`` it is the step's.

    Outside a run it is a new random one each time. Raises ``NotInRun`` in a workflow's body.
    """
    frame = current_frame()
    if frame is None:
        return _given_key.get() or _uuid.uuid4().hex
    step = frame.step
    if step is None or step.row.kind != "step":
        raise NotInRun(
            "holdfast.idempotency_key() is called in a workflow's body, and belongs into the step that makes the "
            "request: it names one call of one step"
        )
    return step.key or doubt.idempotency_key(frame.run.id, step.row)


def spend(*, tokens: int = 0, usd: float = 0.0) -> None:
    """Add to the recorded cost of the running step: each from 0 to 10**15. Outside a run it does nothing; in a
    workflow's body it raises ``NotInRun``.
    """
    # Plain numbers from here on: what a store does not take would fail the commit, and other runs with it.
    tokens, usd = operator.index(tokens), float(usd)
    frame = current_frame()
    if frame is None:
        return
    if frame.step is None or frame.step.row.kind != "step":
        raise NotInRun("holdfast.spend() belongs into a step: costs are recorded with the step that caused them")
    if not (0 <= tokens <= _COST_MAX and 0 <= usd <= _COST_MAX):
        raise ValueError(f"costs are not negative, and at most {_COST_MAX:.0e}: tokens={tokens!r}, usd={usd!r}")
    if tokens:
        frame.step.tokens = (frame.step.tokens or 0) + tokens
    if usd:
        frame.step.usd = (frame.step.usd or 0.0) + usd


def progress(done: float, total: float) -> None:
    """Tell those who watch that ``done`` of ``total`` is done, in whatever unit; the last word counts. Returns at once,
    from any thread. Not recorded; outside a run it does nothing.
    """
    for value in (done, total):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"holdfast.progress() takes two numbers, got {done!r} and {total!r}")
    frame = current_frame()
    if frame is not None:
        frame.run.tell(frame, (_small(done), _small(total)))


def _small(number: float) -> float:
    """An integer that could not be written down, as the nearest float."""
    return number if abs(number) < 2**63 else float(number)


def emit(chunk: Any) -> None:
    """Send a chunk (a token, a line, a dict) to those who watch, in order. Returns at once, from any thread.

    ``chunk`` is anything ``holdfast.state`` could hold, of at most 64 KiB, else ``CodecError``. It is not recorded: a
    step that is executed again emits again, one that is recalled does not. Outside a run it does nothing.
    """
    frame = current_frame()
    if frame is not None:
        frame.run.tell(frame, encode_chunk(chunk))
