"""What a workflow waits for: times, signals, and the runs it has begun."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest

import holdfast
from holdfast import (
    Cancelled,
    CodecError,
    Diverged,
    Holdfast,
    HoldfastError,
    Mismatch,
    NotFound,
    NotInRun,
    StepFailed,
    step,
    workflow,
)
from holdfast.store.memory import MemoryStore
from holdfast.testing import FakeClock


async def until(holds: Callable[[], Awaitable[Any]], seconds: float = 10) -> None:
    """Looks again and again; for what comes about by itself, in another thread or by the heartbeat."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


async def begun(hf: Holdfast, id: str, count: int = 1) -> None:
    """Until so many waits of a run have begun."""

    async def holds() -> bool:
        live = hf._live.get(id)
        return live is not None and live.run is not None and len(live.run.waits.live) >= count

    await until(holds)


async def rests(hf: Holdfast, id: str) -> bool:
    return hf._live[id].is_waiting


@asynccontextmanager
async def live(hf: Holdfast, call: Any, id: str, waits: int = 1) -> AsyncIterator[asyncio.Task[Any]]:
    run = asyncio.create_task(hf.run(call, id=id))
    await begun(hf, id, waits)
    yield run
    if not run.done():
        run.cancel()
        await asyncio.wait({run})


async def rows(hf: Holdfast, id: str) -> list[tuple[str, str, str, Any]]:
    return [(row.kind, row.name, row.status, row.result) for row in await hf.history(id) if row.kind != "save"]


did: list[str] = []


@step
async def note(what: str) -> str:
    did.append(what)
    return what


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    did.clear()


DAY = 86400.0


@workflow(version="1")
async def slow() -> str:
    began = holdfast.now()
    await note("before")
    await holdfast.sleep(3 * DAY)
    await note("behind")
    return str((holdfast.now() - began).days)


def test_a_sleep_ends_when_it_was_to_end_however_often_it_is_resumed(fake_clock: FakeClock) -> None:
    async def program() -> None:
        store = MemoryStore()
        for _ in range(3):
            async with holdfast.Holdfast(store) as hf:
                async with live(hf, slow(), "s") as run:
                    await until(lambda: rests(hf, "s"))
                    await fake_clock.advance(DAY - 1)
                    assert not run.done()
                assert (await hf.get("s")).status == "waiting"
                assert (await hf.get("s")).waiting_for is not None
            row = store.get("s")
            assert row is not None and row.due_ms == row.created_ms + 3 * DAY * 1000 and row.owner is None
        async with holdfast.Holdfast(store) as hf:
            async with live(hf, slow(), "s") as run:
                await fake_clock.advance(2)
                assert not run.done()
                await fake_clock.advance(2)
                assert await run == "3"
            assert did == ["before", "behind"]
            assert [row[:3] for row in await rows(hf, "s")] == [
                ("step", "note", "done"),
                ("sleep", "sleep", "waiting"),
                ("sleep", "sleep", "done"),
                ("step", "note", "done"),
            ]
            again = [row[:3] for row in await rows(hf, "s")]
            assert await hf.run(slow(), id="s") == "3" and [row[:3] for row in await rows(hf, "s")] == again

    asyncio.run(program())


@workflow(version="1")
async def loan(app_id: str) -> str:
    await note("asked")
    approved = await holdfast.wait_for("approval", bool, ask=f"pay {app_id}?")
    return f"{app_id} {'paid' if approved else 'refused'}"


def test_a_signal_is_what_wait_for_returns(hf_sqlite: Holdfast) -> None:
    hf = hf_sqlite

    async def program() -> None:
        async with live(hf, loan("A-17"), "a") as run:
            await until(lambda: is_told(hf, "a"))
            told = await hf.get("a")
            assert (told.status, told.waiting_for) == ("waiting", "approval")
            (wait,) = told.waits
            assert (wait.kind, wait.name, wait.ask, wait.until) == ("signal", "approval", "pay A-17?", None)
            await hf.send("a", "approval", True)
            assert await run == "A-17 paid"
        told = await hf.get("a")
        assert (told.status, told.waiting_for, told.waits) == ("done", None, ())
        assert (await rows(hf, "a"))[1:] == [
            ("signal", "approval", "waiting", (await rows(hf, "a"))[1][3]),
            ("signal", "approval", "done", True),
        ]
        assert await hf.run(loan("A-17"), id="a") == "A-17 paid" and did == ["asked"]
        await hf.aclose()

    asyncio.run(program())


async def is_told(hf: Holdfast, id: str) -> bool:
    return (await hf.get(id)).status == "waiting"


def test_a_run_that_goes_on_is_running_again(hf: Holdfast) -> None:
    gate = asyncio.Event()

    @step
    async def work() -> None:
        await gate.wait()

    @workflow(version="1")
    async def waits_and_works() -> None:
        await holdfast.wait_for("go", bool)
        await work()

    async def program() -> None:
        async with live(hf, waits_and_works(), "a") as run:
            await until(lambda: is_told(hf, "a"))
            await hf.send("a", "go", True)

            async def runs() -> bool:
                return (await hf.get("a")).status == "running"

            await until(runs)
            gate.set()
            await run
        await hf.aclose()

    asyncio.run(program())


@workflow(version="1")
async def agent(turns: int) -> list[str]:
    heard = []
    for _ in range(turns):
        message = await holdfast.wait_for("message", str)
        heard.append(await note(message))
    return heard


def test_mail_is_kept_if_sent_early_and_first_in_is_first_out(hf_sqlite: Holdfast) -> None:
    hf = hf_sqlite

    async def program() -> None:
        async with live(hf, agent(5), "a"):
            await hf.send("a", "message", "1")
            await until(lambda: some_done(1))
        for text in ("2", "3", "4"):
            await hf.send("a", "message", text)  # nobody advances it now
        await hf.send("a", "other", "noise")
        async with live(hf, agent(5), "a") as run:
            await until(lambda: some_done(4))
            await hf.send("a", "message", "5")
            assert await run == ["1", "2", "3", "4", "5"]
        assert did == ["1", "2", "3", "4", "5"]
        await hf.aclose()

    async def some_done(count: int) -> bool:
        return len(did) >= count

    asyncio.run(program())


def test_a_key_makes_sending_again_harmless(hf: Holdfast) -> None:
    async def program() -> None:
        async with live(hf, agent(2), "a") as run:
            for text, key in (("1", "k1"), ("1", "k1"), ("2", "k2")):
                await hf.send("a", "message", text, key=key)
            assert await run == ["1", "2"]
        await hf.aclose()

    asyncio.run(program())


def test_waits_of_one_name_are_served_in_the_order_they_were_made(hf: Holdfast) -> None:
    @workflow(version="1")
    async def three() -> list[str]:
        return await asyncio.gather(*(holdfast.wait_for("m", str) for _ in range(3)))

    async def program() -> None:
        async with live(hf, three(), "a", 3):
            await hf.send("a", "m", "1")
            await until(lambda: ended(hf, "a", 1))
        await hf.send("a", "m", "2")
        await hf.send("a", "m", "3")
        assert await hf.run(three(), id="a") == ["1", "2", "3"]
        await hf.aclose()

    asyncio.run(program())


async def ended(hf: Holdfast, id: str, count: int) -> bool:
    return sum(row.status == "done" for row in await hf.history(id)) >= count


def test_a_signal_from_another_process_arrives(hf_sqlite: Holdfast) -> None:
    """Another Holdfast on the same file: nothing tells this one but the file."""
    hf = hf_sqlite

    async def program() -> None:
        async with live(hf, loan("A"), "a") as run, holdfast.open(hf.url) as other:
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await other.send("a", "approval", False)
            assert await run == "A refused" and time.monotonic() - began < 1
        await hf.aclose()

    asyncio.run(program())


@workflow(version="1")
async def patient(timeout: float) -> str:
    try:
        return await holdfast.wait_for("word", str, timeout=timeout)
    except TimeoutError as late:
        await note(str(late))
        return "nobody came"


def test_a_timeout_is_recorded_and_comes_again(fake_clock: FakeClock) -> None:
    async def program() -> None:
        store = MemoryStore()
        async with holdfast.Holdfast(store) as hf, live(hf, patient(60), "a"):
            await fake_clock.advance(40)
        async with holdfast.Holdfast(store) as hf:
            async with live(hf, patient(60), "a") as run:
                await fake_clock.advance(19)
                assert not run.done()
                await fake_clock.advance(2)
                assert await run == "nobody came"
            assert did == ["no signal 'word' came within 60 s"]
            assert await hf.run(patient(60), id="a") == "nobody came"
            assert ("signal", "word", "failed", None) in await rows(hf, "a")

    asyncio.run(program())


def test_a_timeout_recalled_in_a_run_that_goes_on(fake_clock: FakeClock) -> None:
    @workflow(version="1")
    async def twice() -> str:
        try:
            await holdfast.wait_for("word", str, timeout=60)
        except TimeoutError as late:
            told = str(late)
        return told + await holdfast.wait_for("other", str)

    async def program() -> None:
        store = MemoryStore()
        async with holdfast.Holdfast(store) as hf, live(hf, twice(), "a"):
            await fake_clock.advance(61)
            await until(lambda: ended_badly(hf))
            await hf.send("a", "word", "too late")
        async with holdfast.Holdfast(store) as hf, live(hf, twice(), "a") as run:
            await hf.send("a", "other", "!")
            assert await run == "no signal 'word' came within 60 s!"

    async def ended_badly(hf: Holdfast) -> bool:
        return any(row.status == "failed" for row in await hf.history("a"))

    asyncio.run(program())


def test_what_was_sent_in_time_is_in_time_although_nobody_looked(fake_clock: FakeClock) -> None:
    async def program() -> None:
        store = MemoryStore()
        async with holdfast.Holdfast(store) as hf:
            async with live(hf, patient(60), "early"):
                pass
            async with live(hf, patient(60), "late"):
                pass
            await fake_clock.advance(59)
            await hf.send("early", "word", "in time")
            await fake_clock.advance(2)
            await hf.send("late", "word", "too late")
            assert await hf.run(patient(60), id="early") == "in time"
            assert await hf.run(patient(60), id="late") == "nobody came"

    asyncio.run(program())


def test_a_timeout_that_ended_the_run_is_waited_for_anew(fake_clock: FakeClock) -> None:
    @workflow(version="1")
    async def strict() -> str:
        return await holdfast.wait_for("word", str, timeout=60)

    async def program() -> None:
        store = MemoryStore()
        async with holdfast.Holdfast(store) as hf:
            async with live(hf, strict(), "a") as run:
                await fake_clock.advance(61)
                with pytest.raises(TimeoutError, match="no signal 'word' came within 60 s"):
                    await run
            assert (await hf.get("a")).status == "failed"
            await hf.send("a", "word", "at last")  # a failed run still takes mail
            assert await hf.run(strict(), id="a") == "at last"
        async with holdfast.Holdfast(MemoryStore()) as hf:
            for _ in range(2):
                async with live(hf, strict(), "a") as run:
                    await fake_clock.advance(59)
                    assert not run.done()
                    await fake_clock.advance(2)
                    with pytest.raises(TimeoutError):
                        await run

    asyncio.run(program())


def test_waits_end_in_the_order_of_their_times(fake_clock: FakeClock) -> None:
    order: list[int] = []

    @workflow(version="1")
    async def sorting() -> list[int]:
        async def one(n: int) -> None:
            await holdfast.sleep(n)
            order.append(n)

        await asyncio.gather(one(30), one(10), one(20))
        return order

    async def program() -> None:
        store = MemoryStore()
        async with holdfast.Holdfast(store) as hf, live(hf, sorting(), "a", 3):
            await fake_clock.advance(1)
        await fake_clock.advance(100)  # all are over when the run is resumed
        async with holdfast.Holdfast(store) as hf:
            order.clear()
            assert await hf.run(sorting(), id="a") == [10, 20, 30]

    asyncio.run(program())


# -- what is no such value -------------------------------------------------------------------------------------


@dataclass
class Verdict:
    by: str
    ok: bool = False


async def told_in_rows(hf: Holdfast, id: str, status: str) -> bool:
    return any(row.status == status for row in await hf.history(id))


@pytest.mark.parametrize(
    ("wanted", "wrong", "named"),
    [
        (bool, "yes", "a bool"),
        (int, True, "an int"),
        (str, None, "a str"),
        (list[str], ["a", 1], r"a list\[str\]"),
        (dict[str, int], [1], r"a dict\[str, int\]"),
        (Literal["yes", "no"], "maybe", r"a Literal\['yes', 'no'\]"),
        (int | None, "x", r"an int \| None"),
    ],
)
def test_the_wrong_type_is_refused_where_that_can_be_told(hf: Holdfast, wanted: Any, wrong: Any, named: str) -> None:
    @workflow(version="1")
    async def waiting() -> str:
        return str(await holdfast.wait_for("v", wanted))

    async def program() -> None:
        async with live(hf, waiting(), "a") as run:
            for _ in range(2):
                with pytest.raises(
                    CodecError, match=f"run 'a' waits for 'v', {named}, and .* is none. Nothing was sent"
                ):
                    await hf.send("a", "v", wrong)
            row = hf._store.get("a")
            assert row is not None and hf._store.signals(row.no) == [] and not run.done()
            await hf.send("a", "unknown", wrong)  # nobody waits for that yet, so nobody can tell
        await hf.aclose()

    asyncio.run(program())


def test_the_wrong_type_is_set_aside_where_nobody_could_tell(hf: Holdfast, caplog: pytest.LogCaptureFixture) -> None:
    @workflow(version="1")
    async def waiting() -> Verdict:
        return await holdfast.wait_for("v", Verdict)

    async def program() -> None:
        async with live(hf, waiting(), "a"):
            await hf.send("a", "v", {"by": "eve", "ok": "perhaps"})
            await until(lambda: told_in_rows(hf, "a", "refused"))
        async with live(hf, waiting(), "a") as run:  # it is not looked at again
            await hf.send("a", "v", {"by": "ada", "ok": True})  # as the command line would send it
            assert await run == Verdict("ada", True)
        story = await rows(hf, "a")
        assert [row[2] for row in story] == ["waiting", "refused", "done"]
        assert "signal 'v' (number 1) is not a Verdict: Expected `bool`, got `str` - at `$.ok`" in story[1][3]["why"]
        assert caplog.text.count("is set aside") == 1
        row = hf._store.get("a")
        assert row is not None and len(hf._store.signals(row.no)) == 2  # nothing is lost
        assert await hf.run(waiting(), id="a") == Verdict("ada", True)
        await hf.aclose()

    asyncio.run(program())


@pytest.mark.parametrize("change", [{"value": b"\xa3on"}, {"n": 1 - 2**63}, {"n": 1 + 2**62}], ids=repr)
def test_a_damaged_signal_is_set_aside_and_named(change: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        store = MemoryStore()
        async with Holdfast(store) as hf:
            async with live(hf, agent(2), "a"):
                pass
            await hf.send("a", "message", "one")
            await hf.send("a", "message", "two")
            signal = store._data.signals[1][0]
            for name, value in change.items():
                setattr(signal, name, value)
            async with live(hf, agent(2), "a") as run:
                await hf.send("a", "message", "three")
                assert await asyncio.wait_for(run, 20) == ["two", "three"]
            told = f"signal 'message' (number {signal.n}) was damaged since it was sent"
            assert caplog.text.count(told) == 1

    asyncio.run(program())


def test_values_keep_their_types(hf: Holdfast) -> None:
    @workflow(version="1")
    async def waiting() -> list[Verdict]:
        first = await holdfast.wait_for("v", Verdict)
        rest = await holdfast.wait_for("list", list[Verdict])
        await holdfast.wait_for("end", str)
        return [first, *rest]

    async def program() -> None:
        async with live(hf, waiting(), "a"):
            await hf.send("a", "v", Verdict("ada", True))
            await hf.send("a", "list", [Verdict("bob"), {"by": "cyd"}])
            await until(lambda: ended(hf, "a", 2))
        await hf.send("a", "end", "")
        assert await hf.run(waiting(), id="a") == [Verdict("ada", True), Verdict("bob"), Verdict("cyd")]
        with pytest.raises(CodecError, match="the signal 'v' cannot be stored: it is of type object"):
            await hf.send("a", "v", object())
        await hf.aclose()

    asyncio.run(program())


def test_where_nothing_can_be_sent(hf: Holdfast) -> None:
    async def program() -> None:
        with pytest.raises(NotFound, match="there is no run 'nobody' to send to"):
            await hf.send("nobody", "x", 1)
        await hf.start(agent(1), id="done")
        await hf.send("done", "message", "x", key="k")
        await hf.run(agent(1), id="done")
        await hf.send("done", "message", "x", key="k")  # whoever was not answered sends again, and it was sent
        with pytest.raises(
            HoldfastError, match=r"run 'done' is done and takes no more signals. Signal 'x' was not sent"
        ):
            await hf.send("done", "x", 1)
        async with live(hf, agent(1), "gone"):
            await hf.cancel("gone")
        with pytest.raises(Cancelled, match="Signal 'x' was not sent"):
            await hf.send("gone", "x", 1)
        async with hf.session("session"):
            pass
        with pytest.raises(HoldfastError, match="is a session, which takes no signals"):
            await hf.send("session", "x", 1)
        for wrong in ("", 5, "a\nb"):
            with pytest.raises(TypeError, match="send"):
                await hf.send("done", wrong, 1)  # type: ignore[arg-type]
        await hf.aclose()

    asyncio.run(program())


# -- where there is no run -------------------------------------------------------------------------------------


def test_outside_of_a_run(fake_clock: FakeClock) -> None:
    async def program() -> None:
        slept = asyncio.create_task(holdfast.sleep(5))
        await fake_clock.sleepers(1)
        await fake_clock.advance(5)
        await slept
        with pytest.raises(NotInRun, match=r"there is no run here. To test .* holdfast.testing"):
            holdfast.wait_for("x", bool)
        for unfit in (-1, float("nan"), float("inf"), 1e12):
            with pytest.raises(ValueError, match="takes seconds from 0"):
                holdfast.sleep(unfit)
        with pytest.raises(TypeError, match="takes seconds"):
            holdfast.sleep("3")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the type of the value"):
            holdfast.wait_for("x", 5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the name of a signal"):
            holdfast.wait_for(bool, "x")  # type: ignore[arg-type]

    asyncio.run(program())


def test_in_a_step(hf: Holdfast) -> None:
    @step
    async def naps() -> str:
        await holdfast.sleep(0.001)
        try:
            await holdfast.wait_for("x", bool)
        except NotInRun as error:
            return str(error)
        return ""

    @workflow(version="1")
    async def napping() -> str:
        return await naps()

    async def program() -> None:
        assert "belongs in the workflow" in await hf.run(napping(), id="a")
        assert [row[0] for row in await rows(hf, "a")] == ["step"]
        await hf.aclose()

    asyncio.run(program())


def test_a_wait_that_is_never_awaited_warns(hf: Holdfast) -> None:
    @workflow(version="1")
    async def forgetful() -> None:
        holdfast.wait_for("x", bool)

    async def program() -> None:
        with pytest.warns(RuntimeWarning, match=r"wait_for\('x'\) was called but never awaited"):
            await hf.run(forgetful(), id="a")
        await hf.aclose()

    asyncio.run(program())


def test_another_time_at_the_same_place_diverges(fake_clock: FakeClock) -> None:
    seconds = [60]

    @workflow(version="1")
    async def changing() -> None:
        await holdfast.sleep(seconds[0])

    async def program() -> None:
        async with Holdfast(MemoryStore()) as hf:
            async with live(hf, changing(), "a"):
                pass
            seconds[0] = 30
            with pytest.raises(Diverged, match=r"call 0 of sleep\(\) was recorded with other inputs\."):
                await hf.run(changing(), id="a")

    asyncio.run(program())


# -- cancellation, scopes, threads -----------------------------------------------------------------------------


def test_a_wait_the_program_cancels_is_recorded_as_that(hf: Holdfast) -> None:
    @workflow(version="1")
    async def impatient() -> str:
        task = asyncio.create_task(holdfast.wait_for("x", str))  # type: ignore[arg-type]
        await note("a")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        return await holdfast.wait_for("x", str)

    async def program() -> None:
        async with live(hf, impatient(), "a"):
            await until(lambda: told_in_rows(hf, "a", "cancelled"))
            await begun(hf, "a")
        await hf.send("a", "x", "!")
        assert await hf.run(impatient(), id="a") == "!"
        assert [row[2] for row in await rows(hf, "a") if row[0] == "signal"].count("cancelled") == 1
        await hf.aclose()

    asyncio.run(program())


def test_a_signal_meant_for_a_wait_that_is_cancelled_goes_to_the_next(hf: Holdfast) -> None:
    """It came, and before the workflow heard of it its own code gave the wait up."""

    @workflow(version="1")
    async def fickle() -> str:
        run = hf._live["a"].run
        assert run is not None
        hand_out = run.waits._hand_out

        def and_cancel(name: str) -> None:
            hand_out(name)
            if any(wait.signal is not None for wait in run.waits.live):
                run.waits._hand_out = hand_out  # type: ignore[method-assign]
                task.cancel()

        run.waits._hand_out = and_cancel  # type: ignore[method-assign]
        task = asyncio.create_task(holdfast.wait_for("x", str))  # type: ignore[arg-type]
        try:
            return "lost: " + await task
        except asyncio.CancelledError:
            return await holdfast.wait_for("x", str)

    async def program() -> None:
        async with live(hf, fickle(), "a") as run:
            await hf.send("a", "x", "!")
            assert await asyncio.wait_for(run, 10) == "!"
        assert [row[2] for row in await rows(hf, "a") if row[0] == "signal"] == [
            "waiting",
            "cancelled",
            "waiting",
            "done",
        ]
        await hf.aclose()

    asyncio.run(program())


def test_waits_in_nested_workflows(hf: Holdfast) -> None:
    @workflow(version="1")
    async def inner(n: int) -> str:
        await holdfast.sleep(0)
        return await holdfast.wait_for("x", str)

    @workflow(version="1")
    async def outer() -> list[str]:
        return [await inner(1), await inner(2)]

    async def program() -> None:
        async with live(hf, outer(), "a"):
            await hf.send("a", "x", "1")
            await until(lambda: told_in_rows(hf, "a", "done"))
        await hf.send("a", "x", "2")
        assert await hf.run(outer(), id="a") == ["1", "2"]
        assert {row.scope for row in await hf.history("a")} == {"", *(f"{inner_name}#{n}" for n in (0, 1))}
        await hf.aclose()

    inner_name = "test_waits_in_nested_workflows.<locals>.inner"
    asyncio.run(program())


@workflow(version="1")
def plain(name: str) -> str:
    hf = holdfast.current()
    hf.wait(holdfast.sleep(0.01))
    told = hf.wait(holdfast.wait_for("word", str))
    try:
        hf.wait(holdfast.wait_for("never", str, timeout=0.01))
    except TimeoutError:
        told += "…"
    return f"{name}: {told} {hf.wait(hf.run(square(3), id='square'))}"


@workflow(version="1")
async def square(n: int) -> int:
    await note(f"square {n}")
    return n * n


def test_plain_def_workflows_wait_too(hf_sqlite: Holdfast) -> None:
    hf = hf_sqlite

    async def program() -> None:
        async with live(hf, plain.bind("p"), "a"):
            await until(lambda: ended(hf, "a", 1))
            await until(lambda: is_told(hf, "a"))
        await hf.send("a", "word", "so")
        assert await hf.run(plain.bind("p"), id="a") == "p: so… 9"
        assert await hf.run(plain.bind("p"), id="a") == "p: so… 9" and did == ["square 3"]
        await hf.aclose()

    asyncio.run(program())


def test_plain_def_programs() -> None:
    with holdfast.open("memory://") as hf:
        hf.wait(hf.start(plain.bind("p"), id="a"))
        hf.wait(hf.send("a", "word", "so"))
        assert hf.wait(hf.run(plain.bind("p"), id="a")) == "p: so… 9"


# -- children --------------------------------------------------------------------------------------------------


@workflow(version="1")
async def family(count: int) -> list[str]:
    hf = holdfast.current()
    answers = await asyncio.gather(*(hf.run(square(n), id=f"child-{n}") for n in range(count)))
    return [str(answer) for answer in answers]


def test_children_are_runs_of_their_own(hf_sqlite: Holdfast) -> None:
    hf = hf_sqlite

    async def program() -> None:
        assert await hf.run(family(3), id="p") == ["0", "1", "4"]
        parent = hf._store.get("p")
        assert parent is not None
        for n in range(3):
            row = hf._store.get(f"child-{n}")
            assert row is not None and row.parent_no == parent.no and row.status == "done"
        story = await hf.history("p")
        assert [(row.kind, row.key, row.status) for row in story[3:]] == [
            ("run", f"child-{n}", "done") for n in range(3)
        ]
        assert await hf.run(family(3), id="p") == ["0", "1", "4"] and did == ["square 0", "square 1", "square 2"]
        with pytest.raises(Mismatch):
            await hf.run(square(7), id="child-1")
        await hf.aclose()

    asyncio.run(program())


def test_the_child_s_result_is_recalled_without_touching_the_child() -> None:
    @workflow(version="1")
    async def two() -> str:
        first = await holdfast.current().run(square(2), id="c")
        return f"{first} {await holdfast.wait_for('go', str)}"

    async def program() -> None:
        store = MemoryStore()
        async with Holdfast(store) as hf:
            async with live(hf, two(), "p"):
                await until(lambda: ended(hf, "p", 1))
            del store._data.numbers["c"]  # it is not there any more
            await hf.send("p", "go", "!")
            assert await hf.run(two(), id="p") == "4 !" and did == ["square 2"]

    asyncio.run(program())


def test_a_child_s_failure_is_step_failed(hf: Holdfast) -> None:
    fails = [True]

    @step
    async def pay() -> str:
        if fails[0]:
            raise LookupError("no account")
        return "paid"

    @workflow(version="1")
    async def paying() -> str:
        return await pay()

    @workflow(version="1")
    async def careful() -> str:
        try:
            return await holdfast.current().run(paying(), id="c")
        except StepFailed as failure:
            await note(f"{failure.error_type}: {failure.message}")
            return await holdfast.wait_for("go", str)

    @workflow(version="1")
    async def careless() -> str:
        return await holdfast.current().run(paying(), id="c2")

    async def program() -> None:
        async with live(hf, careful(), "p"):
            await until(lambda: ended(hf, "p", 1))
        with pytest.raises(StepFailed, match="no account"):
            await hf.run(careless(), id="p2")
        fails[0] = False
        await hf.send("p", "go", "on")
        assert await hf.run(careful(), id="p") == "on"  # it went on past that failure: that is history
        assert did == ["LookupError: no account"]
        assert (await hf.get("c")).status == "failed"
        assert await hf.run(careless(), id="p2") == "paid"  # it ended the run: the child is tried anew
        await hf.aclose()

    asyncio.run(program())


def test_a_cancelled_child_is_step_failed(hf: Holdfast) -> None:
    @workflow(version="1")
    async def waiting() -> str:
        return await holdfast.wait_for("x", str)

    @workflow(version="1")
    async def parent() -> str:
        try:
            return await holdfast.current().run(waiting(), id="c")
        except StepFailed as failure:
            return failure.error_type

    async def program() -> None:
        async with live(hf, parent(), "p") as run:
            await begun(hf, "c")
            await hf.cancel("c")
            assert await run == "Cancelled"
        assert await hf.run(parent(), id="p") == "Cancelled"
        await hf.aclose()

    asyncio.run(program())


def test_cancel_of_the_parent_reaches_its_children_and_theirs(hf_sqlite: Holdfast) -> None:
    hf = hf_sqlite

    @workflow(version="1")
    async def grandchild() -> str:
        return await holdfast.wait_for("x", str)

    @workflow(version="1")
    async def child() -> str:
        return await holdfast.current().run(grandchild(), id="g")

    @workflow(version="1")
    async def parent() -> str:
        return await holdfast.current().run(child(), id="c")

    async def program() -> None:
        async with live(hf, parent(), "p") as run:
            await begun(hf, "g")
            began = time.monotonic()
            await hf.cancel("p")
            with pytest.raises(Cancelled):
                await run
            assert time.monotonic() - began < 1
            await until(nothing_lives)
        for id in "pcg":
            assert (await hf.get(id)).status == "cancelled"
        await hf.aclose()

    async def nothing_lives() -> bool:
        return not hf._live

    asyncio.run(program())


def test_one_id_in_two_places(hf: Holdfast) -> None:
    @workflow(version="1")
    async def twice(other: int) -> list[Any]:
        run = holdfast.current().run
        both = [run(square(2), id="c"), run(square(other), id="c")]
        return await asyncio.gather(*both, return_exceptions=True)

    async def program() -> None:
        assert await hf.run(twice(2), id="same") == [4, 4]
        with pytest.raises(Mismatch):
            await hf.run(raising(), id="other")
        assert did == ["square 2"]
        await hf.aclose()

    @workflow(version="1")
    async def raising() -> None:
        await holdfast.current().run(square(5), id="c")

    asyncio.run(program())


def test_a_run_begun_in_a_step_is_a_plain_run(hf: Holdfast) -> None:
    @step
    async def begins() -> int:
        return await holdfast.current().run(square(3), id="c")

    @workflow(version="1")
    async def outer() -> int:
        return await begins()

    async def program() -> None:
        assert await hf.run(outer(), id="a") == 9
        row = hf._store.get("c")
        assert row is not None and row.parent_no is None
        assert [row[0] for row in await rows(hf, "a")] == ["step"]
        await hf.aclose()

    asyncio.run(program())


def test_a_thousand_children(hf_sqlite: Holdfast, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    hf = hf_sqlite

    async def program() -> None:
        assert await hf.run(family(1000), id="p") == [str(n * n) for n in range(1000)]
        await hf.aclose()

    asyncio.run(program())
