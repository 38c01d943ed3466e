"""Names that Python made and no store can hold, and ids that no index takes: one must not fail the batch of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import HoldfastError, NotFound, step, workflow
from holdfast.store import open_store

LONGEST = "\U00020000" * 500  # four bytes each, in UTF-8


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "jobs.db")
    new_schema: Callable[[], str] = request.getfixturevalue("new_schema")
    return new_schema()


@step
async def work(n: int) -> int:
    await asyncio.sleep(0)
    return n


@workflow(version="1")
async def innocent() -> int:
    return sum([await work(n) for n in range(5)])


ODD = "odd\0\udce9"  # as a file name that is no UTF-8 is read


@workflow(version="1")
async def in_an_odd_branch() -> int:
    async def inner() -> int:
        return await work(1)

    coro = inner()
    coro.__qualname__ = ODD
    return await asyncio.create_task(coro)


def in_an_odd_file() -> Any:
    names: dict[str, Any] = {"workflow": workflow, "work": work, "__name__": ODD}
    source = "@workflow(version='1')\nasync def in_an_odd_file(): return await work(1)"
    exec(compile(source, "odd\udce9.py", "exec"), names)
    return names["in_an_odd_file"]()


@pytest.mark.parametrize("make", [in_an_odd_branch, in_an_odd_file])
def test_a_name_that_no_store_can_hold_is_written_with_escapes(url: str, make: Callable[[], Any]) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            both = await asyncio.gather(hf.run(innocent(), id="a"), hf.run(make(), id="b"), return_exceptions=True)
            assert both == [10, 1]
            assert await hf.run(make(), id="b") == 1
            (*_, last) = await hf.history("b")
            assert last.branch in ("", f"{ODD!a}#0")

    asyncio.run(main())


def test_an_id_is_of_a_length_that_every_store_takes(url: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(innocent(), id=LONGEST) == 10
            for too_long in (hf.run, hf.start, hf.submit):
                with pytest.raises(TypeError, match="at most 500 characters"):
                    await too_long(innocent(), id=LONGEST + "a")
            with pytest.raises(TypeError, match="at most 500 characters"):
                hf.session(LONGEST + "a")

    asyncio.run(main())


@pytest.mark.parametrize("id", ["a\0b", "a\ud800b"])
def test_an_id_that_no_store_can_hold_is_unknown(url: str, id: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            for ask in (hf.get, hf.cancel, hf.history, lambda id: hf.send(id, "name", 1)):
                with pytest.raises(NotFound):
                    await ask(id)

    asyncio.run(main())
    with pytest.raises(HoldfastError):
        asyncio.run(holdfast.open(url).get(id))
    assert open_store(url).cancel(id) is None
