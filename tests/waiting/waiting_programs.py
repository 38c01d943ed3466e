"""Programs that wait, at the top of a module, where the processes of a crash sweep find them."""

from __future__ import annotations

import asyncio
from typing import Any

import holdfast
from holdfast import Holdfast, StepFailed, step, workflow


@step
async def note(what: str) -> str:
    holdfast.state.setdefault("notes", []).append(what)
    return what


@workflow(version="1")
async def sleeping() -> list[Any]:
    first = await note("first")
    await asyncio.gather(holdfast.sleep(0.03), holdfast.sleep(0.01), note("beside"))
    return [first, await note("last"), sorted(holdfast.state["notes"])]


@workflow(version="1")
async def too_late() -> str:
    try:
        return await holdfast.wait_for("never", str, timeout=0.02)
    except TimeoutError as late:
        return await note(str(late))


@workflow(version="1")
async def talking() -> list[str]:
    """An agent loop, with two waits of one name at its end."""
    heard = []
    for _ in range(2):
        heard.append(await note(await holdfast.wait_for("message", str)))
    heard += await asyncio.gather(holdfast.wait_for("message", str), holdfast.wait_for("message", str))
    return heard


async def conversation(hf: Holdfast) -> list[str]:
    """What was sent is sent again by whoever resumes, and is the same signal."""
    run = asyncio.create_task(hf.run(talking(), id="talk"))
    while not run.done() and await _status(hf) is None:
        await asyncio.sleep(0.001)
    if await _status(hf) != "done":
        for number in range(4):
            try:
                await hf.send("talk", "message", f"m{number}", key=f"k{number}")
            except holdfast.HoldfastError:  # it is done meanwhile
                break
    return await run


async def _status(hf: Holdfast) -> str | None:
    try:
        return (await hf.get("talk")).status
    except holdfast.NotFound:
        return None


@workflow(version="1")
async def child(n: int) -> int:
    await note(f"child {n}")
    await holdfast.sleep(0.005)
    if n == 2:
        raise ValueError("two")
    return n * n


@workflow(version="1")
async def parent() -> list[Any]:
    async def one(n: int) -> Any:
        try:
            return await holdfast.current().run(child(n), id=f"child-{n}")
        except StepFailed as failure:
            return f"{failure.error_type}: {failure.message}"

    found = await asyncio.gather(*(one(n) for n in range(4)), nested(7))
    return [*found, await note("all there")]


@workflow(version="1")
async def nested(n: int) -> int:
    await holdfast.sleep(0.01)
    return await holdfast.current().run(child(n), id=f"child-{n}")


@workflow(version="1")
def plainly() -> str:
    hf = holdfast.current()
    hf.wait(holdfast.sleep(0.01))
    return f"{hf.wait(hf.run(child.bind(3), id='c'))}"
