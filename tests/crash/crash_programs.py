"""The programs that the crash sweep is told, and that real processes run. Imported by each of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import holdfast
from holdfast import Holdfast, StepFailed, step, workflow
from holdfast.store import Store, open_store

SERVER = "HOLDFAST_TEST_POSTGRES_URL"


@step
async def add(a: int, b: int) -> int:
    return a + b


@step(attempts=3, backoff=0.001)
async def third_time(at: list[int]) -> str:
    tries.append(1)
    if len(tries) % 3:
        raise OSError("not yet")
    return f"done {at}"


tries: list[int] = []


@workflow(version="1")
async def sequential(n: int) -> list[Any]:
    out: list[Any] = [str(holdfast.uuid4()), holdfast.random()]
    total = 0
    for turn in range(n):
        total = await add(total, turn)
        holdfast.state["total"] = total
        holdfast.state.setdefault("log", []).append(total)
        out.append(total)
    out.append(await third_time([total]))
    return [*out, dict(holdfast.state)]


# -- branches ------------------------------------------------------------------------------------------------


@step
async def fetch(page: str, ms: int) -> str:
    await asyncio.sleep(ms / 1000)
    holdfast.state.setdefault("fetched", []).append(page)
    return page.upper()


@step
async def join(parts: list[str]) -> str:
    return "+".join(parts)


async def chapter(name: str, ms: int) -> str:
    first = await fetch(f"{name}1", ms)
    both = await asyncio.gather(fetch(f"{name}2", 3 - ms % 3), fetch(f"{name}3", ms))
    return await join([first, *both])


@workflow(version="1")
async def branching() -> dict[str, Any]:
    """Nested coroutines in a gather, whose steps end in an order of their own."""
    holdfast.state["fetched"] = []
    chapters = await asyncio.gather(chapter("a", 4), chapter("b", 1), chapter("c", 2))
    return {"chapters": chapters, "fetched": sorted(holdfast.state["fetched"])}


# -- steps in steps ------------------------------------------------------------------------------------------


@step
async def section(name: str) -> int:
    holdfast.state.setdefault("sections", []).append(name)
    words = [await count(f"{name} one"), await count(f"{name} one two")]
    words += await asyncio.gather(count(name), count(name + " x y"))
    return sum(words)


@step
async def count(text: str) -> int:
    holdfast.state[text] = len(text)
    return len(text.split())


@workflow(version="1")
async def appendix(name: str) -> int:
    return await section(name) + await count(name)


@workflow(version="1")
async def nested() -> list[Any]:
    """A step that calls steps, and a workflow inside a workflow."""
    first = await section("intro")
    second = await appendix("tables")
    return [first, second, await section("end"), list(holdfast.state["sections"])]


@workflow(version="1")
async def appending() -> list[int]:
    """State only: the body and overlapping steps append to one list."""
    holdfast.state["seen"] = [0]

    async def both(start: int) -> None:
        await note(start)
        await note(start + 1)

    await asyncio.gather(both(10), both(20))
    holdfast.state["seen"].append(99)
    await note(30)
    return sorted(holdfast.state["seen"])


@step
async def note(number: int) -> None:
    await asyncio.sleep(0.001)
    holdfast.state["seen"].append(number)


# -- plain def -----------------------------------------------------------------------------------------------


@step
def scale(value: int, by: int) -> int:
    holdfast.state[f"{value} by {by}"] = value * by
    return value * by


@workflow(version="1")
async def threaded() -> list[int]:
    one = await asyncio.to_thread(scale, 3, 2)
    two = await asyncio.gather(asyncio.to_thread(scale, one, 5), asyncio.to_thread(scale, one, 7), add(one, 1))
    return [one, *two, len(holdfast.state)]


@workflow(version="1")
def plain(name: str) -> str:
    values = [scale(n, 10) for n in range(4)]
    holdfast.state["values"] = values
    return f"{name}: {sum(values) + scale(1, 1)}"


# -- failures ------------------------------------------------------------------------------------------------


@step
async def refuse(what: str) -> str:
    raise ValueError(f"no {what}")


@workflow(version="1")
async def failing_over() -> list[str]:
    """Goes on past failures, which are history: they are recalled, not tried anew."""
    seen = []
    for what in ("tea", "milk"):
        try:
            await refuse(what)
        except StepFailed as failed:
            seen.append(f"{failed.error_type} {failed.message}")
        seen.append(await join([what]))
    return seen


@workflow(version="1")
async def failing() -> str:
    await add(1, 2)
    await join(["a"])
    return await refuse("more")


@workflow(version="1")
async def cancelling() -> list[Any]:
    """Its own code cancels a step: that is recorded as cancelled and stays so."""
    slow = asyncio.create_task(fetch("slow", 60_000))
    first = await fetch("quick", 1)
    slow.cancel()
    try:
        await slow
        ended = "never"
    except asyncio.CancelledError:
        ended = "cancelled"
    return [first, ended, await add(1, 1)]


# -- without a workflow --------------------------------------------------------------------------------------


async def in_session(hf: Holdfast) -> dict[str, Any]:
    """The explicit style: asks its state what is done."""
    async with hf.session("pipeline", {"name": "report"}) as session:
        for stage in ("docs", "checks", "summary"):
            if stage not in session.state:
                session.state[stage] = [stage, len(session.state)]
                session.state.setdefault("order", []).append(stage)
                await session.save()
        return dict(session.state)


async def two_runs(hf: Holdfast) -> list[Any]:
    """Runs side by side share transactions."""
    return list(await asyncio.gather(hf.run(sequential(2), id="one"), hf.run(nested(), id="two")))


# -- on a server -----------------------------------------------------------------------------------------------

_PREFIX = "swept_"


def on_postgres(folder: Path) -> Store:
    """A schema for each folder, on the server that the session of tests has started."""
    schema = _PREFIX + hashlib.sha256(str(folder).encode()).hexdigest()[:20]
    return open_store(f"{os.environ[SERVER]}?schema={schema}")


def drop_schemas() -> None:
    import psycopg

    with psycopg.connect(os.environ[SERVER], autocommit=True) as db:
        for (name,) in db.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", (_PREFIX,)):
            db.execute(f"DROP SCHEMA {name} CASCADE".encode())


# -- executed once -----------------------------------------------------------------------------------------


async def _found(amount: int) -> Any:
    """The outside world: what the ledger of the sweep says was begun cannot be asked here, so nothing ever was done."""
    return holdfast.NOT_DONE


@step(once=True, verify=_found)
async def transfer(amount: int) -> str:
    return f"{amount} {holdfast.idempotency_key()}"


@workflow(version="1")
async def transferring() -> list[str]:
    first = await transfer(1)
    return [first, *await asyncio.gather(transfer(2), transfer(3))]
