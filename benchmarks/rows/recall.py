"""What a recalled step costs, and a step of a gather: for information."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from measure import VALUE, Result, figure, rounded, until_cancelled

import holdfast
from holdfast import codec, step, workflow
from holdfast.store import open_store

TITLE = "A recalled step, and a gather"
FLOOR = (
    "A sequential workflow makes its calls and then awaits one after the other, all of them recorded; what counts is "
    "the CPU time of the loop's thread. What an await does is also timed by itself, for the same calls and rows: the "
    "inputs encoded and fingerprinted, the row's checksum computed, the value decoded. The rest, found by "
    "subtraction, is the coroutine, the look-up of the record and the delivery. In a gather of 100 steps every "
    "outcome is delivered in its turn, when the code woken by the one before has come to rest."
)
HELD_BY = "No target, so nothing is missed."

GATHERED, RECALLED = 100, 2_000


@step
async def fetch(i: int) -> bytes:
    return VALUE


taken: list[tuple[float, ...]] = []  # microseconds a call, told by the workflow


@workflow(version="1")
async def sequential() -> None:
    start = time.thread_time()
    made = [fetch(i) for i in range(RECALLED)]
    called = time.thread_time()
    for call in made:
        await call
    us = 1e6 / RECALLED
    taken.append(((called - start) * us, (time.thread_time() - called) * us))
    await until_cancelled()


@workflow(version="1")
async def gathered() -> None:
    start = time.perf_counter()
    await asyncio.gather(*(fetch(i) for i in range(GATHERED)))
    taken.append(((time.perf_counter() - start) * 1e6 / GATHERED,))
    await until_cancelled()


async def _once(hf: holdfast.Holdfast, call: holdfast.Call[None], id: str) -> tuple[float, ...]:
    """What the workflow timed; the run is unloaded behind that, so that the next time recalls."""
    before = len(taken)
    task = asyncio.ensure_future(hf.run(call, id=id))
    while len(taken) == before:
        await asyncio.sleep(0.005)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return taken[-1]


def measure(folder: Path, quick: bool) -> Result:
    path = folder / "holdfast.db"
    names = ("creation", "await", "inputs", "checksum", "decoding", "rest", "gathered", "gathered_recalled")
    rounds: dict[str, list[float]] = {name: [] for name in names}

    async def main() -> None:
        async with holdfast.open(path) as hf:
            await _once(hf, sequential(), "sequential")
            for turn in range(-1, 2 if quick else 21):
                first = await _once(hf, gathered(), f"gathered-{turn}")
                second = await _once(hf, gathered(), f"gathered-{turn}")
                creation, awaited = await _once(hf, sequential(), "sequential")
                parts = _parts_us(path)
                if turn >= 0:
                    row = (creation, awaited, *parts, awaited - sum(parts), *first, *second)
                    for name, took in zip(names, row, strict=True):
                        rounds[name].append(took)

    asyncio.run(main())
    whole = [made + awaited for made, awaited in zip(rounds["creation"], rounds["await"], strict=True)]
    return Result(
        [
            figure("a recalled sequential step", whole, "µs"),
            figure("of it, the call and its place", rounds["creation"], "µs"),
            figure("of it, inputs encoded and fingerprinted", rounds["inputs"], "µs"),
            figure("of it, the row's checksum", rounds["checksum"], "µs"),
            figure("of it, the value decoded", rounds["decoding"], "µs"),
            figure("of it, the rest: coroutine, look-up, delivery", rounds["rest"], "µs"),
            figure("a step of a gather of 100", rounds["gathered"], "µs"),
            figure("a recalled step of that gather", rounds["gathered_recalled"], "µs"),
        ],
        {"recalled_us": rounded(whole), **{f"{name}_us": rounded(times) for name, times in rounds.items()}},
    )


def _parts_us(path: Path) -> tuple[float, float, float]:
    """(inputs, checksum, decoding), microseconds a row of the sequential run."""
    store = open_store(path)
    run = store.get("sequential")
    assert run is not None
    rows = store.load(run.no)
    store.close()
    definition = fetch._definition
    inputs = [(i,) for i in range(RECALLED)]
    values = [row.result or b"" for row in rows]
    return (
        _each_us(lambda args: codec.fingerprint(definition.encode_inputs(args, {})), inputs),
        _each_us(lambda row: row.compute_checksum(), rows),
        _each_us(lambda value: codec.decode(value, definition.result_types, "the result"), values),
    )


def _each_us(work: Callable[[Any], object], given: Iterable[Any]) -> float:
    start = time.thread_time()
    for each in given:
        work(each)
    return (time.thread_time() - start) * 1e6 / RECALLED
