"""What the store holds, as people and programs see it: ``Run`` and ``Checkpoint``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import codec
from .errors import CodecError
from .failure import Failure
from .store import Checkpoint as CheckpointRow
from .store import RunRow, Spent

_ENDED = frozenset({"failed", "parked"})


@dataclass(frozen=True)
class Cost:
    """Recorded costs, added up."""

    tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True)
class Run:
    """One run as it stood when it was read. ``status`` is one of ``running waiting done failed cancelled parked``.

    ``result`` is the workflow's result, with its exact types where the workflow is known to this process, else as
    plain data.
    ``error`` says what ended (or parked) the run. ``deaths`` counts processes that died owning it. Times are in UTC.
    """

    id: str
    workflow: str
    version: str
    status: str
    result: Any
    error: str | None
    deaths: int
    spent: Cost
    waiting_for: str | None
    created_at: datetime
    updated_at: datetime
    steps: int
    resumed: int
    owner: str | None
    module: str
    file: str
    state: dict[str, Any] | None = None
    _wait: Callable[[], Awaitable[Any]] | None = field(default=None, repr=False, compare=False)

    async def wait(self) -> Any:
        """The run's result, once it has one. Raises what ``hf.run`` would raise."""
        assert self._wait is not None
        return await self._wait()


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run's history. ``duration`` is in seconds, ``started_at`` in UTC by the clock of the
    process that ran it.
    """

    seq: int
    kind: str
    name: str
    n: int
    key: str | None
    branch: str
    scope: str
    version: str
    status: str
    started_at: datetime
    duration: float
    attempts: int
    inputs: Any
    result: Any
    error: str | None
    delta: Any
    tokens: int | None
    usd: float | None
    epoch: int


def count(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``, ``3 processes``."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural}"


def utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def value_of(data: bytes | None, types: codec.Types, where: str) -> Any:
    """A recorded value with its types if they are known here, else as plain data."""
    if data is None:
        return None
    try:
        return codec.decode(data, types, where)
    except CodecError:
        return codec.readable(data)


def run_of(row: RunRow, spent: Spent, types: codec.Types, wait: Callable[[], Awaitable[Any]] | None) -> Run:
    where = f"run {row.id!r}"
    return Run(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        result=value_of(row.result, types, f"{where}, its result") if row.status == "done" else None,
        error=str(Failure.decode(row.error, f"{where}, its error")) if row.error and row.status in _ENDED else None,
        deaths=row.deaths,
        spent=Cost(spent.tokens, spent.usd),
        waiting_for=None,
        created_at=utc(row.created_ms),
        updated_at=utc(max(row.updated_ms, spent.last_ms)),
        steps=spent.steps,
        resumed=row.epoch - 1 if row.status != "cancelled" else max(0, row.epoch - 2),
        owner=row.owner,
        module=row.module,
        file=row.file,
        _wait=wait,
    )


def checkpoint_of(row: CheckpointRow, types: codec.Types) -> Checkpoint:
    where = f"checkpoint {row.seq}"
    failed = row.status == "failed" and row.result is not None
    return Checkpoint(
        seq=row.seq,
        kind=row.kind,
        name=row.name,
        n=row.n,
        key=row.key,
        branch=row.branch,
        scope=row.scope,
        version=row.version,
        status=row.status,
        started_at=utc(row.started_ms),
        duration=row.duration_ms / 1000,
        attempts=row.attempts,
        inputs=codec.readable(row.inputs) if row.inputs is not None else None,
        result=None if failed else value_of(row.result, types, where),
        error=str(Failure.decode(row.result or b"", where)) if failed else None,
        delta=codec.readable(row.delta) if row.delta is not None else None,
        tokens=row.tokens,
        usd=row.usd,
        epoch=row.epoch,
    )
