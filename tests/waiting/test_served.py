"""Runs that wait, advanced by a worker: they hold no slot, are let go of, and come back when they are woken."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Holdfast, StepFailed, step, workflow
from holdfast.store import Store, open_store

sys.path.append(str(Path(__file__).parents[1] / "worker"))

from inside import STORES, ended, row_of, serving, until, url_of

fails = [True]


@step
async def pay(what: str) -> str:
    return f"paid {what}"


@workflow(version="1")
async def served_loan(what: str) -> str:
    if not await holdfast.wait_for("approval", bool, ask=f"pay {what}?"):
        return "refused"
    return await pay(what)


@workflow(version="1")
async def served_sleep(seconds: float) -> str:
    await holdfast.sleep(seconds)
    return await pay("slept")


@workflow(version="1")
async def served_child(n: int) -> int:
    await holdfast.sleep(0.01)
    if n == 3 and fails[0]:
        raise ValueError("three")
    return n * n


@workflow(version="1")
async def served_parent(count: int) -> list[str]:
    async def one(n: int) -> str:
        try:
            return str(await holdfast.current().run(served_child(n), id=f"child-{n}"))
        except StepFailed as failure:
            return f"{failure.error_type}: {failure.message}"

    return await asyncio.gather(*(one(n) for n in range(count)))


@workflow(version="1")
async def served_strict(n: int) -> int:
    return await holdfast.current().run(served_child(n), id=f"child-{n}")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    fails[0] = True
    made = open_store(url_of(request, tmp_path))
    yield made
    made.close()


def unloaded(store: Store, *ids: str) -> bool:
    return all((row_of(store, id).status, row_of(store, id).owner) == ("waiting", None) for id in ids)


def test_waiting_runs_hold_no_slot_and_come_back(store: Store) -> None:
    ids = [f"loan-{n}" for n in range(5)]

    async def main() -> None:
        async with serving(store, concurrency=1) as worker, Holdfast(store) as hf:
            for id in ids:
                await hf.submit(served_loan(id), id=id)
            await until(lambda: unloaded(store, *ids))
            await until(lambda: not worker._live)  # nothing of them is in memory
            for id in ids:
                sent = time.monotonic()
                await hf.send(id, "approval", True)
                assert await ended(store, id) == ["done"]
                assert time.monotonic() - sent < 3  # (on a busy machine; the figure is measured elsewhere)
            assert (await hf.get("loan-4")).result == "paid loan-4"
            assert [row.status for row in await hf.history("loan-4")] == ["waiting", "done", "done"]

    asyncio.run(main())


def test_a_time_wakes_it(store: Store) -> None:
    async def main() -> None:
        async with serving(store, concurrency=1), Holdfast(store) as hf:
            await hf.submit(served_sleep(2.0), id="a")
            await until(lambda: unloaded(store, "a"))
            assert await ended(store, "a") == ["done"]
            row = row_of(store, "a")
            assert 2000 <= row.updated_ms - row.created_ms < 5000

    asyncio.run(main())


def test_children_take_their_turns_in_the_queue(store: Store) -> None:
    async def main() -> None:
        async with serving(store, concurrency=3), Holdfast(store) as hf:
            await hf.submit(served_parent(40), id="p")
            assert await ended(store, "p") == ["done"]
            expected = [str(n * n) if n != 3 else "ValueError: three" for n in range(40)]
            assert (await hf.get("p")).result == expected
            parent = row_of(store, "p")
            assert {row_of(store, f"child-{n}").parent_no for n in range(40)} == {parent.no}

    asyncio.run(main())


def test_a_child_that_failed_before_is_tried_anew(store: Store) -> None:
    async def main() -> None:
        async with serving(store), Holdfast(store) as hf:
            await hf.submit(served_strict(3), id="p")
            assert await ended(store, "p", "child-3") == ["failed", "failed"]
            fails[0] = False
            resumed: Any = await hf.run(served_strict(3), id="p")  # here, and not in the worker
            assert resumed == 9
            fails[0] = True
            await hf.submit(served_strict(4), id="q")
            assert await ended(store, "q") == ["done"]

    asyncio.run(main())


def test_cancel_reaches_children_in_the_queue_and_at_work(store: Store) -> None:
    async def main() -> None:
        async with serving(store), Holdfast(store) as hf:
            await hf.submit(served_family(), id="p")
            await until(lambda: store.get("c") is not None and row_of(store, "c").status == "waiting")
            await hf.cancel("p")
            assert await ended(store, "p", "c") == ["cancelled", "cancelled"]

    asyncio.run(main())


@workflow(version="1")
async def served_family() -> str:
    return await holdfast.current().run(served_loan("x"), id="c")
