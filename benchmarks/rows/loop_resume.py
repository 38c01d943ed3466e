"""Resuming a loop after a million turns."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import apsw
from measure import Figure, Result, figure, rounded, until_cancelled
from msgspec.structs import asdict, replace

import holdfast
from holdfast import step, workflow
from holdfast.folding import told_by
from holdfast.store import Checkpoint, open_store

TITLE = "Resuming a loop"
FLOOR = (
    "From `hf.run` on a store not opened before to the first line of the first step that is not recorded, in a loop "
    "that counts in the state. A few turns are executed; then the rows of the others are put before them, and the last "
    "one says how many there were. There is no floor: the same is read however many turns there were, and "
    "it is counted."
)
HELD_BY = "What holds it: opening the store, and claiming the run."

TURNS = 1_000_000
FEW = 10

reached: Any = None
finished = 0


@step
async def count(turn: int) -> int:
    if turn == finished:
        reached()
        await until_cancelled()
    holdfast.state["count"] = holdfast.state.get("count", 0) + 1
    return turn


@workflow(version="1")
async def counting() -> None:
    async for turn in holdfast.each(range(TURNS + 1)):
        await count(turn)


def measure(folder: Path, quick: bool) -> Result:
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for turns in (FEW, 20_000 if quick else TURNS):
        path = folder / f"{turns}.db"
        asyncio.run(_reach_live(path, FEW))
        if turns > FEW:
            _put_before(path, turns)
        took = [asyncio.run(_reach_live(path, turns)) for _ in range(2 if quick else 15)]
        target_ms, rows_max = (50.0, 50.0) if turns > FEW else (None, None)
        figures += [
            figure(f"{turns:,} turns: to the first live step", [ms for ms, _ in took], "ms", target_ms),
            figure(f"{turns:,} turns: checkpoints read", [float(read) for _, read in took], "", rows_max),
        ]
        raw |= {f"{turns}_ms": rounded([ms for ms, _ in took])}
    return Result(figures, raw)


async def _reach_live(path: Path, turns: int) -> tuple[float, int]:
    """(milliseconds to the first live step, how many checkpoints were read); the run stays as it was."""
    global reached, finished
    finished, read = turns, 0
    at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    reached = lambda: at.set_result(time.perf_counter())  # noqa: E731
    async with holdfast.open(path) as hf:
        load = hf._store.load

        def counted(run_no: int, **which: Any) -> list[Checkpoint]:
            nonlocal read
            rows = load(run_no, **which)
            read += len(rows)
            return rows

        hf._store.load = counted  # type: ignore[method-assign]
        start = time.perf_counter()
        task = asyncio.ensure_future(hf.run(counting(), id="loop"))
        await asyncio.wait({task, at}, return_when=asyncio.FIRST_COMPLETED)
        took = (at.result() - start) * 1000
        task.cancel()
        await asyncio.wait({task})
    return took, read


def _put_before(path: Path, turns: int) -> None:
    """The rows that so many turns leave: those of the first few are there, and the last one is made of theirs."""
    store = open_store(path)
    run = store.get("loop")
    assert run is not None
    rows = store.load(run.no)
    store.close()
    last = replace(rows[-1], seq=2 * turns, n=turns - 1, delta=None)
    told = told_by(last)
    told.turns, told.state, told.live = turns, {"count": ["set", [], turns]}, []
    last.result = told.encode()
    last.checksum = last.compute_checksum()
    fields = ", ".join(asdict(last))
    others = fields.replace("seq", "number", 1).replace("scope", "'each#0: turn#' || number / 2", 1)
    with apsw.Connection(str(path)) as db:
        db.execute(
            f"WITH RECURSIVE numbers (number) AS (SELECT {len(rows) + 1} UNION ALL SELECT number + 1 FROM numbers "
            f"WHERE number < {2 * turns - 1}) INSERT INTO checkpoint ({fields}) SELECT {others} FROM numbers "
            f"JOIN checkpoint ON run_no = {run.no} AND seq = {rows[-2].seq}"
        )
        held = asdict(last)
        db.execute(f"INSERT INTO checkpoint ({fields}) VALUES ({', '.join('?' * len(held))})", list(held.values()))
