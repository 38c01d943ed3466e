"""Steps that are executed once, where something around them, beside them or before them is tried anew."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import holdfast
from holdfast import Diverged, HoldfastError, InDoubt, StepFailed, step, workflow

effects: list[str] = []  # what happened outside, in order
trouble: dict[str, int] = {}  # how often a step fails yet


@pytest.fixture(autouse=True)
def _fresh() -> None:
    effects.clear()
    trouble.clear()


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
    _fail(what)
    return what


def _fail(what: str) -> None:
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
        _fail("A")

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
        _fail("A")

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
            _fail("A")

        await asyncio.gather(failing(), book())

    @workflow(version="1")
    async def shop() -> None:
        await order()

    async def scene(hf: holdfast.Holdfast) -> None:
        await hf.run(shop(), id="x")
        assert effects == ["began", "booked"]

    in_memory(scene)


# -- what must not be lost or gone past --------------------------------------------------------------------


def test_a_program_that_fails_before_it_asks_again() -> None:
    """Who waits for a run that failed would go on without knowing that something may have happened."""
    asks = [True]

    @step(once=True)
    async def transfer() -> None:
        effects.append("transfer")
        raise OSError

    @workflow(version="1")
    async def fickle() -> None:
        if asks[0]:
            await transfer()
        raise LookupError("no such account")

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(fickle(), id="x")), InDoubt)
        asks[0] = False
        doubt = await ended(hf.run(fickle(), id="x"))
        assert isinstance(doubt, InDoubt) and isinstance(doubt.__cause__, LookupError)
        assert "ended with LookupError: no such account without asking" in str(doubt)
        assert (await hf.get("x")).status == "in_doubt"
        await hf.resolve("x", doubt.seq or 0, retry=True)
        assert isinstance(await ended(hf.run(fickle(), id="x")), LookupError) and effects == ["transfer"]

    in_memory(scene)


def test_nothing_begins_that_has_waited_for_a_doubt() -> None:
    """The new one waits until the other is asked for again, and that one turns out to be in doubt."""
    first = [True]

    @step(once=True)
    async def transfer() -> None:
        effects.append("transfer")
        raise OSError

    @workflow(version="1")
    async def both() -> None:
        async def late() -> None:
            if not first[0]:
                await asyncio.sleep(0.05)
            await transfer()

        await asyncio.gather(late(), asyncio.sleep(0) if first[0] else pay("rent"))

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(both(), id="x")), InDoubt)
        first[0] = False
        assert isinstance(await ended(hf.run(both(), id="x")), InDoubt) and effects == ["transfer"]

    in_memory(scene)


@pytest.mark.parametrize("how", ["verify", "closed"])
def test_what_ends_without_an_outcome_is_not_gone_past(how: str) -> None:
    """A sys.exit in ``verify=`` is caught, or the call is driven by hand and closed."""

    async def leave() -> None:
        raise SystemExit(3)

    async def hang() -> None:
        effects.append("transfer")
        if how == "verify":
            raise OSError
        await asyncio.sleep(60)

    @types.coroutine
    def driven_until_it_acts(call: Any) -> Any:
        while True:
            awaited = call.send(None)
            if effects:
                return
            yield awaited

    transfer = step(once=True, verify=leave)(hang) if how == "verify" else step(once=True)(hang)

    @workflow(version="1")
    async def agent() -> str:
        try:
            if how == "verify":
                await transfer()
            else:
                call = transfer()
                await driven_until_it_acts(call)
                call.close()
        except BaseException as error:
            assert isinstance(error, SystemExit), error
        return await pay("the transfer, then")

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(agent(), id="x")), InDoubt) and effects == ["transfer"]

    in_memory(scene)


def test_whatever_is_declared_a_result_that_cannot_be_stored_is_a_doubt() -> None:
    @step(once=True, not_done=Exception, attempts=3, backoff=0)
    async def transfer() -> Any:
        effects.append("transfer")
        return object()

    @workflow(version="1")
    async def body() -> None:
        await transfer()

    async def scene(hf: holdfast.Holdfast) -> None:
        for _ in range(2):
            assert isinstance(await ended(hf.run(body(), id="x")), InDoubt) and effects == ["transfer"]

    in_memory(scene)


@pytest.mark.parametrize("slip", [None, False, True])
def test_a_verify_that_forgets_its_return(slip: Any) -> None:
    async def look() -> Any:
        return slip

    @step(once=True, verify=look)
    async def transfer() -> str:
        raise OSError

    @step(once=True, verify=look)
    async def tell() -> bool | None:
        raise OSError

    @workflow(version="1")
    async def body(kind: str) -> Any:
        return await (transfer() if kind == "transfer" else tell())

    async def scene(hf: holdfast.Holdfast) -> None:
        doubt = await ended(hf.run(body("transfer"), id="x"))
        assert isinstance(doubt, InDoubt) and f"it returned {slip!r}, which is neither a str" in str(doubt)
        assert await hf.run(body("tell"), id="y") is slip, "where that is a result it is one"

    in_memory(scene)


def test_a_step_that_is_not_executed_once_any_more_in_another_branch() -> None:
    """The record tells that it was; the code cannot take that back under the same version."""

    @step(name="transfer", once=True)
    async def transfer(what: str) -> str:
        effects.append(what)
        return what

    @step(name="transfer")
    async def transfer_again(what: str) -> str:
        effects.append(what)
        return what

    async def branch() -> None:
        await transfer("rent")

    async def before() -> None:
        await asyncio.create_task(branch())
        raise LookupError("the process ends here, say")

    async def after() -> None:
        await transfer_again("rent")

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(workflow(name="w", version="1")(before)(), id="x")), LookupError)
        assert isinstance(await ended(hf.run(workflow(name="w", version="1")(after)(), id="x")), Diverged)
        assert effects == ["rent"]

    in_memory(scene)


# -- several doubts ----------------------------------------------------------------------------------------


def test_doubts_beside_each_other_are_told_one_after_the_other() -> None:
    """The first is settled, and waits until the others have been asked for; the second holds the third meanwhile."""
    away = [True]

    @step(name="transfer", once=True)
    async def transfer(what: str) -> str:
        effects.append(what)
        if away:
            await asyncio.sleep(60)
        return what

    @workflow(version="1")
    async def several() -> list[str]:
        return list(await asyncio.gather(*(transfer(what) for what in "abc")))

    async def scene(hf: holdfast.Holdfast) -> None:
        killed = asyncio.ensure_future(hf.run(several(), id="x"))
        while len(effects) < 3:
            await asyncio.sleep(0.001)
        killed.cancel()
        await asyncio.wait({killed})
        away.clear()
        for what in "abc":
            async with asyncio.timeout(10):
                doubt = await ended(hf.run(several(), id="x"))
            assert isinstance(doubt, InDoubt) and doubt.inputs == {"what": what}
            await hf.resolve("x", doubt.seq, retry=True)
        assert await hf.run(several(), id="x") == ["a", "b", "c"] and effects == [*"abcabc"]

    in_memory(scene)


def test_a_failure_before_a_doubt_is_tried_anew_as_soon_as_that_is_settled() -> None:
    away = [True]

    @step(name="transfer", once=True)
    async def transfer() -> str:
        effects.append("transfer")
        if away:
            await asyncio.sleep(60)
        return "done"

    @step(name="before it")
    async def before_it() -> None:
        if away:
            await asyncio.sleep(60)
        _fail("before it")

    async def then() -> str:
        await asyncio.sleep(0.05)
        return await transfer()

    @workflow(version="1")
    async def both() -> Any:
        return await asyncio.gather(before_it(), then())

    async def scene(hf: holdfast.Holdfast) -> None:
        killed = asyncio.ensure_future(hf.run(both(), id="x"))
        while not effects:
            await asyncio.sleep(0.001)
        killed.cancel()
        await asyncio.wait({killed})
        away.clear()
        trouble["before it"] = 1
        doubt = await ended(hf.run(both(), id="x"))
        assert isinstance(doubt, InDoubt) and isinstance(doubt.__cause__, StepFailed)
        await hf.resolve("x", doubt.seq, retry=True)
        assert await hf.run(both(), id="x") == [None, "done"]

    in_memory(scene)


def test_what_a_doubt_holds_is_waited_for_by_nobody() -> None:
    """An outcome has its turn behind a record of a call that is held."""
    away = [True]

    async def look() -> Any:
        return holdfast.NOT_DONE

    async def act(what: str) -> str:
        effects.append(what)
        if away:
            await asyncio.sleep(60)
        return what

    @step(name="transfer", once=True)
    async def transfer() -> str:
        return await act("transfer")

    @step(name="verified", once=True, verify=look)
    async def verified() -> str:
        return await act("verified")

    @step(name="outer")
    async def outer() -> str:
        return await charge("inner") + await act("outer")

    @workflow(version="1")
    async def several() -> list[str]:
        return list(await asyncio.gather(verified(), transfer(), outer()))

    async def scene(hf: holdfast.Holdfast) -> None:
        killed = asyncio.ensure_future(hf.run(several(), id="x"))
        while len(effects) < 3:
            await asyncio.sleep(0.001)
        killed.cancel()
        await asyncio.wait({killed})
        away.clear()
        async with asyncio.timeout(10):
            assert isinstance(await ended(hf.run(several(), id="x")), InDoubt)
        assert effects[3:] == ["verified"]

    in_memory(scene)
