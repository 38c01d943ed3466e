"""Payments and failures that tests of steps executed once are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import holdfast
from holdfast import HoldfastError, step

effects: list[str] = []  # what happened outside, in order
trouble: dict[str, int] = {}  # how often a step fails yet


@step(once=True, key=lambda what: what)
async def pay(what: str) -> str:
    effects.append(what)
    return f"paid {what}"


@step(once=True)
async def refund(what: str) -> str:
    effects.append(f"refund {what}")
    return what


@step
async def charge(what: str) -> str:
    fail(what)
    return what


def fail(what: str) -> None:
    if trouble.get(what, 0):
        trouble[what] -= 1
        raise ConnectionError(what)


async def ended(program: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await program
    except (HoldfastError, LookupError) as error:
        return error


def in_memory(scene: Callable[[holdfast.Holdfast], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            await scene(hf)

    asyncio.run(main())
