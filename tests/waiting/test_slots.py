"""What a run takes of a worker that waits beside a timer of asyncio's: memory, and no slot."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Holdfast, workflow
from holdfast.resting import Rest
from holdfast.store.memory import MemoryStore

sys.path.append(str(Path(__file__).parents[1] / "worker"))

from inside import ended, row_of, serving, until

programs: dict[str, Any] = {}


def program(body: Any) -> Any:
    programs[body.__name__] = workflow(version="1")(body)
    return body


@workflow(version="1")
async def kid(n: int) -> int:
    await holdfast.sleep(0.01)
    return n


def child(n: int = 7) -> Any:
    return holdfast.current().run(kid(n), id=f"{holdfast.run_id()}-kid")


@program
async def timed() -> int:
    async with asyncio.timeout(9999):
        return int(await child())


@program
async def timed_outside() -> int:
    async with asyncio.timeout(9999), asyncio.TaskGroup() as group:
        task = group.create_task(child())
    return int(task.result())


@program
async def limited() -> int:
    return int(await asyncio.wait_for(child(), 9999))


@program
async def limited_wait() -> int:
    task = asyncio.create_task(child())
    await asyncio.wait([task], timeout=9999)
    return int(task.result())


@program
async def limited_completion() -> int:
    for each in asyncio.as_completed([child()], timeout=9999):
        return int(await each)
    raise AssertionError


@program
async def beside_a_sleep() -> int:
    sleeping = asyncio.create_task(asyncio.sleep(9999))
    found = await child()
    sleeping.cancel()
    return int(found)


@program
async def by_hand() -> int:
    """As anyio does."""
    timer = asyncio.get_running_loop().call_later(9999, print)
    try:
        return int(await child())
    finally:
        timer.cancel()


@pytest.mark.parametrize("name", sorted(programs))
def test_a_timer_holds_no_slot(name: str) -> None:
    """With one slot, and more parents than a worker keeps of those that wait."""
    store = MemoryStore()

    async def main() -> None:
        ids = [f"p{n}" for n in range(6)]
        async with serving(store, concurrency=1) as hf:
            for id in ids:
                await hf.submit(programs[name].bind(), id=id)
            assert await ended(store, *ids) == ["done"] * 6

    asyncio.run(main())


def rest_of(hf: Holdfast, id: str) -> Rest:
    run = hf._live[id].run
    return Rest.WORKS if run is None else run.rest


gone_on = asyncio.Event()


@workflow(version="1")
async def works_after_a_while() -> None:
    """What it does then takes none of our calls."""
    task: Any = asyncio.create_task(holdfast.wait_for("never", str))  # type: ignore[arg-type]
    await asyncio.wait([task], timeout=1.0)
    await gone_on.wait()
    raw: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await raw


def test_what_goes_on_behind_a_timer_takes_its_slot_again() -> None:
    store = MemoryStore()

    async def main() -> None:
        gone_on.set()
        async with serving(store, concurrency=1) as hf:
            await hf.submit(works_after_a_while(), id="a")
            await until(lambda: "a" in hf._live and rest_of(hf, "a") is Rest.IDLE)
            await until(lambda: rest_of(hf, "a") is Rest.WORKS)
            await hf.submit(kid(1), id="b")
            await asyncio.sleep(0.3)
            assert row_of(store, "b").status == "queued"
            await hf.cancel("a")
            assert await ended(store, "b") == ["done"]

    asyncio.run(main())


def test_it_is_told_what_a_run_with_a_timer_waits_for() -> None:
    store = MemoryStore()

    async def main() -> None:
        async with serving(store) as hf:
            await hf.submit(asked(), id="a")
            await until(lambda: row_of(store, "a").waiting is not None)
            assert (await hf.get("a")).waiting_for == "approval"
            assert row_of(store, "a").owner is not None
            await hf.send("a", "approval", True)
            assert await ended(store, "a") == ["done"]

    asyncio.run(main())


@workflow(version="1")
async def asked() -> bool:
    async with asyncio.timeout(9999):
        return await holdfast.wait_for("approval", bool, ask="pay?")
