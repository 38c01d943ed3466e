"""One durable step after another, in one run."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from measure import VALUE, WARM, Floor, Result, SQLiteFloor, figure, microseconds, ratios, rounded
from store_commit import Nobody, checkpoint, run_rows

import holdfast
from holdfast import step, workflow
from holdfast.journal import Journal
from holdfast.lease import Lease
from holdfast.store import Batch, Store, open_store

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
Work = Callable[[], Awaitable[Any]]


@step
async def fetch(i: int) -> bytes:
    return VALUE


def measure(folder: Path, quick: bool) -> Result:
    return measured(SQLiteFloor(folder / "floor.db"), lambda name: str(folder / f"{name}.db"), quick, target=1.4)


def measured(
    floor: Floor,
    url_of: Callable[[str], str],
    quick: bool,
    *,
    target: float,
    beside: Mapping[str, tuple[str, Work]] | None = None,
) -> Result:
    """A step, its parts, and what is ``beside`` them (by the name of its rounds: what its figure says, and the work),
    in turns with the floor; ``url_of`` gives the URL of a store of that name."""
    direct, behind = open_store(url_of("direct")), open_store(url_of("journal"))
    no, no_behind = _run_in(direct), _run_in(behind)
    nobody = Nobody()
    journal = Journal(behind, "bench", Lease(), nobody.renewed, nobody.standing)
    seqs = itertools.count(1)

    async def commit() -> None:
        assert not direct.commit(Batch(appends=[checkpoint(no, next(seqs))])).fenced

    async def through_journal() -> None:
        await journal.committed(checkpoint(no_behind, next(seqs)), asyncio.get_running_loop())

    parts: dict[str, tuple[str, Work]] = {
        "store_us": ("the store's commit on the same thread", commit),
        "journal_us": ("the same row through the journal", through_journal),
        **(beside or {}),
    }
    works: dict[str, Work] = {"step_us": lambda: fetch(0), **{name: work for name, (_, work) in parts.items()}}
    rounds: dict[str, list[float]] = {name: [] for name in ("step_us", "floor_us", *parts)}

    @workflow(version="1")
    async def pipeline(count: int) -> None:
        floor.warm()
        for _ in range(WARM):
            for work in works.values():
                await work()
        for _ in range(count):
            rounds["floor_us"].append(floor.median_us(GROUP))
            for name, work in works.items():
                rounds[name].append(statistics.median([await microseconds(work) for _ in range(GROUP)]))

    async def main() -> None:
        async with holdfast.open(url_of("holdfast")) as hf:
            await hf.run(pipeline(5 if quick else 101), id="one")

    asyncio.run(main())
    journal.close()
    for each in (floor, direct, behind):
        each.close()
    step_us, floor_us = rounds["step_us"], rounds["floor_us"]
    return Result(
        [
            figure("a step ÷ the floor", ratios(step_us, floor_us), target=target),
            figure("a step", step_us, "µs"),
            figure("the floor", floor_us, "µs"),
            *(
                figure(f"of it, {what} ÷ the floor", ratios(rounds[name], floor_us))
                for name, (what, _) in parts.items()
            ),
        ],
        {name: rounded(times) for name, times in rounds.items()},
    )


def _run_in(store: Store) -> int:
    (run,) = store.commit(Batch(creates=run_rows(1))).created.values()
    return run.no
