"""What the store holds, as people and programs see it: ``Run`` and ``Checkpoint``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeAlias

from msgspec.structs import replace

from . import codec
from .blobs import Blobs, reference_in
from .doubt import open_intents
from .errors import CodecError
from .failure import Failure
from .logs import RunLog
from .news import Told
from .recall import scope_of
from .store import Checkpoint as CheckpointRow
from .store import RunRow, Spent
from .store.damage import flaw_of, flaw_of_run, legible

_ENDED = frozenset({"failed", "parked", "in_doubt"})
_LAST_MS = 250_000_000_000_000  # in the year 9892: behind it there are no dates


@dataclass(frozen=True)
class Cost:
    """Recorded costs, added up."""

    tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True)
class Run:
    """One run as it stood when it was read: ``queued running waiting done failed cancelled in_doubt`` or ``parked``.

    ``result`` is the workflow's result, with its exact types where the workflow is known to this process, else as
    plain data.
    ``waits`` is what it waits for (status "waiting"), ``waiting_for`` the same as text.
    ``error`` says what ended (or parked) the run. ``forked_from`` is the run whose history a fork begins with, and the
    last checkpoint they share. ``deaths`` counts processes that died owning it. Times are in UTC.
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
    waits: tuple[Waiting, ...]
    created_at: datetime
    updated_at: datetime
    steps: int
    resumed: int
    owner: str | None
    module: str
    file: str
    forked_from: tuple[str, int] | None = None
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

    Status "intent" is that of a step marked ``once`` that has begun: what follows it at the same place tells what came
    of it, and if nothing does, its ``seq`` is what ``hf.resolve`` takes. "not_done": it certainly has not happened.
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

    @property
    def place(self) -> str:
        """The call's place in the run, as the news of this call name it, and the ``scope`` of what it called."""
        return scope_of(self.scope, self.branch, self.name, self.key, self.n)


@dataclass(frozen=True)
class Progress:
    """What ``holdfast.progress`` told: ``done`` of ``total``. See ``Emitted`` for the other fields."""

    name: str
    place: str
    done: float
    total: float
    after: int
    attempt: int
    epoch: int
    number: int


@dataclass(frozen=True)
class Emitted:
    """What ``holdfast.emit`` sent: ``chunk``, as plain data.

    ``name`` is the step's (or the workflow's, for its own body, whose ``place`` is ""). ``place`` tells one call from
    another, and is that of the checkpoint the call will have. Another ``attempt`` of the step, or another ``epoch`` of
    the run (its owner died), tells from the beginning again. ``after`` is the ``seq`` of the last checkpoint before it.
    ``number`` counts what an epoch told: who carries on where another watcher ended knows by it what he has already.
    """

    name: str
    place: str
    chunk: Any
    after: int
    attempt: int
    epoch: int
    number: int


@dataclass(frozen=True)
class Skipped:
    """Here ``count`` pieces of progress and chunks were told that this watcher came too late for."""

    count: int
    after: int
    epoch: int


@dataclass(frozen=True)
class Waiting:
    """One thing a run waits for: a signal ``name`` (``ask`` says what people are asked), a time ("sleep") or the child
    ``name`` ("run"). Times are in UTC by the store's clock; ``until`` is None where there is no limit."""

    kind: str
    name: str
    ask: str | None
    since: datetime
    until: datetime | None
    expects: list[Any] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        if self.kind == "sleep":
            return f"sleep until {self.until:%Y-%m-%d %H:%M:%S} UTC"
        return self.name if self.kind == "signal" else f"run {self.name}"


Event: TypeAlias = Checkpoint | Progress | Emitted | Skipped
"""What ``hf.watch`` yields."""


def count(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``, ``3 processes``."""
    plural = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{plural}"


def utc(ms: int) -> datetime:
    """Raises nothing for times that were damaged."""
    return datetime.fromtimestamp(min(max(ms, 0), _LAST_MS) / 1000, UTC)


def ms_of(when: datetime) -> int:
    return round(when.timestamp() * 1000)


def value_of(data: bytes | None, types: codec.Types, where: str) -> Any:
    """A recorded value with its types if they are known here, else as plain data."""
    if data is None:
        return None
    try:
        return codec.decode(data, types, where)
    except CodecError:
        return codec.readable(data)


def run_of(row: RunRow, spent: Spent, types: codec.Types, wait: Callable[[], Awaitable[Any]] | None) -> Run:
    flaw = flaw_of_run(row)
    if flaw is not None:
        row = legible(row)
    where = f"run {row.id!r}"
    waits, _ = waits_of(row)
    is_done = row.status == "done" and flaw is None
    return Run(
        id=row.id,
        workflow=row.workflow,
        version=row.version,
        status=row.status,
        result=value_of(row.result, types, f"{where}, its result") if is_done else None,
        error=_error_of(row) if flaw is None else f"CodecError: {damage(flaw)}",
        deaths=row.deaths,
        spent=Cost(spent.tokens, spent.usd),
        waiting_for=what_is_waited_for(row.waiting, row.id) if waits else None,
        waits=waits,
        created_at=utc(row.created_ms),
        updated_at=utc(max(row.updated_ms, spent.last_ms)),
        steps=spent.steps,
        resumed=times_resumed(row),
        owner=row.owner,
        module=row.module,
        file=row.file,
        forked_from=origin_of(row),
        _wait=wait,
    )


def waits_told_in(told: bytes | None, id: str) -> tuple[Waiting, ...]:
    """What a run waits for, as its row (or its process) tells it; nothing if that cannot be read."""
    return _read_waits(told, id)[0]


def waits_of(row: RunRow) -> tuple[tuple[Waiting, ...], int]:
    """(what it waits for, how many more there are); nothing if it does not wait."""
    return _read_waits(row.waiting, row.id) if row.status == "waiting" else ((), 0)


def what_is_waited_for(told: bytes | None, id: str) -> str:
    waits, more = _read_waits(told, id)
    return ", ".join([*map(str, waits), *([f"{more:,} more"] if more else [])])


def _read_waits(told: bytes | None, id: str) -> tuple[tuple[Waiting, ...], int]:
    if told is None:
        return (), 0
    try:
        where = f"run {id!r}, what it waits for"
        held: Any = codec.decode(codec.unseal(told, where), codec.Types.none, where)
        waits = tuple(
            Waiting(
                str(each["kind"]),
                str(each["name"]),
                each["ask"],
                utc(each["since"]),
                None if each["until"] is None else utc(each["until"]),
                each["expects"],
            )
            for each in held["waits"]
        )
        return waits, held["count"] - len(waits)
    except (CodecError, TypeError, LookupError, ValueError, OverflowError):
        RunLog(id).warning("what it waits for cannot be read: %r", told[:100])
        return (), 0


_UNCLAIMED_MAX = 1000  # numbers that are kept


def encode_unclaimed(rows: list[CheckpointRow]) -> bytes:
    """What the last row of a run holds if the program came to its end without asking for these."""
    seqs = [row.seq for row in rows[:_UNCLAIMED_MAX]]
    return codec.encode({"unclaimed": seqs, "count": len(rows)}, codec.Types.none, "what was not asked for")


def named(rows: list[CheckpointRow]) -> str:
    """``2 checkpoints: 3 (fetch), 5 (parse)``; of many the first few."""
    some = ", ".join(f"{row.seq} ({row.name})" for row in rows[:3])
    return f"{count(len(rows), 'checkpoint')}: {some}{', …' if len(rows) > 3 else ''}"


def unclaimed_in(rows: list[CheckpointRow]) -> tuple[list[int], int]:
    """(the numbers of the checkpoints that a finished run did not ask for when it was resumed last, how many there
    are). No record holds them but that of the process that finished it: to ask for a checkpoint leaves no trace."""
    last = rows[-1] if rows else None
    if last is None or last.kind != "save" or last.result is None or flaw_of(last) is not None:
        return [], 0
    told: Any = codec.readable(last.result)
    try:
        return list(told["unclaimed"]), int(told["count"])
    except (TypeError, LookupError, ValueError):
        return [], 0


def origin_of(row: RunRow) -> tuple[str, int] | None:
    """(the run that this one is a fork of, the last checkpoint they share); None if it is none."""
    told: Any = codec.readable(row.origin) if row.origin is not None and flaw_of_run(row) is None else None
    return (str(told["id"]), int(told["at"])) if isinstance(told, dict) else None


def times_resumed(row: RunRow) -> int:
    """How often somebody went on with it; a cancellation moves the epoch too."""
    return max(0, row.epoch - (2 if row.status == "cancelled" else 1))


def _error_of(row: RunRow) -> str | None:
    if not row.error or row.status not in _ENDED:
        return None
    return failure_text(row.error, f"run {row.id!r}, its error")


def failure_text(data: bytes, where: str) -> str:
    """What failed, or why that cannot be read."""
    try:
        return str(Failure.decode(data, where))
    except CodecError as unreadable:
        return f"CodecError: {unreadable}"


def damage(what: str, instead: str = "start the work again") -> str:
    """What is said of rows that are not as they were written."""
    return (
        f"{what}. It was changed or damaged since it was written; it is kept as it is. Restore the store from a "
        f"backup, or {instead} under a new id."
    )


def refuse_damaged(row: RunRow) -> None:
    """Raises ``CodecError`` for a row of a run that is not as it was written, and tells operators."""
    if (flaw := flaw_of_run(row)) is not None:
        tell_damaged(legible(row).id, flaw)


def tell_damaged(id: str, flaw: str, instead: str = "start the work again") -> NoReturn:
    """Tells operators, and raises ``CodecError``."""
    RunLog(id).error("unreadable: %s", damage(flaw, instead))
    raise CodecError(f"run {id!r}: {damage(flaw, instead)}")


def checkpoint_of(row: CheckpointRow, types: codec.Types, blobs: Blobs) -> Checkpoint:
    """Blocks on the store, where its result is kept beside the row."""
    flaw = flaw_of(row)
    if flaw is not None:
        row = legible(row)
    where = f"checkpoint {row.seq}"
    intact = flaw is None
    failed = row.status == "failed" and row.result is not None
    error = None
    if not intact:
        error = f"CodecError: {flaw}; it was changed or damaged"
    elif failed:
        error = failure_text(row.result or b"", where)
    elif (named := reference_in(row.result)) is not None:
        try:
            row = replace(row, result=blobs.content(named))
        except CodecError as lost:
            row, error = replace(row, result=None), f"CodecError: {lost}"
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
        result=_result_of(row, types, where) if intact and not failed else None,
        error=error,
        delta=codec.readable(row.delta) if intact and row.delta is not None else None,
        tokens=row.tokens,
        usd=row.usd,
        epoch=row.epoch,
    )


def checkpoints_of(rows: list[CheckpointRow], blobs: Blobs) -> list[Checkpoint]:
    """A run's history. Blocks on the store. The intent of a step that has its outcome tells nothing more."""
    doubts = {row.seq for row in open_intents(rows)}
    return [checkpoint_of(row, codec.Types.none, blobs) for row in rows if row.status != "intent" or row.seq in doubts]


def _result_of(row: CheckpointRow, types: codec.Types, where: str) -> Any:
    if row.status == "intent":
        return None  # it holds what a resume needs to know
    value = value_of(row.result, types, where)
    if row.kind == "signal" and row.status == "done" and isinstance(value, dict):
        return value.get("value")  # beside it stands which signal was taken
    return value


def news_of(told: Told, epoch: int, number: int) -> Progress | Emitted:
    if isinstance(told.said, bytes):
        chunk = value_of(told.said, codec.Types.none, f"a chunk of {told.name!r}")
        return Emitted(told.name, told.place, chunk, told.after, told.attempt, epoch, number)
    done, total = told.said
    return Progress(told.name, told.place, done, total, told.after, told.attempt, epoch, number)
