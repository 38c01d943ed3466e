"""What one of several machines does that share a store: all of the work, each run of it when no other advances it.

Imported by the zygote. A machine has its own name, so that none can see whether another's process lives; its own wall
clock; and its own way to the store.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import crash_programs as programs

import holdfast
from holdfast import Fenced, Holdfast, StoreError, admission, lease, workflow
from holdfast.lease import Lease
from holdfast.store import Store, open_store
from holdfast.testing.ledger import Observed
from holdfast.worker import Queue, Worker
from holdfast.workflow import Call

from .machines import Plan

ANSWER_S = 40.0
AGAIN_S = 0.02  # after an error of the store, whose server may be down


_plan: Plan


def store_in(folder: Path) -> Store:
    """The store as this machine reaches it; whoever judges comes as the first. Processes are dealt out in turn."""
    global _plan
    _plan = Plan.read(folder)
    process = Observed.ledger.process if Observed.ledger is not None else 1
    machine = (process - 1) % len(_plan.urls)
    if not _plan.one_host:
        lease.host = lambda: f"machine-{machine}"  # type: ignore[assignment]
    set_wall_clock(_plan.ahead_s[machine])
    return open_store(_plan.urls[machine])


def set_wall_clock(ahead_s: float) -> None:
    """For all that asks Python's ``time``; the clocks that only count on are left as they are."""
    seconds, nanoseconds, read = time.time, time.time_ns, time.clock_gettime
    time.time = lambda: seconds() + ahead_s
    time.time_ns = lambda: nanoseconds() + int(ahead_s * 1e9)
    time.clock_gettime = lambda clock: read(clock) + ahead_s * (clock == time.CLOCK_REALTIME)


@workflow(version="1")
async def paced(pages: int, ms: int) -> list[str]:
    """Long enough to be taken over a few times; with long steps, a zombie's row may come before its successor's."""
    holdfast.state["fetched"] = []
    read = []
    for page in range(pages):
        both = await asyncio.gather(programs.fetch(f"{page} left", ms), programs.fetch(f"{page} right", ms + 2))
        read.append("+".join(both))
    return read


@workflow(version="1")
async def summed(n: int) -> int:
    """Nothing but steps that take no time, so that commits follow on each other."""
    total = 0
    for turn in range(n):
        total = await programs.add(total, turn)
        holdfast.state["total"] = total
    return total


WORK: dict[str, Callable[[], Call[Any]]] = {
    "branching": programs.branching,
    "nested": programs.nested,
    "appending": programs.appending,
    "threaded": programs.threaded,
    "failing over": programs.failing_over,
    "summed": lambda: summed(12),
    "paced, quick": lambda: paced(25, 8),
    "paced, slow": lambda: paced(6, 150),
}


async def work(hf: Holdfast) -> dict[str, Any]:
    """All of it, begun in an order of this machine's own; whatever is lost on the way is asked for again."""
    assert Observed.ledger is not None
    hf._lease = Lease(_plan.lease_s)
    # A run's seed tells whose it is, so that of one machine must not be that of another.
    admission.__dict__["os"] = os
    names = list(WORK)
    random.Random(Observed.ledger.process).shuffle(names)
    async with asyncio.timeout(ANSWER_S), _serving(hf) if _plan.workers else nullcontext():
        done = _left_to_workers if _plan.workers else _run
        results = await asyncio.gather(*(_until_it_is_done(done, hf, name) for name in names))
    return dict(sorted(zip(names, results, strict=True)))


async def _until_it_is_done(done: Callable[[Holdfast, str], Awaitable[Any]], hf: Holdfast, name: str) -> Any:
    while True:
        try:
            return await done(hf, name)
        except Fenced:  # another machine goes on with it
            pass
        except StoreError:  # the next attempt reads what stands
            await asyncio.sleep(AGAIN_S)


async def _run(hf: Holdfast, name: str) -> Any:
    return await hf.run(WORK[name](), id=name)


async def _left_to_workers(hf: Holdfast, name: str) -> Any:
    run = await hf.submit(WORK[name](), id=name)
    while run.status != "done":
        if run.status == "parked":  # it was in flight in one death after another, and is not to blame
            return await _run(hf, name)
        await asyncio.sleep(AGAIN_S)
        run = await hf.get(name)
    return run.result


@asynccontextmanager
async def _serving(hf: Holdfast) -> AsyncIterator[None]:
    """A worker that is begun again when it could not reach the store."""
    workers: list[Worker] = []

    async def serve() -> None:
        while True:
            workers.append(Worker(hf, [Queue("default")], concurrency=5, grace_s=5.0))
            try:
                await workers[-1].serve()
                return
            except StoreError:
                await asyncio.sleep(AGAIN_S)

    serving = asyncio.ensure_future(serve())
    yield
    workers[-1].drain()
    await serving
