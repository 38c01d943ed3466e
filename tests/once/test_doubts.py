"""Doubts that are not lost, not gone past, and told one after the other."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest
from once_scenes import charge, effects, ended, fail, in_memory, pay, trouble

import holdfast
from holdfast import Diverged, InDoubt, StepFailed, step, workflow


@step(once=True)
async def transfer() -> None:
    effects.append("transfer")
    raise OSError


# -- what must not be lost or gone past --------------------------------------------------------------------


def test_a_program_that_fails_before_it_asks_again() -> None:
    """Who waits for a run that failed would go on without knowing that something may have happened."""
    asks = [True]

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
        fail("before it")

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
