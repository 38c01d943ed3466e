"""Forks of a run of which a step that is executed once had begun: nothing is paid again silently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import holdfast
from holdfast import InDoubt, step, workflow

paid: list[str] = []  # the idempotency keys
lost: list[bool] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    paid.clear()
    lost.clear()


@step(once=True)
async def pay(what: str) -> str:
    paid.append(holdfast.idempotency_key())
    if lost:
        raise ConnectionError("the answer was lost")
    return f"paid {what}"


async def look(what: str) -> Any:
    return f"found {what}" if holdfast.idempotency_key() in paid else holdfast.NOT_DONE


@step(once=True, verify=look)
async def pay_verified(what: str) -> str:
    paid.append(holdfast.idempotency_key())
    return f"paid {what}"


@workflow(version="1")
async def one(kind: str) -> str:
    return await (pay("rent") if kind == "pay" else pay_verified("rent"))


def in_memory(scene: Callable[[holdfast.Holdfast], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            await scene(hf)

    asyncio.run(main())


def test_a_doubt_is_one_of_the_fork_too() -> None:
    async def scene(hf: holdfast.Holdfast) -> None:
        lost.append(True)
        with pytest.raises(InDoubt) as first:
            await hf.run(one("pay"), id="x")
        lost.clear()
        await hf.fork("x", at=1, new_id="y")
        for _ in range(2):
            with pytest.raises(InDoubt) as doubt:
                await hf.run(one("pay"), id="y")
            assert (doubt.value.key, len(paid)) == (first.value.key, 1)
        await hf.resolve("x", 1, result="seen in the books")
        with pytest.raises(InDoubt):  # what is said of the one is not said of the other
            await hf.run(one("pay"), id="y")
        await hf.resolve("y", 1, retry=True)
        assert await hf.run(one("pay"), id="y") == "paid rent"
        assert await hf.run(one("pay"), id="x") == "seen in the books"
        assert len(set(paid)) == 2, "what a person has the fork do is a payment of its own"

    in_memory(scene)


def test_between_an_intent_and_its_outcome() -> None:
    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(one("pay"), id="x") == "paid rent"
        assert [row.status for row in hf._store.load(1)] == ["intent", "done"]
        await hf.fork("x", at=1, new_id="y")
        with pytest.raises(InDoubt):
            await hf.run(one("pay"), id="y")
        await hf.fork("x", at=2, new_id="z")
        assert await hf.run(one("pay"), id="z") == "paid rent" and len(paid) == 1

    in_memory(scene)


def test_outside_is_asked_with_the_key_of_the_first_run() -> None:
    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(one("verified"), id="x") == "paid rent"
        await hf.fork("x", at=1, new_id="y")
        assert await hf.run(one("verified"), id="y") == "found rent" and len(paid) == 1

    in_memory(scene)
