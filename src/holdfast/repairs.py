"""What a run is resumed from: its rows, whether they are as they were written, and which of them a person has replaced.

A damaged step can be given an outcome, or be executed again, as long as its place can be believed: a row is written
there as for a doubt, and behind it a note (status "repair") which says that the damaged one counts no longer. It stays
in the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from . import codec
from .blobs import Blobs, reference_in
from .errors import CodecError
from .folding import live_rows
from .store import Checkpoint, Claim, RunRow, Store
from .store.damage import Damage, damage_of, flaw_of

REPAIR = "repair"


class Recorded(NamedTuple):
    """``damage`` is the first thing that is wrong with it, but for what was repaired."""

    rows: list[Checkpoint]
    claims: list[Claim]
    damage: Damage | None
    repaired: set[int]

    @property
    def usable(self) -> list[Checkpoint]:
        """The rows to go on from, if there is no damage."""
        return [row for row in self.rows if row.seq not in self.repaired] if self.repaired else self.rows


def recorded_live(store: Store, run: RunRow) -> Recorded:
    """What the same code goes on with: the rows that are live. Blocks on the store."""
    rows, is_part = live_rows(store, run.no)
    if rows is None or not is_part:
        return recorded(store, run, rows)
    claims, folded = store.claims(run.no), rows[-1].seq - len(rows)
    if repaired_in(rows) or damage_of(run, rows, claims, folded=folded) is not None:
        return recorded(store, run)  # what is damaged is told by all there is
    return Recorded(rows, claims, None, set())


def recorded(store: Store, run: RunRow, rows: list[Checkpoint] | None = None) -> Recorded:
    """``rows``: all of them, if they have been read. Blocks on the store."""
    rows = store.load(run.no) if rows is None else rows
    claims = store.claims(run.no)
    repaired = repaired_in(rows)
    damage = damage_of(run, rows, claims, repaired)
    if damage is not None and (now := store.get(run.id)) is not None and now.epoch > run.epoch:
        damage = damage_of(now, rows, store.claims(run.no), repaired)  # somebody went on with it while it was read
    return Recorded(rows, claims, damage, repaired)


def looked_into(found: Recorded, seq: int, blobs: Blobs) -> Recorded:
    """The same, with what is kept beside the row ``seq`` looked at too. Blocks on the store."""
    row = next((row for row in found.usable if row.seq == seq), None)
    named = reference_in(row.result) if row is not None and found.damage is None else None
    if row is not None and named is not None and (flaw := blobs.flaw_of(named)) is not None:
        return found._replace(damage=_damage_of_lost(row, flaw))
    return found


def _damage_of_lost(row: Checkpoint, flaw: str) -> Damage:
    return Damage(f"checkpoint {row.seq} ({row.name}): {flaw}", row.seq, row.kind == "step")


def lost(id: str, row: Checkpoint, error: CodecError) -> CodecError:
    """What is told of a row whose result, kept beside it, is lost."""
    instead = way_on(id, _damage_of_lost(row, str(error)))
    return CodecError(f"{error}. Bring it back from a backup, or {instead} under a new id.")


def repaired_in(rows: Sequence[Checkpoint]) -> set[int]:
    """The numbers of the damaged rows that count no longer."""
    notes = [row for row in rows if row.status == REPAIR and flaw_of(row) is None]
    return {seq for seq in map(_repairs, notes) if seq is not None}


def _repairs(note: Checkpoint) -> int | None:
    told: Any = codec.readable(note.result or b"")
    seq = told.get("repairs") if isinstance(told, dict) else None
    return seq if isinstance(seq, int) else None


def note_of(settled: Checkpoint, seq: int) -> Checkpoint:
    """That the row ``seq`` counts no longer, behind the one that was written at its place."""
    result = codec.encode({"repairs": seq}, codec.Types.none, "a repair")
    note = replace(settled, seq=settled.seq + 1, status=REPAIR, result=result, blobs=None, attempts=0)
    note.checksum = note.compute_checksum()
    return note


def find_damaged(rows: Iterable[Checkpoint], damage: Damage) -> Checkpoint | None:
    """The row that ``damage`` names, if another may be written in its stead."""
    return next((row for row in rows if row.seq == damage.seq), None) if damage.is_step else None


def way_on(id: str, damage: Damage) -> str:
    """What can be done about it, as the middle of a sentence."""
    if damage.is_step:
        return (
            f"say what the step returned (`holdfast resolve {id} {damage.seq} --result JSON`) or have it executed "
            f"again (`--retry`), or start the work again"
        )
    if damage.seq is not None:
        return f"fork it before that (hf.fork({id!r}, at={damage.seq - 1}, new_id=…)), or start the work again"
    return "start the work again"
