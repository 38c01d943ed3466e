"""Resuming a run with many finished steps."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from measure import VALUE, Figure, Result, figure, ratios, rounded, until_cancelled

import holdfast
from holdfast import codec, step, workflow

TITLE = "Resuming a run"
FLOOR = (
    "From `hf.run` on a store not opened before to the first line of the first step that is not recorded: open, "
    "claim, load, and answer every call from the record. The floor opens the same file with `sqlite3` and reads the "
    "keys of the same rows, and nothing else. How many values were decoded before the first of them was recalled is "
    "counted."
)
HELD_BY = (
    "What holds it: reading the rows is the smaller part. Each recalled step is a call of Python like any "
    "other, with its inputs encoded and fingerprinted, and its row's checksum computed."
)

KEYS = (
    "SELECT seq, scope, branch, name, key, n, version, status, fingerprint "
    "FROM checkpoint WHERE run_no = 1 ORDER BY seq"
)

reached: Any = None  # told when the first live step began
decoded_first = 0


@step
async def fetch(i: int) -> bytes:
    return VALUE


@step
async def live() -> None:
    reached()
    await until_cancelled()


@workflow(version="1")
async def pipeline(steps: int) -> None:
    for i in range(steps):
        await fetch(i)
    await live()


def measure(folder: Path, quick: bool) -> Result:
    figures: list[Figure] = []
    raw: dict[str, Any] = {}
    for steps, target_ms, target_ratio in ((1_000, None, 3.0), (10_000, 100.0, None)):
        path = folder / f"{steps}.db"
        asyncio.run(_reach_live(path, steps))
        base, ours = [], []
        for _ in range(2 if quick else 15):
            base.append(_read_keys_ms(path, steps))
            ours.append(asyncio.run(_reach_live(path, steps)))
        figures += [
            figure(f"{steps:,} steps: to the first live step", ours, "ms", target_ms),
            figure(f"{steps:,} steps ÷ reading the keys", ratios(ours, base), target=target_ratio),
        ]
        raw |= {f"{steps}_resume_ms": rounded(ours), f"{steps}_keys_ms": rounded(base)}
    early = asyncio.run(_decoded_before_asked(path, steps))
    figures.append(Figure("values decoded before the first recall", early, "", 0))
    return Result(figures, raw)


async def _reach_live(path: Path, steps: int) -> float:
    """Milliseconds from ``hf.run`` to the first live step, whose run is then unloaded and stays as it was."""
    global reached
    at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    reached = lambda: at.set_result(time.perf_counter())  # noqa: E731
    async with holdfast.open(path) as hf:
        start = time.perf_counter()
        task = asyncio.ensure_future(hf.run(pipeline(steps), id="long"))
        await asyncio.wait({task, at}, return_when=asyncio.FIRST_COMPLETED)
        took = (at.result() - start) * 1000
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
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


def _read_keys_ms(path: Path, steps: int) -> float:
    start = time.perf_counter()
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(KEYS).fetchall()
        took = (time.perf_counter() - start) * 1000
    assert len(rows) == steps
    return took
