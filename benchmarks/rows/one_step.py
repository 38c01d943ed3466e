"""One durable step after another, in one run."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from pathlib import Path

from measure import VALUE, WARM, Floor, Result, figure, microseconds, ratios, rounded
from store_commit import Nobody, Ours, checkpoint

import holdfast
from holdfast import step, workflow
from holdfast.journal import Journal
from holdfast.lease import Lease
from holdfast.store import Batch

TITLE = "One durable step with a 1 KB result"
FLOOR = (
    "The floor is one committed `INSERT` of the same 1 KB. A step is that, and the call's place, fingerprint and "
    "preview, a row of 21 columns under a fence, and two changes of threads: the event loop does no disk I/O."
)
HELD_BY = (
    "What holds it: the last two figures take it apart. The journal adds two wake-ups to the store's own "
    "commit, of the committer and of the loop; a step adds its Python to the journal. That Python takes longer "
    "between two commits than in a tight loop; why was not isolated."
)

GROUP = 40  # of each side in turn


@step
async def fetch(i: int) -> bytes:
    return VALUE


def measure(folder: Path, quick: bool) -> Result:
    floor = Floor(folder / "floor.db")
    floor.warm()
    base: list[float] = []
    stored: list[float] = []
    journaled: list[float] = []
    ours: list[float] = []
    here, behind = Ours(folder / "store.db"), Ours(folder / "journal.db")
    nobody = Nobody()
    journal = Journal(behind.store, "bench", Lease(), nobody.renewed, nobody.standing)
    seqs = itertools.count(1)

    async def direct() -> None:
        assert not here.store.commit(Batch(appends=[checkpoint(here.nos[0], next(seqs))])).fenced

    async def through_journal() -> None:
        await journal.committed(checkpoint(behind.nos[0], next(seqs)), asyncio.get_running_loop())

    @workflow(version="1")
    async def pipeline(rounds: int) -> None:
        for i in range(WARM):
            await fetch(i)
            await direct()
            await through_journal()
        for _ in range(rounds):
            base.append(floor.median_us(GROUP))
            for times, work in ((stored, direct), (journaled, through_journal), (ours, lambda: fetch(0))):
                times.append(statistics.median([await microseconds(work) for _ in range(GROUP)]))

    async def main() -> None:
        async with holdfast.open(folder / "holdfast.db") as hf:
            await hf.run(pipeline(5 if quick else 101), id="one")

        journal.close()

    asyncio.run(main())
    floor.close()
    return Result(
        [
            figure("a step ÷ the floor", ratios(ours, base), target=1.4),
            figure("a step", ours, "µs"),
            figure("the floor", base, "µs"),
            figure("of it, the store's commit on the same thread ÷ the floor", ratios(stored, base)),
            figure("of it, the same row through the journal ÷ the floor", ratios(journaled, base)),
        ],
        {
            "step_us": rounded(ours),
            "floor_us": rounded(base),
            "store_us": rounded(stored),
            "journal_us": rounded(journaled),
        },
    )
