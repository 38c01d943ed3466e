"""What state costs: a list that grows, and a small key beside a big one."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

from measure import KB, Figure, Result, figure, ratios, rounded, settled_size

import holdfast
from holdfast import delta, step, workflow

TITLE = "State: a growing list, and a small key"
FLOOR = (
    "A message is a dict of a role and 1 KB of text. Bytes are what the steps add to the file, once its log is in it: "
    "a thousand steps that append a message each, less the same run of steps that do nothing; and steps that set a "
    "number, with a thousand messages, 1 MB, beside it in the state and without. Times are medians of 25 steps of a "
    "run, such runs in turns. The last two figures are CPU time of what a step that touches the state asks of it, by "
    "itself."
)
HELD_BY = (
    "What holds it: the bytes follow the change, the time what a step asks for. A list it asks for is copied, and "
    "compared as a whole when the step ends; the last two figures are these."
)

MESSAGES, COUNTED, GROUP = 1_000, 2_000, 25  # steps a run: of the first one, for bytes, for times


def messages(count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": os.urandom(KB // 2).hex()} for _ in range(count)]


@step
async def append(i: int) -> None:
    holdfast.state["messages"] += messages(1)


@step
async def count(i: int) -> None:
    holdfast.state["count"] = i


@step
async def plain(i: int) -> None: ...


times: list[float] = []  # milliseconds a step, told by the workflow


@workflow(version="1")
async def repeated(name: str, steps: int) -> None:
    made = {"append": append, "count": count, "plain": plain}[name]
    times.clear()
    for i in range(steps):
        start = time.perf_counter()
        await made(i)
        times.append((time.perf_counter() - start) * 1000)


def measure(folder: Path, quick: bool) -> Result:
    turns = 2 if quick else 21
    grown, without = [_bytes(folder, name, MESSAGES, 0) for name in ("append", "plain")]
    beside_big, beside_none = [_bytes(folder, "count", COUNTED, held) / COUNTED for held in (MESSAGES, 0)]
    appended, big, small = asyncio.run(_steps_ms(folder / "times.db", turns))
    copied, compared = _parts_ms(turns)
    return Result(
        [
            Figure("1,000 messages appended: bytes ÷ the payload", (grown - without) / (MESSAGES * KB), "×", 2),
            figure("a step that appends one to 1 MB", appended, "ms", 0.5),
            Figure("a small key beside 1 MB: bytes a step ÷ beside nothing", beside_big / beside_none, "×", 1.1),
            Figure("its bytes a step, the row around it included", beside_big, "bytes"),
            figure("a small key beside 1 MB: a step ÷ beside nothing", ratios(big, small), "×", 1.1),
            figure("a step beside 1 MB", big, "ms"),
            figure("a step beside nothing", small, "ms"),
            figure("of a step that appends to 1 MB, the copy of the list", copied, "ms"),
            figure("of a step that appends to 1 MB, comparing it with what it was", compared, "ms"),
        ],
        {
            "grown_bytes": {"append": grown, "plain": without},
            "small_key_bytes": {"beside 1 MB": beside_big, "beside nothing": beside_none},
            "append_ms": rounded(appended),
            "beside_1_mb_ms": rounded(big),
            "beside_nothing_ms": rounded(small),
            "copy_ms": rounded(copied),
            "compare_ms": rounded(compared),
        },
    )


def _bytes(folder: Path, name: str, steps: int, held: int) -> int:
    """What ``steps`` steps add to the file of a run whose state holds so many messages from the start."""
    path = folder / f"{name}-{held}.db"
    state = {"messages": messages(held)}

    async def run(id: str, steps: int) -> int:
        async with holdfast.open(path) as hf:
            await hf.run(repeated(name, steps), id=id, state=state)
        return settled_size(path)

    # Twice the same run, one of them without steps: the difference is the steps'.
    first = asyncio.run(run("none", 0))
    second = asyncio.run(run("none more", 0))
    return asyncio.run(run("all", steps)) - second - (second - first)


async def _steps_ms(path: Path, turns: int) -> tuple[list[float], list[float], list[float]]:
    """Medians of runs in turns: appending to 1 MB of messages, a small key beside them, the key alone."""
    rounds: tuple[list[float], list[float], list[float]] = ([], [], [])
    kinds = (("append", MESSAGES), ("count", MESSAGES), ("count", 0))
    async with holdfast.open(path) as hf:
        for turn in range(-1, turns):
            for medians, (name, held) in zip(rounds, kinds, strict=True):
                state = {"messages": messages(held)}
                await hf.run(repeated(name, GROUP), id=f"{name}-{held}-{turn}", state=state)
                if turn >= 0:
                    medians.append(statistics.median(times))
    return rounds


def _parts_ms(turns: int) -> tuple[list[float], list[float]]:
    """(copy, comparison) of 1 MB of messages to which one is added."""
    base = {"messages": messages(MESSAGES)}
    copies, comparisons = [], []
    for _ in range(turns):
        start = time.thread_time()
        new = delta.copy(base)
        copied = time.thread_time()
        new["messages"] += messages(1)
        changed = delta.diff(base, new, overlaps=False)
        comparisons.append((time.thread_time() - copied) * 1000)
        copies.append((copied - start) * 1000)
        assert changed is not None and changed["messages"][0] == "add"
    return copies, comparisons
