"""What becomes of a batch that did not go through as a whole: settled run by run.

To settle a batch is to send it again, so what was written already does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from holdfast.errors import CodecError, StoreError
from holdfast.store.protocol import Batch, Checkpoint, Committed, Finish, Revision, RunRow
from holdfast.store.refusing import Refused


class Settled(NamedTuple):
    """What of a batch is still to be written, and the runs of which nothing may be."""

    appends: list[Checkpoint]
    revisions: list[Revision]
    finishes: list[Finish]
    fenced: set[int]


def one_epoch_each(rows: Iterable[Checkpoint | Finish]) -> bool:
    """Whether no run has rows of two epochs here, of which the fence would let some pass."""
    epochs: dict[int, int] = {}
    return all(epochs.setdefault(row.run_no, row.epoch) == row.epoch for row in rows)


def run_nos(batch: Batch) -> list[int]:
    """The runs that a batch has rows of, in the one order in which they are locked."""
    return sorted({row.run_no for row in batch.appends} | {finish.run_no for finish in batch.finishes})


def settled(batch: Batch, runs: Mapping[int, RunRow], standing: Mapping[tuple[int, int], int]) -> Settled:
    """Of each run everything the batch holds for it, or, if the fence refuses any of it, nothing.

    ``runs`` are those of ``run_nos`` as they stand, by number; ``standing`` has the checksums of the rows that stand in
    the places of the batch's, by run and seq.
    """
    left = Settled([], [], [], set())
    for run_no, part in by_run(batch).items():
        if isinstance(run_no, str):  # one that is to be created
            continue
        run = runs.get(run_no)
        fresh = _admitted(run, part.appends, part.finishes, standing)
        if run is None or fresh is None:
            left.fenced.add(run_no)
        elif run.owner is not None:
            left.appends.extend(fresh)
            left.revisions.extend(part.revisions)
            left.finishes.extend(part.finishes[:1])
    return left


def _admitted(
    run: RunRow | None, rows: list[Checkpoint], finishes: list[Finish], standing: Mapping[tuple[int, int], int]
) -> list[Checkpoint] | None:
    """The rows of one run that are not there yet, or None if the fence refuses any part of them."""
    if run is None or {row.epoch for row in rows} | {finish.epoch for finish in finishes} != {run.epoch}:
        return None
    fresh: dict[int, Checkpoint] = {}
    for row in rows:
        stands = fresh[row.seq].checksum if row.seq in fresh else standing.get((row.run_no, row.seq))
        if stands is None:
            fresh[row.seq] = row
        elif stands != row.checksum:
            return None
    if run.owner is None and (fresh or not all(_is_done(run, finish) for finish in finishes)):
        return None
    return list(fresh.values())


def _is_done(run: RunRow, finish: Finish) -> bool:
    """Whether a finish sent again is the one that stands."""
    return (run.status, run.result, run.error) == (finish.status, finish.result, finish.error)


def in_halves(batch: Batch, commit: Callable[[Batch], Committed]) -> Committed:
    """Commit a batch, and where that is refused its halves, until what is refused is a single run's."""
    try:
        return commit(batch)
    except Refused as refused:
        parts = by_run(batch)
        if len(parts) == 1:
            why = (CodecError if refused.for_good else StoreError)(str(refused))
            why.__cause__ = refused
            return Committed(refused=dict.fromkeys(parts, why))
    units, middle = list(parts.values()), len(parts) // 2
    first, second = (in_halves(_joined(half), commit) for half in (units[:middle], units[middle:]))
    return Committed(
        created=first.created | second.created,
        fenced=first.fenced | second.fenced,
        refused=first.refused | second.refused,
    )


def by_run(batch: Batch) -> dict[int | str, Batch]:
    """What a batch holds for each run: by number, or by the id of one that is to be created."""
    parts: dict[int | str, Batch] = {}
    for new in batch.creates:
        parts.setdefault(new.id, Batch()).creates.append(new)
    for row in batch.appends:
        parts.setdefault(row.run_no, Batch()).appends.append(row)
    for revision in batch.revisions:
        parts.setdefault(revision.run_no, Batch()).revisions.append(revision)
    for finish in batch.finishes:
        parts.setdefault(finish.run_no, Batch()).finishes.append(finish)
    return parts


def _joined(parts: list[Batch]) -> Batch:
    return Batch(
        creates=[row for part in parts for row in part.creates],
        appends=[row for part in parts for row in part.appends],
        revisions=[revision for part in parts for revision in part.revisions],
        finishes=[finish for part in parts for finish in part.finishes],
    )
