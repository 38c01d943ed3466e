"""Runs that would wait for one another for ever are told so."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Holdfast, HoldfastError, step, workflow
from holdfast.admission import new_row
from holdfast.store import Batch, Store, open_store

sys.path.append(str(Path(__file__).parents[1] / "worker"))

from inside import STORES, ended, row_of, serving, until, url_of


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = open_store(url_of(request, tmp_path))
    yield made
    made.close()


@workflow(version="1")
async def first() -> str:
    return await holdfast.current().run(second(), id="b")


@workflow(version="1")
async def second() -> str:
    return await holdfast.current().run(third(), id="c")


@workflow(version="1")
async def third() -> str:
    try:
        return await holdfast.current().run(first(), id="a")
    except HoldfastError as refused:
        return str(refused)


@pytest.mark.parametrize("where", ["here", "in a worker"])
def test_nobody_waits_for_who_began_it(store: Store, where: str) -> None:
    async def main() -> None:
        async with serving(store, concurrency=1) if where == "in a worker" else Holdfast(store) as hf:
            await (hf.submit if where == "in a worker" else hf.start)(first(), id="a")
            assert await ended(store, "a", "b", "c") == ["done"] * 3
            told: Any = (await hf.get("a")).result
            assert "run 'c' would wait for itself, for ever" in told
            assert "it waits for 'a', which waits for 'b', which waits for 'c'" in told

    asyncio.run(main())


def test_nobody_waits_for_who_began_it_elsewhere(store: Store) -> None:
    """In a process that has not told yet what it waits for."""

    async def main() -> None:
        async with Holdfast(store) as hf:
            await hf.submit(first(), id="a")
            row = row_of(store, "a")
            assert store.claim(row.no, row.epoch, owner="another|1|1|1", ttl_ms=60_000, lost=None) is not None
            call = third()
            child = new_row(call, call.inputs(), "c")
            child.status, child.parent_no, child.epoch = "queued", row.no, 0
            call.close()
            store.commit(Batch(creates=[child]))
            assert "it waits for 'a', which waits for 'c'" in await hf.run(third(), id="c")

    asyncio.run(main())


@workflow(version="1")
async def one_of(other: str, me: str, begins: float) -> str:
    await asyncio.sleep(begins)
    try:
        return await holdfast.current().run(one_of(me, other, 1.0 - begins), id=other)
    except HoldfastError as refused:
        return str(refused)


@pytest.mark.parametrize("where", ["here", "in two processes", "in a worker"])
def test_two_that_run_each_other(store: Store, where: str) -> None:
    """Begun by nobody of them. In two processes the one is told of what the other waits for, a little later."""

    async def main() -> None:
        if where == "in a worker":
            async with serving(store) as hf:
                await hf.submit(one_of("b", "a", 0.0), id="a")
                await hf.submit(one_of("a", "b", 1.0), id="b")
                assert await ended(store, "a", "b") == ["done", "done"]
        else:
            async with Holdfast(store) as hf, Holdfast(store) as other:
                await (other if where == "in two processes" else hf).start(one_of("a", "b", 1.0), id="b")
                await hf.start(one_of("b", "a", 0.0), id="a")
                assert await ended(store, "a", "b") == ["done", "done"]
        result = str((await Holdfast(store).get("a")).result)
        assert "run 'b' would wait for itself" in result and "'a', which waits for 'b'" in result

    asyncio.run(main())


@step
async def run_self(how: str) -> str:
    hf = holdfast.current()
    try:
        if how == "run":
            return await hf.run(by_a_step(how), id=holdfast.run_id())
        return str(await (await hf.get(holdfast.run_id())).wait())
    except HoldfastError as refused:
        return str(refused)


@workflow(version="1")
async def by_a_step(how: str) -> str:
    return await run_self(how)


@pytest.mark.parametrize("how", ["run", "wait"])
def test_no_step_waits_for_its_own_run(hf: Holdfast, how: str) -> None:
    async def main() -> None:
        assert "run 'a' would wait for itself" in await hf.run(by_a_step(how), id="a")
        await hf.aclose()

    asyncio.run(main())


def test_an_ancestor_that_has_ended_may_be_waited_for(store: Store) -> None:
    """It has gone on without its child."""
    gone_on = asyncio.Event()

    @workflow(version="1")
    async def mother() -> str:
        child = asyncio.create_task(holdfast.current().run(orphan(), id="child"))  # type: ignore[arg-type]
        await holdfast.sleep(0.1)
        child.cancel()
        return "gone on"

    @workflow(version="1")
    async def orphan() -> str:
        await gone_on.wait()
        return await holdfast.current().run(mother(), id="mother")

    async def main() -> None:
        async with serving(store) as hf:
            await hf.submit(mother(), id="mother")
            assert await ended(store, "mother") == ["done"]
            await until(lambda: row_of(store, "child").status in ("running", "waiting"))
            gone_on.set()
            assert await ended(store, "child") == ["done"]
            assert (await hf.get("child")).result == "gone on"

    asyncio.run(main())


def test_who_has_gone_on_is_no_part_of_a_circle(store: Store) -> None:
    """Its row says a little longer that it waits."""
    gone_on = asyncio.Event()

    @workflow(version="1")
    async def impatient() -> str:
        waiting = asyncio.create_task(holdfast.current().run(other(), id="b"))  # type: ignore[arg-type]
        await until(lambda: row_of(store, "a").waiting is not None)
        waiting.cancel()
        await asyncio.wait({waiting})
        gone_on.set()
        await asyncio.sleep(0.2)
        return "gone on"

    @workflow(version="1")
    async def other() -> str:
        await gone_on.wait()
        return await holdfast.current().run(impatient(), id="a")

    async def main() -> None:
        async with Holdfast(store) as hf, Holdfast(store) as elsewhere:
            await elsewhere.start(other(), id="b")
            await hf.start(impatient(), id="a")
            assert await ended(store, "a", "b") == ["done", "done"]
            assert (await hf.get("b")).result == "gone on"

    asyncio.run(main())
