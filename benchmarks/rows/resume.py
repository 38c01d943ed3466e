"""Resuming a run with many finished steps."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from measure import VALUE, Figure, Result, figure, ratios, rounded, until_cancelled
from msgspec.structs import replace

import holdfast
from holdfast import codec, step, workflow
from holdfast.store import Batch, open_store

TITLE = "Resuming a run"
FLOOR = (
    "From `hf.run` on a store not opened before to the first line of the first step that is not recorded: open, "
    "claim, load, and answer every call from the record. The floor opens the same file with `sqlite3` and reads the "
    "keys of the same rows, and nothing else. The first step is executed; the rows of the others, which differ from "
    "its row by their number and inputs alone, are appended to it. A step executed where it should be recalled fails "
    "the measurement, and how many values were decoded before the first of them was recalled is counted."
)
HELD_BY = (
    "What holds it: the second figure of each case is the part of the store, which loads the rows whole, in a thread; "
    "what is left is the Python of the recalled calls, which the row *A recalled step* takes apart."
)

KEYS = (
    "SELECT seq, scope, branch, name, key, n, version, status, fingerprint "
    "FROM checkpoint WHERE run_no = 1 ORDER BY seq"
)

PARTS = ("resume", "load", "keys")

reached: Any = None  # told when the first live step began
recorded = 0  # how many steps the workflow makes before that
executed = 0


@step
async def fetch(i: int) -> bytes:
    global executed
    executed += 1
    return VALUE


@step
async def live() -> None:
    reached()
    await until_cancelled()


@workflow(version="1")
async def pipeline() -> None:
    for i in range(recorded):
        await fetch(i)
    await live()


def measure(folder: Path, quick: bool) -> Result:
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for steps, target_ms, rounds in ((1_000, None, 15), (10_000, 100.0, 15), (100_000, 800.0, 5)):
        path = folder / f"{steps}.db"
        asyncio.run(_reach_live(path, 1, then=lambda path=path, steps=steps: _extend(path, steps)))
        base, loading, ours = [], [], []
        for _ in range(2 if quick else rounds):
            base.append(_read_keys_ms(path, steps))
            loading.append(_load_ms(path, steps))
            ours.append(asyncio.run(_reach_live(path, steps)))
        figures += [
            figure(f"{steps:,} steps: to the first live step", ours, "ms", target_ms),
            figure(f"{steps:,} steps: the store's part, opening and loading, by itself", loading, "ms"),
            figure(f"{steps:,} steps ÷ reading the keys", ratios(ours, base), target=3.0),
        ]
        raw |= {f"{steps}_{what}_ms": rounded(ms) for what, ms in zip(PARTS, (ours, loading, base), strict=True)}
    early = asyncio.run(_decoded_before_asked(folder / "1000.db", 1_000))
    figures.append(Figure("values decoded before the first recall", early, "", 0))
    return Result(figures, raw)


def _extend(path: Path, steps: int) -> None:
    """Give the live run, whose first step is recorded, the rows of all the others, as their steps would have."""
    store, definition = open_store(path), fetch._definition
    run = store.get("long")
    assert run is not None
    (first,) = store.load(run.no)
    for start in range(1, steps, 1_000):
        rows = []
        for n in range(start, min(start + 1_000, steps)):
            inputs = definition.encode_inputs((n,), {})
            row = replace(first, seq=n + 1, n=n, inputs=inputs, fingerprint=codec.fingerprint(inputs))
            row.checksum = row.compute_checksum()
            rows.append(row)
        assert not store.commit(Batch(appends=rows)).fenced
    store.close()


async def _reach_live(path: Path, steps: int, then: Callable[[], object] = bool) -> float:
    """Milliseconds from ``hf.run`` to the first live step, whose run is then unloaded and stays as it was."""
    global reached, recorded, executed
    recorded, executed = steps, 0
    at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    reached = lambda: at.set_result(time.perf_counter())  # noqa: E731
    async with holdfast.open(path) as hf:
        start = time.perf_counter()
        task = asyncio.ensure_future(hf.run(pipeline(), id="long"))
        await asyncio.wait({task, at}, return_when=asyncio.FIRST_COMPLETED)
        took = (at.result() - start) * 1000
        then()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert executed == (0 if then is bool else 1), f"{executed} steps were executed, not recalled"
    return took


async def _decoded_before_asked(path: Path, steps: int) -> int:
    """How many recorded results had been decoded when the first one was asked for."""
    counted: list[int] = []
    original, find = codec.decode, holdfast.run.Records.find
    results = 0

    def decode(data: bytes, types: codec.Types, where: str, root: str = "result") -> Any:
        nonlocal results
        results += len(data) > len(VALUE)
        return original(data, types, where, root)

    def first_find(*args: Any) -> Any:
        counted.append(results)
        return find(*args)

    codec.decode, holdfast.run.Records.find = decode, first_find  # type: ignore[assignment]
    try:
        await _reach_live(path, steps)
    finally:
        codec.decode, holdfast.run.Records.find = original, find  # type: ignore[method-assign]
    assert results == steps, f"{results} values decoded, {steps} recalled"
    return counted[0]


def _load_ms(path: Path, steps: int) -> float:
    start = time.perf_counter()
    store = open_store(path)
    rows = store.load(1)
    took = (time.perf_counter() - start) * 1000
    store.close()
    assert len(rows) == steps
    return took


def _read_keys_ms(path: Path, steps: int) -> float:
    start = time.perf_counter()
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(KEYS).fetchall()
        took = (time.perf_counter() - start) * 1000
    assert len(rows) == steps
    return took
