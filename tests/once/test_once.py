"""Steps that are executed once: never twice, never taken for done, never gone past."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from once_scenes import ended, in_memory
from tests.worker.inside import serving

import holdfast
from holdfast import NOT_DONE, CodecError, Diverged, InDoubt, NotInRun, StepFailed, step, workflow
from holdfast.store import Batch, open_store

effects: list[str] = []  # what happened outside, in order
plan: dict[str, Any] = {}  # how the steps of a test behave


class Refused(Exception):
    """Certainly nothing happened."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    effects.clear()
    plan.clear()


def act(what: str) -> str:
    """The effect, and then what the test wants: an exception after it, or before."""
    if isinstance(before := plan.get(f"before {what}"), BaseException):
        raise before
    effects.append(what)
    after = plan.get(what)
    if isinstance(after, list):
        after = after.pop(0)
    if isinstance(after, BaseException):
        raise after
    return f"paid {what}"


def asked(what: str) -> Any:
    answer = plan["verify"]
    effects.append(f"? {what}")
    if isinstance(answer, BaseException):
        raise answer
    return answer


async def verify(what: str) -> Any:
    return asked(what)


@step(once=True)
async def pay(what: str) -> str:
    if gate := plan.get(f"gate {what}"):
        await gate.wait()
    return act(what)


@step(once=True, not_done=Refused, attempts=3, backoff=0)
async def pay_refusable(what: str) -> str:
    return act(what)


@step(once=True, verify=verify, attempts=2, backoff=0, timeout=0.05)
async def pay_verified(what: str) -> str:
    done = act(what)
    await asyncio.sleep(plan.get("pause", 0))
    return done


@workflow(version="1")
async def one(kind: str) -> str:
    return str(await {"pay": pay, "refusable": pay_refusable, "verified": pay_verified}[kind]("A"))


# -- what comes of an attempt ------------------------------------------------------------------------------


def test_an_outcome_stands_behind_its_intent() -> None:
    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(one("pay"), id="x") == "paid A"
        assert [(row.seq, row.kind, row.status) for row in hf._store.load(1)] == [
            (1, "step", "intent"),
            (2, "step", "done"),
        ]
        assert await hf.run(one("pay"), id="x") == "paid A" and effects == ["A"]

    in_memory(scene)


def test_an_error_is_a_doubt(caplog: pytest.LogCaptureFixture) -> None:
    plan["A"] = ConnectionError("reset")

    async def scene(hf: holdfast.Holdfast) -> None:
        with caplog.at_level(logging.ERROR, "holdfast"):
            error = await ended(hf.run(one("pay"), id="x y"))
        assert isinstance(error, InDoubt) and isinstance(error.__cause__, ConnectionError)
        assert (error.step, error.inputs, error.seq) == ("pay", {"what": "A"}, 1) and len(error.key) == 32
        for said in ("'pay'", "what='A'", error.key, "ConnectionError: reset", "holdfast resolve 'x y' 1 --retry"):
            assert said in str(error)
        run = await hf.get("x y")
        assert run.status == "in_doubt" and run.error is not None and "InDoubt" in run.error
        (line,) = [each for each in caplog.records if "in doubt" in each.message]
        assert "x y" in line.message
        again = await ended(hf.run(one("pay"), id="x y"))
        assert isinstance(again, InDoubt) and again.key == error.key and effects == ["A"]

    in_memory(scene)


def test_a_refusal_is_an_ordinary_failure_and_is_tried_again() -> None:
    plan["A"] = [Refused(), Refused(), None]

    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(one("refusable"), id="x") == "paid A"
        assert [row.status for row in hf._store.load(1)] == [*["intent", "not_done"] * 2, "intent", "done"]
        plan["A"] = Refused("no")
        error = await ended(hf.run(one("refusable"), id="y"))
        assert isinstance(error, StepFailed) and (await hf.get("y")).status == "failed"
        plan["A"] = None
        assert await hf.run(one("refusable"), id="y") == "paid A"

    in_memory(scene)


def test_another_error_after_refusals_is_a_doubt() -> None:
    plan["A"] = [Refused(), OSError("gone")]

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(one("refusable"), id="x")), InDoubt)
        assert effects == ["A", "A"]

    in_memory(scene)


@pytest.mark.parametrize("failure", ["error", "timeout"])
def test_outside_may_settle_it(failure: str) -> None:
    plan["A"] = OSError() if failure == "error" else None
    plan["pause"] = 10 if failure == "timeout" else 0

    async def scene(hf: holdfast.Holdfast) -> None:
        plan["verify"] = "found"
        assert await hf.run(one("verified"), id="done") == "found"
        assert effects == ["A", "? A"]
        assert await hf.run(one("verified"), id="done") == "found" and effects == ["A", "? A"], "it is durable"
        plan["verify"] = NOT_DONE
        effects.clear()
        error = await ended(hf.run(one("verified"), id="not"))
        assert isinstance(error, StepFailed) and effects == ["A", "? A", "A", "? A"]
        assert error.error_type == ("OSError" if failure == "error" else "TimeoutError")
        plan["verify"] = LookupError("the bank is closed")
        effects.clear()
        doubt = await ended(hf.run(one("verified"), id="unsure"))
        assert isinstance(doubt, InDoubt) and "the bank is closed" in str(doubt) and effects == ["A", "? A"]
        plan["verify"] = "found later"
        assert await hf.run(one("verified"), id="unsure") == "found later" and effects == ["A", "? A", "? A"]

    in_memory(scene)


def test_our_own_timeout_is_no_refusal() -> None:
    """TimeoutError is an OSError: who declares that one did not say so of an attempt that was cut short."""

    @step(once=True, not_done=OSError, timeout=0.01)
    async def slow() -> None:
        effects.append("slow")
        await asyncio.sleep(10)

    @workflow(version="1")
    async def body() -> None:
        await slow()

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(body(), id="x")), InDoubt)

    in_memory(scene)


def test_a_result_that_cannot_be_stored_is_a_doubt() -> None:
    @step(once=True)
    async def odd() -> Any:
        effects.append("odd")
        return object()

    @step(once=True)
    async def odd_state() -> None:
        effects.append("odd state")
        holdfast.state["x"] = object()

    @workflow(version="1")
    async def body(which: str) -> None:
        try:
            await (odd() if which == "result" else odd_state())
        except CodecError:
            effects.append("gone past")

    async def scene(hf: holdfast.Holdfast) -> None:
        for which in ("result", "state"):
            doubt = await ended(hf.run(body(which), id=which))
            assert isinstance(doubt, InDoubt) and "CodecError" in str(doubt)
            assert isinstance(await ended(hf.run(body(which), id=which)), InDoubt)
        assert effects == ["odd", "odd state"]

    in_memory(scene)


# -- what must not be gone past ----------------------------------------------------------------------------


@workflow(version="1")
async def agent(tools: list[str]) -> list[str]:
    said = []
    for what in tools:
        try:
            said.append(await pay(what))
        except Exception as error:
            said.append(f"error: {error}")
    return said


def test_an_agent_that_catches_everything() -> None:
    plan["B"] = ConnectionError()

    async def scene(hf: holdfast.Holdfast) -> None:
        for _ in range(3):
            assert isinstance(await ended(hf.run(agent(["A", "B", "B", "C"]), id="x")), InDoubt)
        assert effects == ["A", "B"]

    in_memory(scene)


def test_an_agent_that_catches_even_what_is_no_exception() -> None:
    plan["A"] = OSError()

    @workflow(version="1")
    async def obstinate() -> str:
        for what in "ABC":
            try:
                await asyncio.gather(pay(what), return_exceptions=True)
            except BaseException:
                continue
        return "all is paid"

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(obstinate(), id="x")), InDoubt)
        assert effects == ["A"] and (await hf.get("x")).status == "in_doubt"

    in_memory(scene)


def test_a_cancelled_call_is_a_doubt() -> None:
    plan["gate A"] = asyncio.Event()

    @workflow(version="1")
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.01):
                await pay("A")
        except TimeoutError:
            return "went on"
        return "paid"

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(impatient(), id="x")), InDoubt)

    in_memory(scene)


def test_what_outside_tells_of_a_cancelled_call_is_its_outcome() -> None:
    plan.update(pause=10, verify="found")

    @workflow(version="1")
    async def impatient() -> Any:
        try:
            async with asyncio.timeout(0.01):
                found = await pay_verified("A")
                await asyncio.sleep(1)
                return found, "in time"
        except TimeoutError:
            return found, "late"

    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(impatient(), id="x") == ("found", "late")
        plan["verify"] = NOT_DONE
        with pytest.raises(UnboundLocalError):
            await hf.run(impatient(), id="y")
        assert [row.status for row in hf._store.load(2)] == ["intent", "not_done", "cancelled"]

    in_memory(scene)


def test_others_in_flight_come_to_their_end_first() -> None:
    plan["A"] = OSError()
    plan["gate B"] = asyncio.Event()

    @workflow(version="1")
    async def both() -> None:
        async def then(what: str) -> None:
            await pay(what)
            await pay(what + "2")

        await asyncio.gather(then("A"), then("B"))

    async def scene(hf: holdfast.Holdfast) -> None:
        running = asyncio.create_task(ended(hf.run(both(), id="x")))
        while effects != ["A"]:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert not running.done()
        plan["gate B"].set()
        doubt = await running
        assert isinstance(doubt, InDoubt) and doubt.inputs == {"what": "A"}
        assert effects == ["A", "B"], "and nothing begins behind it"
        assert [(row.status, row.branch[-1]) for row in hf._store.load(1)] == [
            ("intent", "0"),
            ("intent", "1"),
            ("done", "1"),
        ]

    in_memory(scene)


def test_a_program_that_returns_meanwhile() -> None:
    """A task that nobody awaits is let finish before the run is done; in doubt, the run is not done."""

    @workflow(version="1")
    async def careless() -> str:
        tasks.append(asyncio.create_task(pay("A")))
        await asyncio.sleep(0.01)
        return "done"

    tasks: list[Any] = []

    async def scene(hf: holdfast.Holdfast) -> None:
        plan["gate A"] = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, plan["gate A"].set)
        assert await hf.run(careless(), id="x") == "done" and effects == ["A"]
        assert [row.status for row in hf._store.load(1)] == ["intent", "done"]
        plan.clear()
        plan["A"] = OSError()
        assert isinstance(await ended(hf.run(careless(), id="y")), InDoubt)

    in_memory(scene)


def test_a_program_that_never_asks_again(tmp_path: Path) -> None:
    asks = [True]

    @workflow(version="1")
    async def fickle() -> str:
        return await pay("A") if asks[0] else "nothing to pay"

    async def scene(hf: holdfast.Holdfast) -> None:
        plan["A"] = OSError()
        await ended(hf.run(fickle(), id="x"))
        asks[0] = False
        doubt = await ended(hf.run(fickle(), id="x"))
        assert isinstance(doubt, InDoubt) and "ended without asking for it" in str(doubt)
        assert (await hf.get("x")).status == "in_doubt"

    in_memory(scene)


def test_sys_exit_in_the_step_is_a_doubt_at_once(tmp_path: Path) -> None:
    plan["A"] = SystemExit(3)

    async def main() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            await hf.run(one("pay"), id="x")

    with pytest.raises((SystemExit, InDoubt)):
        asyncio.run(main())
    store = open_store(tmp_path / "a.db")
    row = store.get("x")
    assert row is not None and row.status == "in_doubt", row
    store.close()


# -- stopped from outside ----------------------------------------------------------------------------------


def test_unloaded_while_it_is_in_flight(tmp_path: Path) -> None:
    async def scene() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            plan["gate A"] = asyncio.Event()
            running = asyncio.create_task(ended(hf.run(one("pay"), id="x")))
            while not (found := await hf.runs()) or not await hf.history(found[0].id):
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait({running})
            assert running.cancelled() and (await hf.get("x")).status == "running", "nothing is recorded of a Ctrl-C"
        async with holdfast.open(tmp_path / "a.db") as hf:
            doubt = await ended(hf.run(one("pay"), id="x"))
            assert isinstance(doubt, InDoubt) and effects == []

    asyncio.run(scene())


class Slow:
    """A store that takes its time over the commit of an intent."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked, self.may = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, batch: Batch) -> Any:
        if any(row.status == "intent" for row in batch.appends) and not self.asked.is_set():
            self.asked.set()
            assert self.may.wait(30)
        return self._store.commit(batch)


def test_unloaded_before_its_body_began(tmp_path: Path) -> None:
    """Ctrl-C while the intent is being committed: nothing has happened, and nobody need find out."""
    slow: Any = Slow(open_store(str(tmp_path / "a.db")))

    async def cut_off() -> None:
        async with holdfast.Holdfast(slow) as hf:
            running = asyncio.create_task(ended(hf.run(one("pay"), id="x")))
            await asyncio.to_thread(slow.asked.wait)
            running.cancel()
            await asyncio.sleep(0.05)
            slow.may.set()
            await asyncio.wait({running})
            assert running.cancelled() and effects == []

    async def resumed() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            assert await hf.run(one("pay"), id="x") == "paid A" and effects == ["A"]
            assert [row.status for row in hf._store.load(1)] == ["intent", "not_done", "intent", "done"]

    asyncio.run(cut_off())
    asyncio.run(resumed())


def test_a_worker_that_drains_gives_it_time(tmp_path: Path) -> None:
    async def scene() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            plan["gate A"] = asyncio.Event()
            await hf.submit(one("pay"), id="x")
            async with serving(hf._store):
                while not await hf.history("x"):
                    await asyncio.sleep(0.01)
                asyncio.get_running_loop().call_later(0.3, plan["gate A"].set)
            assert effects == ["A"] and [row.status for row in hf._store.load(1)] == ["intent", "done"]

    asyncio.run(scene())


# -- phrased differently -----------------------------------------------------------------------------------


def test_other_inputs_at_the_place_of_a_doubt() -> None:
    said = ["A"]

    @workflow(version="1")
    async def model() -> str:
        return await pay(said[0])

    async def scene(hf: holdfast.Holdfast) -> None:
        plan["A"] = OSError()
        await ended(hf.run(model(), id="x"))
        said[0] = "A, please"
        assert isinstance(await ended(hf.run(model(), id="x")), Diverged)
        said[0] = "A"
        assert isinstance(await ended(hf.run(model(), id="x")), InDoubt)
        assert effects == ["A"]

    in_memory(scene)


@pytest.mark.parametrize("outcome", ["done", "doubt"])
@pytest.mark.parametrize("shape", ["key", "branch"])
def test_another_place_than_that_of_what_took_effect(outcome: str, shape: str) -> None:
    """The model asks for the same under another key, or first of several tools."""

    @step(once=True, key=lambda what: what)
    async def pay_bill(what: str) -> str:
        return act(what)

    said: list[list[str]] = [["A"]]

    @workflow(version="1")
    async def model() -> None:
        async def tool(what: str) -> None:
            if what:
                await pay_bill(what)

        if shape == "key":
            for what in said[0]:
                await pay_bill(what)
        else:
            await asyncio.gather(*(tool(what) for what in said[0]))
        raise LookupError("the process ends here, say")

    async def scene(hf: holdfast.Holdfast) -> None:
        if outcome == "doubt":
            plan["A"] = OSError()
        with pytest.raises((LookupError, InDoubt)):
            await hf.run(model(), id="x")
        said[0] = ["A please"] if shape == "key" else ["", "A"]
        error = await ended(hf.run(model(), id="x"))
        assert isinstance(error, InDoubt if outcome == "doubt" else Diverged), error
        assert effects == ["A"]

    in_memory(scene)


# -- what calls what ---------------------------------------------------------------------------------------


def test_a_new_attempt_around_it_does_not_repeat_it() -> None:
    tries = [0]

    @step(attempts=3, backoff=0)
    async def order() -> str:
        receipt = await pay("A")
        tries[0] += 1
        if tries[0] < 3:
            raise ConnectionError("confirmation")
        return receipt

    @workflow(version="1")
    async def body() -> str:
        return await order()

    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(body(), id="x") == "paid A" and effects == ["A"] and tries == [3]

    in_memory(scene)


def test_a_new_attempt_around_it_that_phrases_it_differently() -> None:
    said = ["A", "A, please"]

    @step(attempts=2, backoff=0)
    async def turn() -> None:
        await pay(said.pop(0))
        raise ConnectionError

    @workflow(version="1")
    async def body() -> None:
        await turn()

    async def scene(hf: holdfast.Holdfast) -> None:
        assert isinstance(await ended(hf.run(body(), id="x")), Diverged) and effects == ["A"]

    in_memory(scene)


def test_one_inside_another() -> None:
    @step(once=True)
    async def outer() -> str:
        return await pay("A")

    @workflow(version="1")
    async def body() -> str:
        return await outer()

    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(body(), id="x") == "paid A"
        plan["A"] = OSError()
        doubt = await ended(hf.run(body(), id="y"))
        assert isinstance(doubt, InDoubt) and doubt.step == "pay"

    in_memory(scene)


def test_steps_are_refused_in_verify() -> None:
    async def verify_with_a_step(what: str) -> Any:
        return await pay(what)

    @step(once=True, verify=verify_with_a_step)
    async def careless(what: str) -> str:
        raise OSError(what)

    @workflow(version="1")
    async def body() -> str:
        return await careless("A")

    async def scene(hf: holdfast.Holdfast) -> None:
        doubt = await ended(hf.run(body(), id="x"))
        assert isinstance(doubt, InDoubt) and "was called in the verify=" in str(doubt) and effects == []

    in_memory(scene)


class Bank:
    name = "bank"

    async def look(self, what: str) -> Any:
        return f"{self.name}: {asked(what)}, {holdfast.idempotency_key()}"

    @step(once=True, verify=look)
    async def pay(self, what: str) -> str:
        act(what)
        return f"{self.name}: {holdfast.idempotency_key()}"


def test_methods_are_verified_on_their_object() -> None:
    plan.update(A=OSError(), verify="found")

    @workflow(version="1")
    async def body() -> list[str]:
        return [await Bank().pay("A"), await Bank().pay("B")]

    async def scene(hf: holdfast.Holdfast) -> None:
        first, second = await hf.run(body(), id="x")
        assert first.startswith("bank: found, ") and second.startswith("bank: ") and first[-32:] != second[-32:]

    in_memory(scene)


# -- plain def ---------------------------------------------------------------------------------------------


def plain_verify(what: str) -> Any:
    return f"{asked(what)} {holdfast.idempotency_key()}"


@step(once=True, verify=plain_verify)
def pay_in_thread(what: str) -> str:
    act(what)
    return f"paid {holdfast.idempotency_key()}"


@step(once=True, verify=verify)
def pay_in_thread_verified_on_the_loop(what: str) -> str:
    return act(what)


@workflow(version="1")
def plain(what: str) -> str:
    return pay_in_thread(what)


@workflow(version="1")
def plain_too(what: str) -> str:
    return pay_in_thread_verified_on_the_loop(what)


def test_plain_steps() -> None:
    async def scene(hf: holdfast.Holdfast) -> None:
        assert (await hf.run(plain.bind("A"), id="x")).startswith("paid ")
        plan.update(A=OSError(), verify="found")
        assert (await hf.run(plain.bind("A"), id="y")).startswith("found ")
        assert await hf.run(plain_too.bind("A"), id="z") == "found"
        plan["verify"] = NOT_DONE
        assert isinstance(await ended(hf.run(plain_too.bind("A"), id="w")), StepFailed)
        plan["verify"] = KeyError("who knows")
        assert isinstance(await ended(hf.run(plain_too.bind("A"), id="v")), InDoubt)

    in_memory(scene)


def test_a_thread_is_waited_for_whoever_cancels() -> None:
    import threading

    go = threading.Event()

    @step(once=True)
    def slow() -> str:
        go.wait(10)
        return act("A")

    @workflow(version="1")
    async def impatient() -> str:
        task = asyncio.create_task(asyncio.to_thread(slow))
        await asyncio.sleep(0.02)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go.set)
        return "went on"

    async def scene(hf: holdfast.Holdfast) -> None:
        assert await hf.run(impatient(), id="x") == "went on"
        assert [row.status for row in hf._store.load(1)] == ["intent", "done"] and effects == ["A"]

    in_memory(scene)


# -- the key -----------------------------------------------------------------------------------------------


def test_keys() -> None:
    keys: list[str] = []

    @step(attempts=2, backoff=0)
    async def ask(what: str) -> str:
        keys.append(holdfast.idempotency_key())
        if len(keys) == 1:
            raise ConnectionError
        return keys[-1]

    @workflow(version="1")
    async def body() -> None:
        await ask("A")
        await ask("A")
        await ask("B")
        with pytest.raises(NotInRun, match="belongs into the step"):
            holdfast.idempotency_key()

    async def scene(hf: holdfast.Holdfast) -> None:
        await hf.run(body(), id="x")
        assert keys[0] == keys[1] and len(set(keys)) == 3
        await hf.run(body(), id="y")
        assert len(set(keys)) == 6, "of another run"
        assert holdfast.idempotency_key() != holdfast.idempotency_key(), "outside"

    in_memory(scene)


# -- declared ----------------------------------------------------------------------------------------------


def _step(**options: Any) -> Any:
    async def thing(what: str) -> None: ...

    return step(**options)(thing)


async def _fine(what: str) -> None: ...


async def _other(which: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"once": True, "attempts": 2}, "needs not_done="),
        ({"verify": _fine}, "write once=True"),
        ({"not_done": OSError}, "write once=True"),
        ({"once": 1}, "True or False"),
        ({"once": True, "not_done": KeyboardInterrupt}, "not_done= must be an exception class"),
        ({"once": True, "not_done": [OSError]}, "not_done= must be an exception class"),
        ({"once": True, "verify": "ask"}, "verify= must be a plain function"),
        ({"once": True, "verify": pay}, "verify= must be a plain function"),
        ({"once": True, "verify": lambda what: None}, "must be an async def"),
        ({"once": True, "verify": _other}, "by the same names"),
    ],
)
def test_what_is_refused_where_it_is_declared(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        _step(**options)


def test_what_is_allowed() -> None:
    _step(once=True, attempts=3, not_done=(OSError, ValueError))
    _step(once=True, attempts=3, verify=_fine)
    _step(once=False)
    with pytest.raises(TypeError, match="unexpected option"):
        workflow(once=True)  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-q"]))
