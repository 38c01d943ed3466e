"""The history that a fork shares with another run, for stores that speak SQL."""

from __future__ import annotations

from msgspec.structs import astuple

from holdfast.store.owners import Transaction
from holdfast.store.protocol import Checkpoint, shared

PART = 100  # rows that are held in memory at once


def copy_rows(db: Transaction, run_no: int, at: int, to_no: int) -> None:
    """Give the run ``to_no`` the checkpoints of another one up to ``at``."""
    ((last_epoch,),) = db.ask("last_epoch", {"run_no": run_no, "until": at})
    after = 0
    while found := db.ask("load_part", {"run_no": run_no, "after": after, "until": at, "limit": PART}):
        rows = [Checkpoint(*row) for row in found]
        db.bulk("copy", [astuple(shared(row, to_no, last_epoch)) for row in rows])
        after = rows[-1].seq
