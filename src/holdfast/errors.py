"""Everything holdfast raises or warns, in one tree.

HoldfastError
├── Busy              another owner holds the run, and the caller asked not to wait
├── Fenced            this process lost the run to another owner; its writes are refused
├── Mismatch          the id belongs to a run of another workflow or of other arguments
├── Diverged          the code asks for something else than the record holds at this place
├── InDoubt           nobody knows whether an irreversible step took effect
├── StateConflict     two overlapping parts of a run changed one state key differently
├── VersionMismatch   the run was recorded by another version of the workflow
├── StepFailed        a step (or a run waited for) failed for good
├── Cancelled         the run was ended by ``hf.cancel``
├── NotFound          no run has this id
├── NotInRun          the call needs a run, and there is none here
├── CodecError        a value cannot be stored, or not be restored as it was
└── StoreError        the store cannot be read or written

NotRecorded (a UserWarning): work that looks durable is not.
"""

from __future__ import annotations


class HoldfastError(Exception):
    """The base of every error holdfast raises."""


class Busy(HoldfastError):
    """Another owner advances this run right now, and the caller asked not to wait."""


class Fenced(HoldfastError):
    """Another owner has taken this run over; nothing this process does to it counts any more."""


class Mismatch(HoldfastError):
    """The id is taken by a run of another workflow, or of the same one with other arguments."""


class Diverged(HoldfastError):
    """At this place the record holds a call with other inputs than the code makes now."""


class InDoubt(HoldfastError):
    """Nobody knows whether a step marked ``once`` took effect, so it is neither done again nor taken for done.

    ``seq`` is the checkpoint that ``holdfast resolve`` takes, ``inputs`` a preview of the step's arguments by name,
    ``key`` what ``idempotency_key()`` gave the step.
    """

    def __init__(self, message: str, *, step: str = "", inputs: object = None, key: str = "", seq: int = 0) -> None:
        self.step = step
        self.inputs = inputs
        self.key = key
        self.seq = seq
        super().__init__(message)


class StateConflict(HoldfastError):
    """Two overlapping parts of a run gave one state key different values; neither is dropped silently."""


class VersionMismatch(HoldfastError):
    """The run was recorded by another version of its workflow (or of Python)."""


class StepFailed(HoldfastError):
    """A step failed for good: all its attempts are used up, or the error is not in ``retry_on``.

    ``error_type`` is the qualified name of the original exception's class and ``message`` its text.
    When the step ran in this process the original is chained as ``__cause__``; when its failure was
    recalled from the record only the two strings are left.
    """

    def __init__(self, step: str, error_type: str, message: str, *, seq: int | None = None) -> None:
        self.step = step
        self.error_type = error_type
        self.message = message
        self.seq = seq
        super().__init__(f"{step} failed with {error_type}: {message}")


class Cancelled(HoldfastError):
    """The run was ended by ``hf.cancel``; it does not resume. Start the work again under a new id."""


class NotFound(HoldfastError):
    """The store knows no run of this id."""


class NotInRun(HoldfastError):
    """What was called only has a meaning inside a run."""


class CodecError(HoldfastError):
    """A value cannot be written down, or would not come back as what it was.

    ``path`` is the place inside the value, such as ``docs[3].page.image``.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class StoreError(HoldfastError):
    """The store cannot be opened, read or written; the message names it and what to do."""


class NotRecorded(UserWarning):
    """Something that looks durable is not: it would be lost, or done again, after a crash."""
