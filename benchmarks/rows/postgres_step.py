"""One durable step after another in one run, on PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from pathlib import Path

from measure import VALUE, WARM, Result, figure, microseconds, ratios, rounded
from server import PostgresFloor, server
from store_commit import Nobody, checkpoint, run_rows

import holdfast
from holdfast import step, workflow
from holdfast.journal import Journal
from holdfast.lease import Lease
from holdfast.store import Batch, open_store

TITLE = "One durable step with a 1 KB result, on PostgreSQL"
FLOOR = (
    "The floor is one `INSERT` of the same 1 KB through psycopg, committed. The server is on the same machine and "
    "waits for its disk. A step is one statement too, of a row of 21 columns, which locks the run's row against a "
    "takeover."
)
HELD_BY = (
    "What holds it: the last two figures take it apart. The statement costs its lock and its columns; the journal adds "
    "two wake-ups, and a step its Python, as on SQLite."
)

GROUP = 40  # of each side in turn


@step
async def fetch(i: int) -> bytes:
    return VALUE


def measure(folder: Path, quick: bool) -> Result:
    base: list[float] = []
    stored: list[float] = []
    journaled: list[float] = []
    ours: list[float] = []
    seqs = itertools.count(1)
    with server(folder) as url:
        floor = PostgresFloor(url)
        floor.warm()
        here, behind = open_store(f"{url}?schema=direct"), open_store(f"{url}?schema=journal")
        (run,) = here.commit(Batch(creates=run_rows(1))).created.values()
        (run_behind,) = behind.commit(Batch(creates=run_rows(1))).created.values()
        nobody = Nobody()
        journal = Journal(behind, "bench", Lease(), nobody.renewed, nobody.standing)

        async def direct() -> None:
            assert not here.commit(Batch(appends=[checkpoint(run.no, next(seqs))])).fenced

        async def through_journal() -> None:
            await journal.committed(checkpoint(run_behind.no, next(seqs)), asyncio.get_running_loop())

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
            async with holdfast.open(url) as hf:
                await hf.run(pipeline(5 if quick else 101), id="one")

            journal.close()

        asyncio.run(main())
        floor.close()
        here.close()
        behind.close()
    return Result(
        [
            figure("a step ÷ the floor", ratios(ours, base), target=1.75),
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
