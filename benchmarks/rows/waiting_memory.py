"""The memory of a worker whose runs wait."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from measure import Figure, Result, figure, rounded

import holdfast
from holdfast import workflow

TITLE = "A worker whose 10,000 runs wait"
FLOOR = (
    "10,000 runs that wait for a signal are submitted to a SQLite file, and a worker in a process of its own begins "
    "them all and lets go of them. When none of them has an owner any more the memory of its process is read "
    "(`VmRSS`). The figure is that less the memory of a worker that was submitted as many, of which all but 10 had "
    "their signal already and are done: both have filled their caches. The median of the rounds. Then one of the "
    "10,000 is sent its signal, from another process, and the time until it is done is taken."
)
HELD_BY = "What holds it: nothing of a run that waits stays in the worker; the difference is what the allocator keeps."

FEW, SOME, MANY = 10, 3_000, 10_000
TIMEOUT_S = 600.0
MB = 1e6

WORKER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import holdfast
from rows.waiting_memory import asking
from holdfast.worker import Queue, Worker
def rss():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
async def main():
    async with holdfast.open(sys.argv[2]) as hf:
        worker = Worker(hf, [Queue("default")], concurrency=10, grace_s=5)
        asyncio.get_running_loop().add_reader(sys.stdin, lambda: print(rss(), len(hf._live), flush=True)
            if sys.stdin.readline().strip() == "look" else worker.drain())
        await worker.serve()
asyncio.run(main())
"""


@workflow(version="1")
async def asking(number: int) -> str:
    return await holdfast.wait_for("answer", str)


def measure(folder: Path, quick: bool) -> Result:
    many = 500 if quick else MANY
    some = many * SOME // MANY
    more, grown, woken = [], [], []
    for n in range(2 if quick else 3):
        few_mb, _ = _worker_of(folder / f"few-{n}.db", many, waiting=FEW)
        many_mb, answers = _worker_of(folder / f"many-{n}.db", many, waiting=many)
        some_mb, _ = _worker_of(folder / f"some-{n}.db", some, waiting=some)
        more.append(many_mb - few_mb)
        grown.append(many_mb - some_mb)
        woken += answers
    return Result(
        [
            figure(f"memory with {many:,} waiting runs, above that with {FEW}", more, "MB", target=1),
            figure(f"memory with {many:,} waiting runs, above that with {some:,}", grown, "MB"),
            Figure("from a signal to the end of the run, the worst", max(woken), "ms", 1000),
        ],
        {"more_mb": rounded(more), "grown_mb": rounded(grown), "woken_ms": rounded(woken)},
    )


def _worker_of(path: Path, count: int, waiting: int) -> tuple[float, list[float]]:
    """The megabytes of a worker of whose runs so many wait, and how long some of them took to answer, in ms."""
    asyncio.run(_submit(path, count, waiting))
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parents[1]), str(path)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert worker.stdin is not None and worker.stdout is not None
    try:
        answers = asyncio.run(_answered(path, waiting))
        time.sleep(1.5)  # what went on for them is let go of, too
        worker.stdin.write("look\n")
        worker.stdin.flush()
        used, live = worker.stdout.readline().split()
        assert live == "0", f"{live} runs are still in memory"
        return int(used) / MB, answers
    finally:
        worker.kill()
        worker.wait()


async def _submit(path: Path, count: int, waiting: int) -> None:
    async with holdfast.open(path) as hf:
        for start in range(0, count, 500):
            some = range(start, min(start + 500, count))
            await asyncio.gather(*(hf.submit(asking(n), id=f"r{n}") for n in some))
            await asyncio.gather(*(hf.send(f"r{n}", "answer", "yes") for n in some if n >= waiting))


async def _answered(path: Path, waiting: int) -> list[float]:
    async with holdfast.open(path) as hf:
        until = time.monotonic() + TIMEOUT_S
        store = hf._store
        while True:
            ahead = [store.runs(status=each, workflow=None, limit=1, after=None) for each in ("queued", "running")]
            rows = store.runs(status="waiting", workflow=None, limit=waiting, after=None)
            if not any(ahead) and len(rows) == waiting and all(row.owner is None for row in rows):
                break
            assert time.monotonic() < until, "the runs do not come to wait"
            await asyncio.sleep(0.2)
        took = []
        for n in range(min(5, waiting)):
            began = time.monotonic()
            await hf.send(f"r{n}", "answer", "yes")
            while (await hf.get(f"r{n}")).status != "done":
                assert time.monotonic() < until
                await asyncio.sleep(0.002)
            took.append((time.monotonic() - began) * 1000)
        return took
