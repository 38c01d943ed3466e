"""State that is big: a list that grows to 20,000 messages, one small key beside 1 and 10 MB, a session's save."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from contextlib import closing
from pathlib import Path

from measure import KB, Figure, Result, SQLiteFloor, figure, ratios, rounded

import holdfast
from holdfast import codec, step, workflow
from holdfast.state import replay

TITLE = "State: how its cost depends on its size"
FLOOR = (
    "A message is a dict of a role and 1 KB of text. What is written is the recorded changes of the state, over the "
    "encoding of the state at the end. CPU time is that of the whole process, the committer's thread among it, a step, "
    "at 1 MB; the floor is one committed `INSERT` of 1 KB by `sqlite3`. The small key is a number, set by a step "
    "beside 1 and 10 MB that nobody touches, and the same step with nothing beside it; in turns, medians of 25 steps. "
    "Reading is what a reader takes to arrive at the state from the loaded rows, over decoding the encoded state."
)
HELD_BY = (
    "What holds it: a list that a step asks for is copied and compared, which is most of the CPU time; it follows the "
    "number of containers in what is handed out."
)

GROUP = 25  # steps a run, where they are timed
AT = (1_000, 20_000)


def messages(count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": os.urandom(KB // 2).hex()} for _ in range(count)]


@step
async def append(i: int) -> None:
    holdfast.state["messages"].append({"role": "user", "content": os.urandom(KB // 2).hex()})


@step
async def count(i: int) -> None:
    holdfast.state["count"] = i


times: list[tuple[float, float]] = []  # (milliseconds, those of CPU time) a step, told by the workflow


@workflow(version="1")
async def repeated(name: str, steps: int) -> None:
    made = append if name == "append" else count
    times.clear()
    for i in range(steps):
        start, began = time.perf_counter(), time.process_time()
        await made(i)
        times.append(((time.perf_counter() - start) * 1000, (time.process_time() - began) * 1000))


def measure(folder: Path, quick: bool) -> Result:
    turns = 2 if quick else 21
    sizes = (100, 200) if quick else AT
    grown = {steps: asyncio.run(_grown(folder / f"grown-{steps}.db", steps)) for steps in sizes}
    floor, cpu, small, one, ten, bytes_a_step = asyncio.run(_in_turns(folder / "times.db", turns))
    return Result(
        [
            *(
                Figure(f"{steps:,} messages appended: bytes written ÷ the final state", written, "×", 2)
                for steps, (written, _) in grown.items()
            ),
            *(
                Figure(f"{steps:,} messages: reading the state ÷ decoding it", read, "×")
                for steps, (_, read) in grown.items()
            ),
            figure("a step that appends one to 1 MB, CPU time", cpu, "ms", 0.5),
            figure("the floor, one INSERT of 1 KB", floor, "ms"),
            figure("a small key beside 1 MB: a step ÷ beside nothing", ratios(one, small), "×", 1.3),
            figure("a small key beside 10 MB: a step ÷ beside nothing", ratios(ten, small), "×", 1.3),
            Figure("a small key beside 10 MB: bytes of its change", bytes_a_step, "bytes", KB),
            figure("a step beside nothing", small, "ms"),
        ],
        {
            "append_cpu_ms": rounded(cpu),
            "beside_nothing_ms": rounded(small),
            "beside_1_mb_ms": rounded(one),
            "beside_10_mb_ms": rounded(ten),
        },
    )


async def _grown(path: Path, steps: int) -> tuple[float, float]:
    """(bytes written over those of the final state, time to read it over the time to decode it)"""
    async with holdfast.open(path) as hf:
        await hf.run(repeated("append", steps), id="a", state={"messages": []})
        row = hf._store.get("a")
        assert row is not None
        rows = hf._store.load(row.no)
        start = time.thread_time()
        state = replay(row, rows).state
        reading = time.thread_time() - start
        encoded = codec.encode(state, codec.Types.none, "the state")
        start = time.thread_time()
        codec.decode(encoded, codec.Types.none, "the state")
        decoding = time.thread_time() - start
        return sum(len(each.delta or b"") for each in rows) / len(encoded), reading / decoding


async def _in_turns(
    path: Path, turns: int
) -> tuple[list[float], list[float], list[float], list[float], list[float], int]:
    floor_ms: list[float] = []
    rounds: dict[tuple[str, int], list[float]] = {
        ("append", 1): [],
        ("count", 0): [],
        ("count", 1): [],
        ("count", 10): [],
    }
    largest = 0
    with closing(SQLiteFloor(path.with_name("floor.db"))) as floor:
        floor.warm()
        async with holdfast.open(path) as hf:
            for turn in range(-1, turns):
                floor_ms.append(floor.median_us(GROUP) / 1000)
                for (name, megabytes), medians in rounds.items():
                    id = f"{name}-{megabytes}-{turn}"
                    await hf.run(repeated(name, GROUP), id=id, state={"messages": messages(megabytes * 1000)})
                    if turn >= 0:
                        medians.append(statistics.median(each[name == "append"] for each in times))
                    if (name, megabytes) == ("count", 10):
                        row = hf._store.get(id)
                        assert row is not None
                        largest = max(largest, *(len(each.delta or b"") for each in hf._store.load(row.no)))
    appended, small, one, ten = rounds.values()
    return floor_ms, appended, small, one, ten, largest
