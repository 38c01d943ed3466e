"""State that cannot be stored ends the run as failed, names the place its program knows, and keeps no lease."""

from __future__ import annotations

import asyncio

import pytest

import holdfast
from holdfast import CodecError, step, workflow


class Opaque:
    pass


@step
async def look() -> int:
    return 1


@step
async def spoil() -> int:
    holdfast.state["inner"] = {"deep": [Opaque()]}
    return 1


@workflow(version="1")
async def spoiled(where: str) -> int:
    if where == "before a step":
        holdfast.state["k"] = Opaque()
        return await look()
    if where == "at the end":
        holdfast.state["z"] = [Opaque()]
        return 1
    return await spoil()


@pytest.mark.parametrize(
    ("where", "path"),
    [("before a step", "state['k']"), ("at the end", "state['z'][0]"), ("in a step", "state['inner']['deep'][0]")],
)
def test_state_that_cannot_be_stored(where: str, path: str) -> None:
    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.raises(CodecError) as caught:
                await hf.run(spoiled(where), id="a")
            assert caught.value.path == path
            run = await hf.get("a")
            assert (run.status, run.owner) == ("failed", None)

    asyncio.run(main())


def test_an_id_is_one_printable_line() -> None:
    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.raises(TypeError, match="one line"):
                await hf.run(spoiled("at the end"), id="a\nb")

    asyncio.run(main())
