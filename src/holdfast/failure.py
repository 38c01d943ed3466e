"""What is kept of an exception that ended a step or a run."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator

import msgspec

from . import codec
from .errors import CodecError, StepFailed

_SHORT_NAMES = frozenset({"builtins", "holdfast.errors"})  # modules whose classes everybody knows
_TRACEBACK_MAX = 8000  # characters, the last ones


class Failure(msgspec.Struct):
    """``type`` is the qualified name of the original exception's class, ``step`` the one that failed with it, if that
    ended a run. ``seqs`` are the checkpoints that a resume of the run tries anew: the failures that ended it (and
    earlier ones that no retry has come to yet), and the calls that were cancelled because of them."""

    type: str
    message: str
    traceback: str = ""
    seqs: list[int] = []
    step: str = ""

    def __post_init__(self) -> None:
        self.message = _storable(self.message)

    @classmethod
    def of_step(cls, error: BaseException) -> Failure:
        if isinstance(error, StepFailed):  # of a step inside, which has told the rest
            return cls(error.error_type, error.message)
        return cls._of(error)

    @classmethod
    def of_run(cls, error: BaseException, *, cancelled: set[int], ignored: set[int]) -> Failure:
        """``cancelled`` are the seqs of cancelled calls, ``ignored`` those that this process was to try anew."""
        failure = cls._of(error)
        if isinstance(error, StepFailed):
            failure.type, failure.message, failure.step = error.error_type, error.message, error.step
        seqs = {seq for each in _with_causes(error) for seq in _seqs_of(each)}
        # Calls cancelled behind the failure were cancelled because of it; what an earlier retry did not come to still
        # stands.
        behind = {seq for seq in cancelled if seqs and seq > min(seqs)}
        failure.seqs = sorted({*seqs, *behind, *ignored})
        return failure

    @classmethod
    def _of(cls, error: BaseException) -> Failure:
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ in _SHORT_NAMES else f"{kind.__module__}.{kind.__qualname__}"
        lines = traceback.format_exception(kind, error, error.__traceback__)
        return cls(name, _message_of(error), _storable("".join(lines)[-_TRACEBACK_MAX:]))

    def encode(self) -> bytes:
        return codec.encode(msgspec.structs.asdict(self), codec.Types.none, "a failure")

    @classmethod
    def decode(cls, data: bytes, where: str) -> Failure:
        """Raises ``CodecError``."""
        try:
            return msgspec.convert(codec.decode(data, codec.Types.none, where), cls)
        except msgspec.ValidationError as error:
            raise CodecError(f"{where} cannot be read: it is no failure ({error}). It is kept as it is.") from None

    @property
    def said(self) -> str:
        """The text of the exception that ended the run, or the step."""
        return str(StepFailed(self.step, self.type, self.message)) if self.step else self.message

    def __str__(self) -> str:
        return f"{StepFailed.__name__ if self.step else self.type}: {self.said}"


def _message_of(error: BaseException) -> str:
    try:
        if isinstance(error, asyncio.CancelledError) and not error.args:
            return "its own code let a cancellation through; the history tells which call was cancelled"
        return str(error)
    except Exception as broken:
        return f"(its message cannot be read: {type(broken).__name__})"


def _storable(text: str) -> str:
    """A message may hold a file name that is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _seqs_of(error: BaseException) -> list[int]:
    """The checkpoint that an exception came from: of a failed step, of a call that a timeout cut short, or of a wait
    whose time was over; and of the items of a map that failed beside the one it raised."""
    if not isinstance(error, (StepFailed, asyncio.CancelledError, TimeoutError)):
        return []
    seq = getattr(error, "seq", None)
    return [] if seq is None else [seq, *getattr(error, "beside", ())]


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all it was raised from, groups taken apart; what is behind a recorded failure is its own story."""
    seen: set[int] = set()
    open_: list[BaseException | None] = [error]
    while open_:
        each = open_.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, StepFailed) and each.seq is not None:
            continue
        if isinstance(each, BaseExceptionGroup):
            open_.extend(each.exceptions)
        open_.extend((each.__cause__, each.__context__))
