"""What must not be done twice, under a new version: a ledger outside of the store counts what was paid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from editing import a, did, stops

import holdfast
from holdfast import Diverged, InDoubt, StepFailed, step, workflow

paid: list[int] = []
lost = [True]


def paying(**options: Any) -> Any:
    @step(name="pay", **options)
    async def pay(x: int) -> str:
        paid.append(x)
        if x < 0 and lost:
            raise ConnectionError("the answer was lost")
        return f"receipt {x}"

    return pay


@step
async def stop() -> str:
    if stops:
        raise ConnectionError("away")
    return "stop"


def plan(pay: Any, x: int, *before: Callable[[], Any]) -> Callable[[], Any]:
    async def body() -> list[Any]:
        return [*[await each() for each in before], await pay(x), await stop()]

    return body


async def recorded(hf: holdfast.Holdfast, body: Callable[[], Any], error: type[Exception] = StepFailed) -> None:
    paid.clear()
    did.clear()
    stops[:], lost[:] = [True], [True]
    with pytest.raises(error):
        await hf.run(workflow(name="edited", version=1)(body)(), id="x")
    stops.clear()
    lost.clear()


async def resumed(hf: holdfast.Holdfast, body: Callable[[], Any], version: int = 2, **options: Any) -> Any:
    return await hf.run(workflow(name="edited", version=version, **options)(body)(), id="x")


both = pytest.mark.parametrize("on_change", ["salvage", "restart"])


@both
@pytest.mark.parametrize("once", [True, False], ids=["once", "once no longer"])
def test_it_is_kept_wherever_it_is_called(url: str, on_change: str, once: bool) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await recorded(hf, plan(paying(once=True), 1))
            pay = paying(once=once)

            async def moved() -> list[Any]:
                async def inner() -> str:
                    return await pay(1)

                return [await a(1), await asyncio.create_task(inner()), await stop()]

            assert await resumed(hf, moved, on_change=on_change) == ["a1", "receipt 1", "stop"]
            assert paid == [1]
            with pytest.raises(StepFailed):  # and again, when it has been kept once
                stops[:] = [True]
                await hf.run(workflow(name="other", version=1)(plan(pay, 1))(), id="y")

    asyncio.run(main())


@both
def test_asked_for_otherwise_it_diverges(url: str, on_change: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await recorded(hf, plan(paying(once=True), 1))
            for pay in (paying(once=True), paying()):
                with pytest.raises(Diverged, match="recorded 1, now 2"):
                    await resumed(hf, plan(pay, 2), on_change=on_change)
            assert paid == [1]
            # Put back, it goes on: through three attempts of the run it was paid once.
            assert await resumed(hf, plan(paying(once=True), 1), version=3, on_change=on_change) == [
                "receipt 1",
                "stop",
            ]
            assert paid == [1]

    asyncio.run(main())


@both
@pytest.mark.parametrize("once", [True, False], ids=["once", "once no longer"])
def test_a_doubt_of_the_version_before_is_one_of_this(url: str, on_change: str, once: bool) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await recorded(hf, plan(paying(once=True), -1), InDoubt)
            body = plan(paying(once=once), -1, lambda: a(1))
            for _ in range(2):
                with pytest.raises(InDoubt) as doubt:
                    await resumed(hf, body, on_change=on_change)
            assert paid == [-1]
            await hf.resolve("x", doubt.value.seq, result="by hand")
            assert await resumed(hf, body, on_change=on_change) == ["a1", "by hand", "stop"]
            assert paid == [-1]

    asyncio.run(main())


@both
def test_a_doubt_that_was_not_may_be_tried_again_under_the_same_key(url: str, on_change: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await recorded(hf, plan(paying(once=True), -1), InDoubt)
            body = plan(paying(once=True), -1)
            with pytest.raises(InDoubt) as doubt:
                await resumed(hf, body, on_change=on_change)
            await hf.resolve("x", doubt.value.seq, retry=True)
            assert await resumed(hf, body, on_change=on_change) == ["receipt -1", "stop"]
            assert paid == [-1, -1]

    asyncio.run(main())


@both
def test_a_doubt_that_the_new_version_does_not_ask_for_stops_it(url: str, on_change: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await recorded(hf, plan(paying(once=True), -1), InDoubt)
            with pytest.raises(Diverged):
                await resumed(hf, plan(paying(once=True), -2), on_change=on_change)

            async def without() -> str:
                return await a(7)

            with pytest.raises(InDoubt) as doubt:
                await resumed(hf, without, version=3, on_change=on_change)
            assert paid == [-1]
            await hf.resolve("x", doubt.value.seq, result="by hand")
            assert await resumed(hf, without, version=3, on_change=on_change) == "a7"

    asyncio.run(main())


@both
def test_a_doubt_is_settled_although_another_call_has_taken_its_place(url: str, on_change: str) -> None:
    """The calls moved up, and the one in doubt is not made any more."""
    pay = paying(once=True)

    def outer(version: int) -> Any:
        @step(name="outer", version=version)
        async def outer(x: int) -> str:
            return str(await pay(x)) if x else "nothing"

        return outer

    async def two() -> list[str]:
        return [await outer(1)(1), await outer(1)(-1)]

    async def other() -> list[str]:
        return [await outer(2)(0), await outer(2)(1)]

    async def main() -> None:
        async with holdfast.open(url) as hf:
            await recorded(hf, two, InDoubt)
            with pytest.raises(InDoubt) as doubt:
                await resumed(hf, other, on_change=on_change)
            await hf.resolve("x", doubt.value.seq, retry=True)
            assert await resumed(hf, other, on_change=on_change) == ["nothing", "receipt 1"]
            assert paid == [1, -1]

    asyncio.run(main())
