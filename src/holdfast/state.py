"""What rows say of the durable mapping of a run, and how a reader arrives at it.

A step's changes are recorded in its row and applied all at once when its outcome is delivered, live and on recall by
the same code. The workflow's own changes between steps are made again by its code; rows carry them (as a chunk, tagged
with the seq they came after) for readers only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from . import codec, delta
from .errors import CodecError, StateConflict
from .past import present
from .store import Checkpoint, RunRow
from .weights import Weights


class Change(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What a row says of state: the step's own change, and the body's changes made after ``after`` was delivered.

    ``full``: after these, by key, whole values in place of all changes before, each behind its digest.
    ``kept``: the row of an earlier attempt that its outcome, this change among it, was taken from; 0 if none."""

    step: dict[str, Any] | None = None
    body: dict[str, Any] | None = None
    full: dict[str, list[Any]] | None = None
    after: int = 0
    kept: int = 0


def encode_change(change: Change, where: str) -> bytes | None:
    if not (change.step or change.body or change.full or change.kept):
        return None
    plain = {name: value for name, value in msgspec.structs.asdict(change).items() if value}
    try:
        return codec.encode(plain, codec.Types.none, where, root="state")
    except CodecError:
        for ops in (change.step or {}, change.body or {}):
            for path, value in delta.inserted(ops, "state"):
                codec.encode(value, codec.Types.none, where, root=path)
        raise


def initial_state(row: RunRow) -> dict[str, Any]:
    """What the state was when the run was created. Raises ``CodecError``."""
    where = f"the initial state of {row.id!r}"
    held = codec.decode(row.state, codec.Types.none, where, root="state") if row.state else {}
    if type(held) is not dict:
        raise CodecError(f"{where} is no dict. The bytes are kept as they are.", path="state")
    return held


def decode_change(row: Checkpoint) -> Change:
    if row.delta is None:
        return Change()
    where = f"the state change of checkpoint {row.seq}"
    try:
        change = msgspec.convert(codec.decode(row.delta, codec.Types.none, where, root="state"), Change)
    except msgspec.ValidationError as error:
        raise CodecError(f"{where} cannot be read: {error}. It is kept as it is.", path="state") from None
    for ops in (change.step or {}, change.body or {}):
        delta.refuse_malformed(ops, where)
    for key, value in (change.full or {}).items():
        if len(value) != 2 or type(value[0]) is not bytes:
            raise CodecError(f"{where} cannot be read: the value of {key} is not whole.", path=key)
    return change


class Reading(NamedTuple):
    """The state as a reader arrives at it, and how much was written of each key since it was last written whole."""

    state: dict[str, Any]
    weights: Weights


def replay(row: RunRow, rows: Iterable[Checkpoint]) -> Reading:
    """The state of a run after its checkpoints ``rows``. What earlier attempts of the run made of the state is no part
    of it. Raises ``CodecError``, naming run, key and seq, if a value is not what it was when it was written."""
    steps: list[tuple[int, int, int, Change]] = []
    for each in present(list(rows)):
        if each.delta is None or each.scope:
            continue
        change = decode_change(each)
        if change.step:
            steps.append((each.seq, 0, each.seq, change))
        if change.body or change.full:
            steps.append((change.after, 1, each.seq, change))
    state, weights = initial_state(row), Weights()
    for _, is_body, seq, change in sorted(steps, key=lambda event: event[:3]):
        ops = (change.body if is_body else change.step) or {}
        try:
            delta.apply(state, ops, check=not is_body)
            weights.add(ops)
        except StateConflict as misfit:
            if is_body:
                raise CodecError(f"run {row.id!r}, checkpoint {seq} does not fit what is before it: {misfit}") from None
        for key, (told, value) in (change.full or {}).items() if is_body else ():
            if delta.digest(value, key) != told:
                raise CodecError(
                    f"run {row.id!r}, checkpoint {seq}: the value of {key!r} in the state is not the one whose digest "
                    "was recorded with it. It is kept as it is.",
                    path=key,
                )
            state[key] = value
        if is_body:
            weights.forget(change.full)
    return Reading(state, weights)
