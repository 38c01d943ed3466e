"""What is wrong with rows that were read: whether each is as it was written, and whether they fit together.

Disks and people change bytes. A row that was changed is never acted on, and never taken for another run's or another
step's; it is named by what it still says of itself. What no checksum covers, because SQL changes it in place, is held
to what it can be (docs/design/trust.md says which columns that leaves).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args

import msgspec
from msgspec.structs import replace

from holdfast.store.protocol import NEVER_MS, Checkpoint, Claim, RunRow, Signal, as_text, end_checksum

STATUSES = frozenset({"queued", "running", "waiting", "done", "failed", "cancelled", "in_doubt", "parked"})
_SET_IN_PLACE = frozenset({"running", "waiting", "cancelled"})  # by who claims, waits or cancels, whatever ended before
_TIME_MAX_MS = 2**47  # the year 6429
_COUNT_MAX = 2**53
_FOUND = STATUSES | {"", "died", "lapsed"}
_CHANGED = "the row's checksum does not match its content"

Row = TypeVar("Row", RunRow, Checkpoint, Claim, Signal)


def flaw_of_run(row: RunRow) -> str | None:
    """What is wrong with the row of a run, None if nothing is."""
    if (strange := _strange_field(row)) is not None:
        return strange
    if row.checksum != row.compute_checksum():
        return "the checksum of the run's row does not match its content"
    if row.status not in STATUSES:
        return f"its status {row.status!r} is none there is"
    ended_as = STATUSES if row.status in _SET_IN_PLACE else {row.status}
    if not any(row.end_checksum == end_checksum(status, row.result, row.error) for status in ended_as):
        return "the checksum of the run's row does not match how it ended"
    times = (row.lease_until_ms, row.heard_ms, row.created_ms, row.updated_ms, row.due_ms)
    if not all(0 <= each < _TIME_MAX_MS or each == row.due_ms == NEVER_MS for each in times):
        return "the run's row has times that no clock shows"
    if not (0 <= row.deaths <= row.epoch < _COUNT_MAX and 0 <= row.wakes < _COUNT_MAX):
        return f"the run's row counts what cannot be: deaths {row.deaths}, epoch {row.epoch}, wakes {row.wakes}"
    return None


class Damage(NamedTuple):
    """``seq`` is that of the first checkpoint that is damaged or missing, None where it is none of them. ``is_step``:
    a step whose place can be believed, so that another row can be written there in its stead."""

    what: str
    seq: int | None = None
    is_step: bool = False


def flaw_of(row: Checkpoint) -> str | None:
    """What is wrong with a checkpoint taken by itself, None if nothing is."""
    try:
        return None if row.checksum == row.compute_checksum() else _CHANGED
    except (UnicodeEncodeError, OverflowError, TypeError):
        return _CHANGED


def damage_of(
    run: RunRow, rows: Sequence[Checkpoint], claims: Sequence[Claim], repaired: Collection[int] = (), *, folded: int = 0
) -> Damage | None:
    """The first thing that is wrong with what a run is to be resumed from, None if nothing is. ``repaired``: the rows
    that count no longer; ``folded``: so many were not read, since others stand for them."""
    for row in rows:
        if row.seq not in repaired and (flaw := flaw_of(row)) is not None:
            return Damage(f"{_named(row)}: {flaw}", row.seq, row.kind == "step" and _is_placed(row))
    if gone := rows[-1].seq - len(rows) - folded if rows else 0:
        first = next(seq for seq, row in enumerate(rows, 1) if row.seq != seq)
        return Damage(f"{gone} checkpoint{'' if gone == 1 else 's'} missing among those recorded", first)
    rows = [row for row in rows if row.seq not in repaired]
    before = rows[0].epoch if rows else 0  # what a fork shares with another run counts down from 0
    for row in rows:
        if not before <= row.epoch <= run.epoch:
            what = f"{_named(row)}: written under epoch {row.epoch}, after one of {before}; the run is at {run.epoch}"
            return Damage(what, row.seq)
        before = row.epoch
    return _damage_of_claims(run, [claim for claim in claims if claim.epoch <= run.epoch])


def flaw_of_signal(signal: Signal) -> str | None:
    try:
        return None if signal.checksum == signal.compute_checksum() else _CHANGED
    except (UnicodeEncodeError, OverflowError, TypeError):
        return _CHANGED


def _damage_of_claims(run: RunRow, claims: Sequence[Claim]) -> Damage | None:
    """There is a claim for each epoch, and they tell what the run's row must say."""
    if not all(_strange_field(claim) is None and claim.found in _FOUND for claim in claims):
        return Damage("one of its claims is not as it was written")
    epochs = sorted(claim.epoch for claim in claims)
    until = run.epoch - (run.status == "cancelled" and run.epoch not in epochs)
    if until and (len(epochs), epochs[:1], epochs[-1:]) != (until, [1], [until]):  # there are no two of one epoch
        return Damage(f"it stands at epoch {run.epoch}, and was claimed under {', '.join(map(str, epochs)) or 'none'}")
    if run.deaths != sum(claim.found in ("died", "lapsed") for claim in claims):
        return Damage(f"it counts {run.deaths} deaths, and its claims tell of another number")
    first = min(claims, key=lambda claim: claim.epoch, default=None)
    if first is not None and run.created_ms != (first.claimed_ms if first.found == "" else first.seen_ms):
        return Damage("its row and its first claim tell of two times when it was created")
    return None


def _named(row: Checkpoint) -> str:
    name = legible(row).name
    return f"checkpoint {row.seq} ({name})" if name else f"checkpoint {row.seq}"


def _is_placed(row: Checkpoint) -> bool:
    try:
        return row.compute_checksum() >> 32 == row.checksum >> 32
    except (UnicodeEncodeError, OverflowError, TypeError):
        return False


# -- what damaged rows still say ---------------------------------------------------------------------------


def legible(row: Row) -> Row:
    """The row, with fields that are not of their type, and numbers that are none, made such that it can be shown."""
    neat = {name: _neat(getattr(row, name), name, kinds) for name, kinds in _kinds(type(row)).items()}
    return replace(row, **neat)


def _neat(held: Any, name: str, kinds: tuple[type, ...]) -> Any:
    kind = kinds[0]
    if held is None:
        return None if NoneType in kinds else kind()
    if kind is str:
        return as_text(held if isinstance(held, str) else repr(held)[:80])
    if kind is bytes:
        return held if isinstance(held, bytes) else str(held).encode("utf-8", "backslashreplace")
    if not isinstance(held, (int, float)) or not math.isfinite(held):
        return kind()
    is_time = name.endswith("_ms") and held != NEVER_MS
    return kind(held) if 0 <= held < _TIME_MAX_MS or not is_time else kind()


def _strange_field(row: RunRow | Claim) -> str | None:
    """A field of another type than it was written with: SQLite keeps the type beside each value."""
    for name, kinds in _kinds(type(row)).items():
        if not isinstance(getattr(row, name), kinds):
            return f"the run's row has {name} of another type than was written"
    return None


@cache
def _kinds(cls: type[msgspec.Struct]) -> dict[str, tuple[type, ...]]:
    return {field.name: get_args(field.type) or (field.type,) for field in msgspec.structs.fields(cls)}
