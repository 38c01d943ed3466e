"""Steps that are executed once, where something around them, beside them or before them is tried anew."""

from __future__ import annotations

import asyncio

import pytest
from once_scenes import charge, effects, ended, fail, in_memory, pay, refund, trouble

import holdfast
from holdfast import Diverged, InDoubt, StepFailed, step, workflow

# -- in other words ----------------------------------------------------------------------------------------


def test_in_a_call_that_is_worded_differently() -> None:
    """The payment is inside a step that is finished, and that no call asks for again."""
    said = ["pay the rent"]

    @step(key=lambda text: text)
    async def tool(text: str) -> str:
        return await pay("rent")

    @workflow(version="1")
    async def model() -> None:
        await tool(said[0])
        raise LookupError("the process ends here, say")

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(model(), id="x")), LookupError)
        assert isinstance(await ended(hf.run(model(), id="x")), LookupError), "what stands for it was asked for"
        said[0] = "please pay the rent"
        assert isinstance(await ended(hf.run(model(), id="x")), Diverged)
        assert effects == ["rent"]

    in_memory(scene)


def test_outside_of_a_call_that_asked_for_it_before_it_was_cut_off() -> None:
    """Executed again, and finished without asking for it, that call does not stand for it."""
    cut_off = [True]

    @step
    async def tool() -> None:
        if cut_off:
            await pay("rent")
            await asyncio.sleep(60)

    @step
    async def turn() -> None:
        await tool()

    @workflow(version="1")
    async def model() -> None:
        await turn()
        await pay("rent")

    async def scene(hf: holdfast.Holdfast) -> None:
        killed = asyncio.ensure_future(hf.run(model(), id="x"))
        while len(hf._store.load(1)) < 2:
            await asyncio.sleep(0.001)
        killed.cancel()
        await asyncio.wait({killed})
        cut_off.clear()
        assert isinstance(await ended(hf.run(model(), id="x")), Diverged)
        assert effects == ["rent"]

    in_memory(scene)


def test_outside_of_a_call_in_which_a_person_settled_it_later() -> None:
    """Finished without asking for it, that call does not stand for it either."""
    first = [True]

    @step(once=True)
    async def transfer(what: str) -> str:
        effects.append(what)
        if first:
            await asyncio.sleep(60)
        return what

    @step
    async def tool() -> None:
        if first:
            await transfer("rent")

    @workflow(version="1")
    async def model() -> None:
        await tool()
        await transfer("the rent")

    async def scene(hf: holdfast.Holdfast) -> None:
        killed = asyncio.ensure_future(hf.run(model(), id="x"))
        while not effects:
            await asyncio.sleep(0.001)
        killed.cancel()
        await asyncio.wait({killed})
        first.clear()
        doubt = await ended(hf.run(model(), id="x"))
        assert isinstance(doubt, InDoubt)
        await hf.resolve("x", doubt.seq or 0, result="rent")
        assert isinstance(await ended(hf.run(model(), id="x")), Diverged)
        assert effects == ["rent"]

    in_memory(scene)


def test_in_a_call_that_the_process_finished_before_what_is_around_it_was_attempted_anew() -> None:
    trouble["A"] = 1

    @step
    async def tool() -> None:
        await pay("rent")

    @step(attempts=2, backoff=0)
    async def turn() -> None:
        await tool()
        fail("A")
        await pay("light")

    @workflow(version="1")
    async def model() -> None:
        await turn()

    async def scene(hf: holdfast.Holdfast) -> None:
        await hf.run(model(), id="x")
        assert effects == ["rent", "light"]

    in_memory(scene)


def test_after_a_failure_that_was_tried_anew() -> None:
    said = ["rent"]
    trouble["A"] = 1

    @workflow(version="1")
    async def model() -> None:
        await charge("A")
        await pay(said[0])
        raise LookupError("the process ends here, say")

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(model(), id="x")), StepFailed)
        assert isinstance(await ended(hf.run(model(), id="x")), LookupError) and effects == ["rent"]
        said[0] = "the rent"
        assert isinstance(await ended(hf.run(model(), id="x")), Diverged)
        assert effects == ["rent"]

    in_memory(scene)


def test_the_very_same_elsewhere_than_on_the_way_that_failed() -> None:
    """What it had begun to make good need not be asked for again; done once more it would be a second payment."""
    trouble["A"] = 1

    async def branch() -> None:
        await refund("rent")

    @workflow(version="1")
    async def model() -> None:
        try:
            await charge("A")
        except StepFailed:
            await refund("rent")
            raise

    @workflow(name=model._definition.name, version="1")
    async def otherwise() -> None:
        await charge("A")
        await asyncio.create_task(branch())

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(model(), id="x")), StepFailed) and effects == ["refund rent"]
        assert isinstance(await ended(hf.run(otherwise(), id="x")), Diverged)
        assert effects == ["refund rent"]

    in_memory(scene)


def test_beside_the_failure_that_ended_the_run() -> None:
    """It had begun before the failure, and took effect behind it."""
    said, failed = ["rent"], asyncio.Event()

    @step
    async def fail() -> None:
        while not failed.is_set():
            await asyncio.sleep(0)
            if holds:
                failed.set()
                raise ConnectionError

    holds: list[str] = []

    @step(once=True, key=lambda what: what)
    async def transfer(what: str) -> None:
        holds.append(what)
        await failed.wait()
        effects.append(what)

    @workflow(version="1")
    async def model() -> None:
        await asyncio.gather(fail(), transfer(said[0]))

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(model(), id="x")), StepFailed) and effects == ["rent"]
        said[0] = "the rent"
        assert isinstance(await ended(hf.run(model(), id="x")), Diverged)
        assert effects == ["rent"]

    in_memory(scene)


# -- no false alarm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["inside", "behind"])
def test_another_way_behind_an_inner_failure(then: str) -> None:
    """The first attempt failed, and made good what it had done; the second goes the other way."""
    trouble["A"] = 1

    @step(attempts=2, backoff=0)
    async def order() -> None:
        try:
            await charge("A")
        except StepFailed:
            await refund("A")
            raise
        if then == "inside":
            await pay("A")

    @workflow(version="1")
    async def shop() -> str:
        await order()
        if ends:
            raise ends.pop()
        return await pay("B")

    ends = [LookupError("the process ends here, say")]

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(shop(), id="x")), LookupError)
        assert await hf.run(shop(), id="x") == "paid B"
        assert effects == ["refund A", *(["A"] if then == "inside" else []), "B"]

    in_memory(scene)


def test_another_way_behind_a_failure_of_the_body() -> None:
    trouble["A"] = 1

    @step(attempts=2, backoff=0)
    async def order() -> None:
        if trouble["A"]:
            await refund("A")
        fail("A")

    @workflow(version="1")
    async def shop() -> str:
        await order()
        return await pay("B")

    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(shop(), id="x") == "paid B" and effects == ["refund A", "B"]

    in_memory(scene)


def test_another_way_behind_the_failure_that_ended_the_run() -> None:
    trouble["A"] = 1

    @workflow(version="1")
    async def shop() -> str:
        try:
            await charge("A")
        except StepFailed:
            await refund("A")
            raise
        return await pay("A")

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(shop(), id="x")), StepFailed)
        assert await hf.run(shop(), id="x") == "paid A" and effects == ["refund A", "A"]

    in_memory(scene)


def test_beside_a_call_that_is_attempted_anew() -> None:
    """Its second attempt comes to the payment only after what is begun beside it."""
    trouble["A"] = 1
    beside = asyncio.Event()

    @step(attempts=2, backoff=0)
    async def order() -> None:
        if not trouble["A"]:
            tried.set()
            await beside.wait()
        await pay("A")
        fail("A")

    @step(once=True)
    async def book() -> None:
        effects.append("book")
        beside.set()

    @workflow(version="1")
    async def shop() -> None:
        async def other() -> None:
            await tried.wait()
            await book()

        await asyncio.gather(order(), other())

    tried = asyncio.Event()

    async def scene(hf: holdfast.Holdfast) -> None:
        await hf.run(shop(), id="x")
        assert effects == ["A", "book"]

    in_memory(scene)


def test_a_failed_attempt_lets_it_finish() -> None:
    trouble["A"] = 1
    failed = asyncio.Event()

    @step(once=True)
    async def book() -> None:
        effects.append("began")
        await asyncio.wait_for(failed.wait(), 5)
        await asyncio.sleep(0.01)
        effects.append("booked")

    @step(attempts=2, backoff=0)
    async def order() -> None:
        async def failing() -> None:
            while not effects:
                await asyncio.sleep(0)
            if trouble["A"]:
                failed.set()
            fail("A")

        await asyncio.gather(failing(), book())

    @workflow(version="1")
    async def shop() -> None:
        await order()

    async def scene(hf: holdfast.Holdfast) -> None:
        await hf.run(shop(), id="x")
        assert effects == ["began", "booked"]

    in_memory(scene)
