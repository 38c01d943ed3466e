"""What one of several machines does that share a store: all of the work, each run of it when no other advances it.

Imported by the zygote. A machine has its own name, so that none can see whether another's process lives; its own wall
clock; and its own way to the store.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import crash_programs as programs

import holdfast
from holdfast import Fenced, Holdfast, StoreError, execution, lease, workflow
from holdfast.store import Store, open_store
from holdfast.testing.ledger import Observed

from .machines import Plan

ANSWER_S = 40.0
AGAIN_S = 0.02  # after an error of the store, whose server may be down


def store_in(folder: Path) -> Store:
    """The store as this machine reaches it; whoever judges comes as the first. Processes are dealt out in turn."""
    plan = Plan.read(folder)
    process = Observed.ledger.process if Observed.ledger is not None else 1
    machine = (process - 1) % len(plan.urls)
    lease.TTL_MS = plan.lease_ms
    lease.RENEW_EVERY_S = plan.lease_ms / 3000
    if not plan.one_host:
        lease.host = lambda: f"machine-{machine}"  # type: ignore[assignment]
    set_wall_clock(plan.ahead_s[machine])
    return open_store(plan.urls[machine])


def set_wall_clock(ahead_s: float) -> None:
    """For all that asks Python's ``time``; the clocks that only count on are left as they are."""
    seconds, nanoseconds, read = time.time, time.time_ns, time.clock_gettime
    time.time = lambda: seconds() + ahead_s
    time.time_ns = lambda: nanoseconds() + int(ahead_s * 1e9)
    time.clock_gettime = lambda clock: read(clock) + ahead_s * (clock == time.CLOCK_REALTIME)


@workflow(version="1")
async def paced(pages: int) -> list[str]:
    """Long enough to be taken over a few times."""
    holdfast.state["fetched"] = []
    read = []
    for page in range(pages):
        both = await asyncio.gather(programs.fetch(f"{page} left", 8), programs.fetch(f"{page} right", 10))
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


WORK: dict[str, Callable[[Holdfast], Awaitable[Any]]] = {
    "branching": lambda hf: hf.run(programs.branching(), id="branching"),
    "nested": lambda hf: hf.run(programs.nested(), id="nested"),
    "appending": lambda hf: hf.run(programs.appending(), id="appending"),
    "threaded": lambda hf: hf.run(programs.threaded(), id="threaded"),
    "failing over": lambda hf: hf.run(programs.failing_over(), id="failing over"),
    "summed": lambda hf: hf.run(summed(12), id="summed"),
    "paced, once": lambda hf: hf.run(paced(25), id="paced, once"),
    "paced, again": lambda hf: hf.run(paced(25), id="paced, again"),
}


async def work(hf: Holdfast) -> dict[str, Any]:
    """All of it, begun in an order of this machine's own; whatever is lost on the way is asked for again."""
    assert Observed.ledger is not None
    # A run's seed tells whose it is, so that of one machine must not be that of another.
    execution.__dict__["os"] = os
    names = list(WORK)
    random.Random(Observed.ledger.process).shuffle(names)
    async with asyncio.timeout(ANSWER_S):
        results = await asyncio.gather(*(_until_it_is_done(hf, name) for name in names))
    return dict(sorted(zip(names, results, strict=True)))


async def _until_it_is_done(hf: Holdfast, name: str) -> Any:
    while True:
        try:
            return await WORK[name](hf)
        except Fenced:  # another machine goes on with it
            pass
        except StoreError:  # the next attempt reads what stands
            await asyncio.sleep(AGAIN_S)
