"""``hf.fork``: a run that begins with the history of another one, and goes its own way from there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import codec
from .admission import refuse_id
from .errors import CodecError, HoldfastError, Mismatch, NotFound
from .logs import RunLog
from .past import BEGINS
from .records import count, damage, refuse_damaged
from .store import Checkpoint, RunRow
from .store.damage import flaw_of, legible

if TYPE_CHECKING:
    from .app import Holdfast


async def fork(home: Holdfast, id: str, at: int, new_id: str, state: Mapping[str, Any] | None) -> None:
    """``Holdfast.fork``."""
    refuse_id(new_id)
    if isinstance(at, bool) or not isinstance(at, int):
        raise TypeError(f"at= is the number of a checkpoint (0: before the first), got {at!r}")
    if state is not None and not isinstance(state, Mapping):
        raise TypeError(f"state= must be a mapping, the initial state of the fork, got {state!r}")
    home._check_open(for_more=True)
    row = await home._read(home._store.get, id)
    if row is None:
        raise NotFound(f"{home.url}: there is no run {id!r} to fork")
    refuse_damaged(row)
    if not row.workflow:
        raise HoldfastError(
            f"{id!r} is a session, which no code goes on with: give its state to a new one, hf.session(id, initial=…)."
        )
    rows = await home._read(home._store.load, row.no)
    _refuse_unfit(row, rows, at)
    new = _new_row(row, rows, at, new_id, state)
    if await home._read(home._store.fork, row.no, at, new) is None:
        raise Mismatch(f"run {new_id!r} exists already. Nothing was changed; choose another id for the fork.")
    RunLog(new_id).info("forked from %s with %s", id, count(at, "checkpoint"))


def _refuse_unfit(row: RunRow, rows: list[Checkpoint], at: int) -> None:
    """Raises ``ValueError`` if there is no such checkpoint, ``CodecError`` if one up to it is damaged or missing."""
    last = rows[-1].seq if rows else 0
    if not 0 <= at <= last:
        raise ValueError(
            f"run {row.id!r} has no checkpoint {at}: at= is from 0 (nothing is shared) to {last}, the last one. "
            f"`holdfast show {row.id}` lists them."
        )
    for number, each in zip(range(1, at + 1), rows, strict=False):
        what = f"run {row.id!r}, checkpoint {number}"
        if each.seq != number:
            raise CodecError(damage(f"{what} is missing", "fork before it"))
        if (flaw := flaw_of(each)) is not None:
            raise CodecError(damage(f"{what} ({legible(each).name}): {flaw}", "fork before it"))


def _new_row(row: RunRow, rows: list[Checkpoint], at: int, new_id: str, state: Mapping[str, Any] | None) -> RunRow:
    """The run as it is created: queued for whoever comes first, and nobody's child."""
    recorded_by, before = _code_at(row, rows, at)
    if state is not None:
        before = codec.encode(dict(state), codec.Types.none, "the initial state", root="state") if state else None
    return RunRow(
        id=new_id,
        workflow=row.workflow,
        **recorded_by,
        inputs=row.inputs,
        fingerprint=row.fingerprint,
        state=before,
        seed=row.seed,  # what uuid4() and random() gave is part of the history
        queue=row.queue,
        priority=row.priority,
        status="queued",
        epoch=0,
        wakes=row.wakes,  # a signal is numbered by its wake, and those taken in the shared rows keep their numbers
        origin=codec.encode({"id": row.id, "at": at}, codec.Types.none, "where a fork comes from"),
    )


def _code_at(row: RunRow, rows: list[Checkpoint], at: int) -> tuple[dict[str, Any], bytes | None]:
    """By which code the run was recorded at that checkpoint, and with which initial state."""
    names = ("version", "python", "module", "file", "schema_version")
    code, state = {name: getattr(row, name) for name in names}, row.state
    later = [
        codec.decode(each.result or b"", codec.Types.none, f"run {row.id!r}, checkpoint {each.seq}")
        for each in rows
        if each.kind == BEGINS and each.seq > at
    ]
    if later:
        code = {name: later[0]["from"][name] for name in names}
    for told in later:
        if "state" in told:
            return code, told["state"]
    return code, state
