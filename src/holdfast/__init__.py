"""holdfast: a long job continues where it stopped, in another process, with nothing finished done twice."""

from .app import Holdfast
from .app import open as open  # the alias tells type checkers that it is public
from .blob import Blob
from .context import current, emit, idempotency_key, now, progress, random, run_id, spend, state, uuid4
from .doubt import NOT_DONE, NotDone
from .errors import (
    Busy,
    Cancelled,
    CodecError,
    Diverged,
    Fenced,
    HoldfastError,
    InDoubt,
    Mismatch,
    NotFound,
    NotInRun,
    NotRecorded,
    StateConflict,
    StepFailed,
    StoreError,
    VersionMismatch,
)
from .logs import LogFilter
from .mapped import map as map
from .records import Checkpoint, Emitted, Event, Progress, Run, Skipped, Waiting
from .session import Session
from .turns import Each, each
from .waiting import sleep, wait_for
from .workflow import Call, StepCall, step, workflow

# ``open`` and ``map`` are public too, but a star import must not shadow the builtins.
__all__ = [
    "NOT_DONE",
    "Blob",
    "Busy",
    "Call",
    "Cancelled",
    "Checkpoint",
    "CodecError",
    "Diverged",
    "Each",
    "Emitted",
    "Event",
    "Fenced",
    "Holdfast",
    "HoldfastError",
    "InDoubt",
    "LogFilter",
    "Mismatch",
    "NotDone",
    "NotFound",
    "NotInRun",
    "NotRecorded",
    "Progress",
    "Run",
    "Session",
    "Skipped",
    "StateConflict",
    "StepCall",
    "StepFailed",
    "StoreError",
    "VersionMismatch",
    "Waiting",
    "current",
    "each",
    "emit",
    "idempotency_key",
    "now",
    "progress",
    "random",
    "run_id",
    "sleep",
    "spend",
    "state",
    "step",
    "uuid4",
    "wait_for",
    "workflow",
]
