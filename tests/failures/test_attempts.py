"""Promise 7: failures are history too; what is tried again, and what is not."""

from __future__ import annotations

import asyncio
import statistics
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Cancelled, StepFailed, clock, step, workflow

ran: list[Any] = []
failing: set[Any] = set()


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()
    failing.clear()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else str(tmp_path / "jobs.db")


class Instant(clock.Clock):
    """Sleeping takes no time, and is written down."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@contextmanager
def instant() -> Iterator[Instant]:
    time = Instant()
    with clock.replaced_by(time):
        yield time


@step
async def work(name: str) -> str:
    ran.append(name)
    await asyncio.sleep(0)
    if name in failing:
        raise LookupError(f"no {name}")
    return name


async def statuses(hf: holdfast.Holdfast, id: str) -> list[tuple[str, str, int]]:
    return [(each.name.rpartition(".")[2], each.status, each.attempts) for each in await hf.history(id)]


# -- attempts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("needed", [1, 2, 3, 4])
def test_attempts(url: str, needed: int, threaded: bool) -> None:
    def attempt() -> int:
        ran.append("attempt")
        holdfast.state[f"try {len(ran)}"] = True
        if len(ran) < needed:
            raise ConnectionError(f"try {len(ran)}")
        return len(ran)

    @step(attempts=3)
    async def flaky() -> int:
        return attempt()

    @step(attempts=3)
    def plain_flaky() -> int:
        return attempt()

    @workflow
    async def plan() -> int:
        return await (asyncio.to_thread(plain_flaky) if threaded else flaky())

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with instant() as time:
                if needed == 4:
                    with pytest.raises(StepFailed) as told:
                        await hf.run(plan(), id="a")
                    assert (told.value.error_type, told.value.message) == ("ConnectionError", "try 3")
                else:
                    assert await hf.run(plan(), id="a") == needed
            tried = min(needed, 3)
            assert len(ran) == tried and len([each for each in time.slept if each > 0.2]) == tried - 1
            [row] = await hf.history("a")
            assert (row.attempts, row.status) == (tried, "failed" if needed == 4 else "done")
            # a failed attempt leaves nothing behind, and neither does a failed step
            assert (row.delta is None) if needed == 4 else (f"try {needed}" in str(row.delta))
            assert all(f"try {number}" not in str(row.delta) for number in range(1, needed))

    asyncio.run(program())


@pytest.mark.parametrize(
    ("retry_on", "raised", "tried"),
    [
        (ConnectionError, ConnectionResetError, 3),
        (ConnectionError, ValueError, 1),
        ((ConnectionError, ValueError), ValueError, 3),
        ((), ValueError, 1),
        (Exception, KeyError, 3),
        (TimeoutError, TimeoutError, 3),
    ],
)
def test_retry_on(retry_on: Any, raised: type[Exception], tried: int) -> None:
    @step(attempts=3, retry_on=retry_on)
    async def flaky() -> None:
        ran.append("attempt")
        raise raised("no")

    @workflow
    async def plan() -> None:
        await flaky()

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with instant(), pytest.raises(StepFailed) as told:
                await hf.run(plan(), id="a")
            assert told.value.error_type == raised.__name__
            assert (await hf.history("a"))[0].attempts == tried

    asyncio.run(program())
    assert len(ran) == tried


def test_backoff_doubles_with_jitter_up_to_a_minute() -> None:
    @step(attempts=1200, backoff=0.5)
    async def flaky() -> None:
        raise ConnectionError

    @workflow
    async def plan() -> None:
        await flaky()

    async def program() -> list[float]:
        async with holdfast.open("memory://") as hf:
            with instant() as time, pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            return time.slept

    slept = asyncio.run(program())
    assert len(slept) == 1199
    for number, seconds in enumerate(slept):
        most = min(60.0, 0.5 * 2.0 ** min(number, 20))
        assert most / 2 <= seconds <= most, number
    long = slept[20:]
    assert 43 < statistics.mean(long) < 47 and statistics.pstdev(long) > 5


def test_no_backoff() -> None:
    @step(attempts=3, backoff=0)
    async def flaky() -> None:
        ran.append("attempt")
        raise ConnectionError

    @workflow
    async def plan() -> None:
        await flaky()

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with instant() as time, pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            assert set(time.slept) <= {0.0}

    asyncio.run(program())
    assert len(ran) == 3


def test_a_timeout_is_for_each_attempt(url: str) -> None:
    @step(attempts=3, timeout=0.05, backoff=0)
    async def slow() -> int:
        ran.append("attempt")
        await asyncio.sleep(10 if len(ran) < 3 else 0)
        return len(ran)

    @step(timeout=0.02)
    async def slower() -> None:
        await asyncio.sleep(10)

    @workflow
    async def plan() -> list[Any]:
        found: list[Any] = [await slow()]
        try:
            await slower()
        except StepFailed as failure:
            found += [failure.error_type, type(failure.__cause__)]
        return found

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(holdfast.CodecError):  # of the type in the result; what came before it counts
                await hf.run(plan(), id="a")
            assert [(each.status, each.attempts) for each in await hf.history("a")] == [("done", 3), ("failed", 1)]
            assert (await hf.history("a"))[1].error == "TimeoutError: an attempt took longer than timeout=0.02 s"

    asyncio.run(program())


def test_a_timeout_of_the_workflow_around_attempts_wins() -> None:
    @step(attempts=1000, backoff=60)
    async def flaky() -> None:
        ran.append("attempt")
        raise ConnectionError

    @workflow
    async def plan() -> str:
        try:
            await asyncio.wait_for(flaky(), 0.05)
        except TimeoutError:
            return "timed out"
        return ""

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await asyncio.wait_for(hf.run(plan(), id="a"), 5) == "timed out"
            assert await statuses(hf, "a") == [("flaky", "cancelled", 1)]

    asyncio.run(program())
    assert ran == ["attempt"]


# -- what is raised ----------------------------------------------------------------------------------------------


class OwnError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


def test_step_failed_live_and_recalled(url: str) -> None:
    told: list[StepFailed] = []

    @step
    async def bad(code: int) -> None:
        ran.append("bad")
        raise OwnError(code)

    @workflow(version="1")
    async def plan() -> str:
        try:
            await bad(7)
        except StepFailed as failure:
            told.append(failure)
        return await work("after")

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("after")
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            failing.clear()
            assert await hf.run(plan(), id="a") == "after"

    asyncio.run(program())
    assert ran == ["bad", "after", "after"]  # what the workflow went on past is recalled
    live, recalled = told
    for each in told:
        assert type(each) is StepFailed
        assert each.step == test_step_failed_live_and_recalled.__name__ + ".<locals>.bad"
        assert (each.error_type, each.message, each.seq) == (f"{__name__}.OwnError", "code 7", 1)
        assert str(each) == f"{each.step} failed with {__name__}.OwnError: code 7"
    assert isinstance(live.__cause__, OwnError) and live.__cause__.code == 7
    assert "raise OwnError(code)" in "".join(traceback.format_exception(live))
    assert recalled.__cause__ is None and recalled.__context__ is None


def test_the_failure_of_a_plain_step_is_told_the_same_way(url: str) -> None:
    told: list[StepFailed] = []

    @step
    def bad() -> None:
        raise OwnError(7)

    @workflow(version="1")
    def plan() -> None:
        try:
            bad()
        except StepFailed as failure:
            told.append(failure)
        if failing:
            raise RuntimeError

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("plan")
            with pytest.raises(RuntimeError):
                await hf.run(plan.bind(), id="a")
            failing.clear()
            await hf.run(plan.bind(), id="a")

    asyncio.run(program())
    live, recalled = told
    assert (live.error_type, live.message) == (recalled.error_type, recalled.message)
    assert isinstance(live.__cause__, OwnError) and recalled.__cause__ is None


def test_outside_a_run_the_original_is_raised() -> None:
    failing.add("a")
    with pytest.raises(LookupError, match="no a"):
        asyncio.run(work("a"))  # type: ignore[arg-type]


def test_a_step_that_raises_holdfasts_own_errors(url: str) -> None:
    """``StepFailed`` of an inner run, or ``Cancelled``, in a step are failures of the step like any other."""

    @step
    async def asks_for_another() -> None:
        raise Cancelled("another run was cancelled")

    @workflow
    async def plan() -> str:
        try:
            await asks_for_another()
        except StepFailed as failure:
            return failure.error_type
        return ""

    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert (await hf.run(plan(), id="a")).endswith("Cancelled")

    asyncio.run(program())


# -- what is tried anew ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 3, 5])
def test_the_failure_that_ended_the_run_is_tried_anew_however_often(url: str, times: int) -> None:
    @workflow(version="1")
    async def plan() -> list[str]:
        return [await work("first"), await work("second"), await work("third")]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("second")
            for _ in range(times):
                with pytest.raises(StepFailed, match="no second"):
                    await hf.run(plan(), id="a")
                run = await hf.get("a")
                assert run.status == "failed" and "no second" in str(run.error)
            failing.clear()
            assert await hf.run(plan(), id="a") == ["first", "second", "third"]

    asyncio.run(program())
    assert ran == ["first", *["second"] * (times + 1), "third"]


def test_only_that_failure_is_tried_anew(url: str) -> None:
    @workflow(version="1")
    async def plan() -> list[str]:
        found = []
        for name in ("passed", "first"):
            try:
                found.append(await work(name))
            except StepFailed as failure:
                found.append(failure.message)
        found += await asyncio.gather(work("beside"), work("passed too"), return_exceptions=True)
        found.append(await work("end"))
        return [str(each) for each in found]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.update({"passed", "passed too", "end"})
            for _ in range(2):
                with pytest.raises(StepFailed, match="no end"):
                    await hf.run(plan(), id="a")
            failing.clear()
            result = await hf.run(plan(), id="a")
            assert result[:3] == ["no passed", "first", "beside"] and result[3].endswith("no passed too")

    asyncio.run(program())
    assert ran == ["passed", "first", "beside", "passed too", "end", "end", "end"]


def test_a_failure_behind_another_error_is_tried_anew(url: str) -> None:
    """What ended the run came from the step, also where the workflow raised an error of its own because of it."""

    @workflow(version="1")
    async def plan() -> str:
        try:
            return await work("asked")
        except StepFailed as failure:
            raise ValueError("cannot go on") from failure

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("asked")
            with pytest.raises(ValueError, match="cannot go on"):
                await hf.run(plan(), id="a")
            failing.clear()
            assert await hf.run(plan(), id="a") == "asked"

    asyncio.run(program())


@pytest.mark.parametrize("how", ["gather", "group", "tasks"])
@pytest.mark.parametrize("times", [1, 3])
def test_siblings_of_the_failure_run_on_the_retry(url: str, how: str, times: int) -> None:
    @step
    async def slow(name: str) -> str:
        ran.append(name)
        if failing:
            await asyncio.sleep(30)
        return name

    @workflow(version="1")
    async def plan() -> list[str]:
        before = await work("before")
        if how == "gather":
            return [before, *await asyncio.gather(slow("s1"), work("bad"), slow("s2"))]
        if how == "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each) for each in (slow("s1"), work("bad"), slow("s2"))]
            return [before, *(task.result() for task in tasks)]
        tasks = [asyncio.create_task(each) for each in (slow("s1"), work("bad"), slow("s2"))]
        return [before, *[await task for task in (tasks[1], tasks[0], tasks[2])]]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("bad")
            for _ in range(times):
                with pytest.raises((StepFailed, ExceptionGroup)) as told:
                    await asyncio.wait_for(hf.run(plan(), id="a"), 5)
                if how == "group":
                    assert isinstance(told.value, ExceptionGroup)
                    assert [type(each) for each in told.value.exceptions] == [StepFailed]
            failing.clear()
            result = await asyncio.wait_for(hf.run(plan(), id="a"), 5)
            assert sorted(result) == ["bad", "before", "s1", "s2"]

    asyncio.run(program())
    assert ran.count("before") == 1
    assert (ran.count("bad"), ran.count("s1"), ran.count("s2")) == (times + 1,) * 3


def test_a_sibling_that_was_finished_is_kept(url: str) -> None:
    @step
    async def late() -> None:
        ran.append("late")
        await asyncio.sleep(0.03)
        if failing:
            raise LookupError

    @workflow(version="1")
    async def plan() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(late())
            group.create_task(work("quick"))

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("late")
            with pytest.raises(ExceptionGroup):
                await hf.run(plan(), id="a")
            failing.clear()
            await hf.run(plan(), id="a")

    asyncio.run(program())
    assert ran == ["late", "quick", "late"]


def test_a_group_that_the_workflow_went_on_past_stays_as_it_was(url: str) -> None:
    @step
    async def slow(name: str) -> str:
        ran.append(name)
        await asyncio.sleep(30)
        return name

    @workflow(version="1")
    async def plan() -> list[str]:
        found: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(slow("s1"))
                group.create_task(work("bad"))
        except* StepFailed as failures:
            found += [str(each) for each in failures.exceptions]
        return [*found, await work("end")]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.update({"bad", "end"})
            for _ in range(2):
                with pytest.raises(StepFailed, match="no end"):
                    await asyncio.wait_for(hf.run(plan(), id="a"), 5)
            failing.clear()
            result = await asyncio.wait_for(hf.run(plan(), id="a"), 5)
            assert result == ["work failed with LookupError: no bad", "end"]
            assert (await statuses(hf, "a"))[:2] == [("work", "failed", 1), ("slow", "cancelled", 1)]

    asyncio.run(program())
    assert ran == ["s1", "bad", "end", "end", "end"]


def test_a_failed_run_whose_retry_is_cut_off_is_tried_anew_again(url: str) -> None:
    """A retry that dies before it comes to the failed step must not find that failure as history."""
    stuck = asyncio.Event

    @step
    async def gate() -> None:
        ran.append("gate")
        if "gate" in failing:
            await asyncio.sleep(30)

    @workflow(version="1")
    async def plan() -> list[str]:
        first = asyncio.create_task(gate())
        found = [await work("a"), await work("b")]
        await first
        return found

    assert stuck

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.update({"a", "gate"})
            with pytest.raises(StepFailed, match="no a"):
                await hf.run(plan(), id="a")
            failing.discard("a")
            failing.add("b")
            with pytest.raises(StepFailed, match="no b"):
                await hf.run(plan(), id="a")
        async with holdfast.open(url) as hf:
            ran.clear()
            running = asyncio.create_task(hf.run(plan(), id="a"))
            failing.discard("b")
            while not ran:
                await asyncio.sleep(0)
            running.cancel()  # cut off where it has just begun
            await asyncio.wait([running])
        failing.clear()
        async with holdfast.open(url) as hf:
            assert await hf.run(plan(), id="a") == ["a", "b"]

    asyncio.run(program())


def test_a_run_that_timed_out_is_tried_anew(url: str) -> None:
    """The call that the timeout cancelled is what ended the run: recalled as cancelled it would time out for ever."""

    @step
    async def slow() -> str:
        ran.append("slow")
        if failing:
            await asyncio.sleep(30)
        return "in time"

    @workflow(version="1")
    async def with_wait_for() -> str:
        return await asyncio.wait_for(slow(), 0.05 if failing else 5)

    @workflow(version="1")
    async def with_timeout() -> str:
        async with asyncio.timeout(0.05 if failing else 5):
            return await slow()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            for plan in (with_wait_for, with_timeout):
                failing.add("slow")
                with pytest.raises(TimeoutError):
                    await hf.run(plan(), id=plan.__name__)
                failing.clear()
                with instant():
                    assert await hf.run(plan(), id=plan.__name__) == "in time"

    asyncio.run(program())


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no message")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("cannot read caf\udce9.txt"), "ValueError", r"cannot read caf\udce9.txt"),
        (Unspeakable(), f"{__name__}.Unspeakable", "(its message cannot be read: RuntimeError)"),
    ],
    ids=["no UTF-8", "no message"],
)
def test_a_failure_whose_message_cannot_be_stored_is_history_too(
    url: str, error: Exception, kind: str, message: str
) -> None:
    """It was told as a mistake of another kind; a run that ended by it stayed owned, and running, for ever."""

    @step
    async def broken() -> None:
        raise error

    @workflow(version="1")
    async def caught() -> list[str]:
        try:
            await broken()
        except StepFailed as failed:
            return [failed.error_type, failed.message]
        return []

    @workflow(version="1")
    async def ended() -> None:
        await work("a")
        raise error

    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(caught(), id="a") == [kind, message]
            assert await statuses(hf, "a") == [("broken", "failed", 1)]
            with pytest.raises(type(error)):
                await hf.run(ended(), id="b")
            run = await hf.get("b")
            assert (run.status, run.owner, run.error) == ("failed", None, f"{kind}: {message}")

    asyncio.run(program())


def test_a_traceback_shows_the_program_and_hardly_us(url: str) -> None:
    """Not how the run was driven: of ours are the way to hf.run, and to the step."""

    @step
    async def broken() -> None:
        raise ValueError("no tea")

    @workflow(version="1")
    async def plan() -> None:
        await broken()

    async def program() -> list[str]:
        async with holdfast.open(url) as hf:
            try:
                await hf.run(plan(), id="a")
            except StepFailed as failed:
                return [frame.name for frame in traceback.extract_tb(failed.__traceback__)]
        return []

    found = asyncio.run(program())
    assert found[0] == "program" and len(found) < 9, found
    assert found[found.index("plan") - 1] == "result", found


# -- steps that call steps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [step(attempts=2, backoff=0, name="outer"), workflow(name="outer")])
def test_a_new_attempt_keeps_the_inner_steps_that_succeeded(url: str, kind: Any) -> None:
    async def body() -> list[str]:
        first = await work("one")
        both = await asyncio.gather(work("two"), work("three"))
        if "two" in failing:
            failing.clear()
        return [first, *both, await work("four")]

    outer = kind(body)

    @workflow(version="1")
    async def plan() -> list[str]:
        found: list[str] = await outer()
        return found

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("four")

            async def mend() -> None:
                while "four" not in ran:
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
                await asyncio.sleep(0)

            mending = asyncio.create_task(mend())
            if isinstance(kind, type(step())):
                with instant():
                    failing.add("four once")
                    with pytest.raises(StepFailed):
                        await hf.run(plan(), id="a")
                    assert ran == ["one", "two", "three", "four", "four"]
            else:
                with pytest.raises(StepFailed):
                    await hf.run(plan(), id="a")
                assert ran == ["one", "two", "three", "four"]
            await mending
            failing.clear()
            ran.clear()
            assert await hf.run(plan(), id="a") == ["one", "two", "three", "four"]
            assert ran == ["four"]

    asyncio.run(program())


def test_inner_failures_that_the_outer_step_went_on_past(url: str) -> None:
    @step
    async def outer() -> str:
        ran.append("outer")
        try:
            await work("inner")
        except StepFailed as failure:
            return failure.message
        return "fine"

    @workflow(version="1")
    async def plan() -> list[str]:
        return [await outer(), await work("end")]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.update({"inner", "end"})
            with pytest.raises(StepFailed, match="no end"):
                await hf.run(plan(), id="a")
            failing.clear()
            assert await hf.run(plan(), id="a") == ["no inner", "end"]

    asyncio.run(program())
    assert ran == ["outer", "inner", "end", "end"]


def test_the_failure_of_an_inner_step_names_the_original(url: str) -> None:
    @step
    async def outer() -> None:
        await work("inner")

    @workflow
    async def plan() -> None:
        await outer()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("inner")
            with pytest.raises(StepFailed) as told:
                await hf.run(plan(), id="a")
            assert told.value.step == outer.__qualname__
            assert (told.value.error_type, told.value.message) == ("LookupError", "no inner")
            inner = told.value.__cause__
            assert isinstance(inner, StepFailed) and inner.step == "work"

    asyncio.run(program())


@pytest.mark.parametrize("finishes", [False, True])
def test_a_new_attempt_begins_with_nothing_of_the_last_one_under_way(url: str, finishes: bool) -> None:
    """``gather`` leaves the siblings of what failed behind: in their places the new attempt makes its own calls."""
    ended: list[int] = []

    @step
    async def first(attempt: list[int]) -> str:
        if ran.count("both") == 1:
            raise ValueError
        return "first"

    @step
    async def second(gate: str) -> str:
        ran.append("second")
        if ran.count("second") == 1:
            while not (finishes and "failed" in ran):
                await asyncio.sleep(0)
        ended.append(1)
        return "second"

    @step(attempts=2, backoff=0)
    async def both() -> list[str]:
        ran.append("both")
        try:
            return await asyncio.gather(first([]), second("gate"))
        except StepFailed:
            ran.append("failed")
            raise

    @workflow(version="1")
    async def plan() -> list[str]:
        return [*await both(), await work("end")]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("end")
            with pytest.raises(StepFailed, match="no end"):
                await asyncio.wait_for(hf.run(plan(), id="a"), 10)
            rows = [(name, status) for name, status, _ in await statuses(hf, "a")]
            assert ended == [1] and rows.count(("second", "done")) == 1
            assert rows.count(("second", "cancelled")) == ran.count("second") - 1
            failing.clear()
            assert await asyncio.wait_for(hf.run(plan(), id="a"), 10) == ["first", "second", "end"]

    asyncio.run(program())


def test_what_was_recorded_twice_over_attempts_is_delivered_once(url: str) -> None:
    """A resume lives through the first attempt again, and its siblings' outcomes are on their way when it fails."""
    tries: list[int] = []

    @step
    async def late(number: int) -> int:
        if number == 0 and not tries:
            tries.append(1)
            raise ValueError
        return number

    @step(attempts=2, backoff=0)
    async def all_of_them() -> list[int]:
        found = await asyncio.gather(*(late(number) for number in range(5)))
        await work("inside")
        return found

    @workflow(version="1")
    async def plan() -> list[int]:
        return await all_of_them()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("inside")
            for _ in range(3):
                with pytest.raises(StepFailed, match="no inside"):
                    await asyncio.wait_for(hf.run(plan(), id="a"), 10)
            failing.clear()
            assert await asyncio.wait_for(hf.run(plan(), id="a"), 10) == [0, 1, 2, 3, 4]

    asyncio.run(program())


# -- cancelled calls ---------------------------------------------------------------------------------------------


@step
async def slow(name: str, seconds: float = 30) -> str:
    ran.append(name)
    await asyncio.sleep(seconds)
    return name


def test_a_call_cancelled_by_the_workflow_stays_cancelled(url: str) -> None:
    @workflow(version="1")
    async def plan() -> list[str]:
        found = []
        task = asyncio.create_task(slow("by hand"))
        await work("meanwhile")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            found.append("cancelled by hand")
        try:
            async with asyncio.timeout(0.02):
                await slow("timed out")
        except TimeoutError:
            found.append("timed out")
        try:
            await asyncio.wait_for(slow("waited for"), 0.02)
        except TimeoutError:
            found.append("waited for")
        done, pending = await asyncio.wait(
            [asyncio.create_task(slow("loser")), asyncio.create_task(slow("winner", 0.01))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for each in pending:
            each.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return [*found, *(task.result() for task in done), await work("end")]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("end")
            for _ in range(2):
                with pytest.raises(StepFailed, match="no end"):
                    await asyncio.wait_for(hf.run(plan(), id="a"), 10)
            failing.clear()
            expected = ["cancelled by hand", "timed out", "waited for", "winner", "end"]
            assert await asyncio.wait_for(hf.run(plan(), id="a"), 10) == expected
            cancelled = [each for each in await hf.history("a") if each.status == "cancelled"]
            assert len(cancelled) == 4 and {each.result for each in cancelled} == {None}

    asyncio.run(program())
    assert sorted(ran) == sorted(["by hand", "meanwhile", "timed out", "waited for", "loser", "winner", *["end"] * 3])


def test_a_timeout_around_several_calls_is_waited_for_as_long_as_they_took(url: str) -> None:
    """The first call is recalled at once, so the timeout comes long after the second one's recorded time is over."""
    times_out_after = 1.2

    @step(attempts=2, backoff=0, timeout=times_out_after)
    async def both(where: str) -> str:
        ran.append(f"both {where}")
        await slow(f"first {where}", 1.15)
        return await slow(f"second {where}")

    @workflow(version="1")
    async def plan() -> list[str]:
        async def around() -> str:
            try:
                async with asyncio.timeout(times_out_after):
                    await slow("first", 1.15)
                    return await slow("second")
            except TimeoutError:
                return "timed out"

        async def inside() -> str:
            try:
                return await both("inside")
            except StepFailed as failed:
                return failed.error_type

        return [*await asyncio.gather(around(), inside()), await work("end")]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            running = asyncio.create_task(hf.run(plan(), id="a"))
            while ran.count("both inside") < 2:  # its second attempt has begun
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            running.cancel()  # as a crash would, here
            await asyncio.wait({running})
            assert await hf.run(plan(), id="a") == ["timed out", "TimeoutError", "end"]

    asyncio.run(program())


def test_a_step_that_cleans_up_when_cancelled_and_goes_on_is_done(url: str) -> None:
    """The outcome is what the step made of it, not what was asked of it."""

    @step
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "saved what there was"
        return ""

    @workflow(version="1")
    async def plan() -> str:
        task = asyncio.create_task(stubborn())
        await work("meanwhile")
        task.cancel()
        try:
            found = await task
        except asyncio.CancelledError:
            found = "cancelled"
        return f"{found}, {await work('end')}"

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("end")
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            first = (await hf.history("a"))[1].status
            failing.clear()
            result = await asyncio.wait_for(hf.run(plan(), id="a"), 10)
            assert first == "done" and result in ("saved what there was, end", "cancelled, end")

    asyncio.run(program())


@pytest.mark.parametrize("threaded", [False, True])
def test_cancelling_who_awaits_the_run_records_nothing(url: str, threaded: bool) -> None:
    @step
    def in_thread(name: str) -> str:
        import time

        ran.append(name)
        deadline = time.monotonic() + (2 if failing else 0)
        while failing and time.monotonic() < deadline:
            time.sleep(0.005)
        return name

    @step
    async def in_flight(name: str) -> str:
        ran.append(name)
        if failing:
            await asyncio.sleep(30)
        return name

    @workflow(version="1")
    async def plan() -> list[str]:
        first = await work("first")
        try:
            rest = await asyncio.gather(
                *(asyncio.to_thread(in_thread, name) if threaded else in_flight(name) for name in ("x", "y"))
            )
        finally:
            ran.append("cleanup")
        return [first, *rest]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.add("stay")
            for ways in ("cancel", "timeout"):
                ran.clear()
                running = asyncio.ensure_future(hf.run(plan(), id="a"))
                while not {"x", "y"} <= set(ran):
                    await asyncio.sleep(0.001)
                if ways == "cancel":
                    running.cancel()
                    await asyncio.wait([running])
                    assert running.cancelled()
                else:
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(running, 0.01)
                assert [each[1] for each in await statuses(hf, "a")] == ["done"]
                run = await hf.get("a")
                assert (run.status, run.owner, run.error) == ("running", None, None)
                assert "cleanup" in ran
            failing.clear()
            assert await hf.run(plan(), id="a") == ["first", "x", "y"]

    asyncio.run(program())


def test_ctrl_c_records_nothing(url: str) -> None:
    """As ``asyncio.run`` does it: the main task is cancelled."""
    failing.add("slow")

    @step
    async def interrupted() -> str:
        ran.append("interrupted")
        if failing:
            import signal

            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(30)
        return "done"

    @workflow(version="1")
    async def plan() -> str:
        try:
            return await interrupted()
        except asyncio.CancelledError:
            await work("never")
            raise

    async def program() -> str:
        async with holdfast.open(url) as hf:
            return await hf.run(plan(), id="a")

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(program())
    failing.clear()

    async def again() -> None:
        async with holdfast.open(url) as hf:
            assert (await hf.get("a")).owner is None or url.startswith("memory")
            assert await asyncio.wait_for(hf.run(plan(), id="a"), 5) == "done"
            assert await statuses(hf, "a") == [("interrupted", "done", 1)]

    asyncio.run(again())
    assert ran == ["interrupted", "interrupted"]


def until(condition: Callable[[], Any]) -> Any:
    async def wait() -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.002)

    return wait()


def test_a_workflow_that_ends_by_a_cancellation_of_its_own_fails(url: str) -> None:
    """Nobody outside asked for it, so the same line must not repeat it for ever as if it had been unloaded."""

    @workflow(version="1")
    async def plan() -> None:
        task = asyncio.create_task(slow("a"))
        await work("meanwhile")
        task.cancel()
        await task

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed, match="CancelledError"):
                await asyncio.wait_for(hf.run(plan(), id="a"), 5)
            assert (await hf.get("a")).status == "failed"

    asyncio.run(program())


# -- what a failed attempt leaves ------------------------------------------------------------------------------


@step
async def ask(part: int) -> int:
    ran.append(part)
    return part


def test_a_new_attempt_may_come_to_other_calls_first(url: str) -> None:
    """What this process recorded in the attempt before is not waited for as what a resume would repeat."""
    tries: list[int] = []

    @step(attempts=3, backoff=0.001)
    async def gathering() -> list[int]:
        tries.append(len(tries))

        async def part(number: int) -> int:
            await asyncio.sleep(0.02 * number)
            if number == 1 and len(tries) == 1:
                raise ConnectionError
            return 0 if number == 0 and len(tries) == 2 else await ask(number)

        return await asyncio.gather(part(0), part(1))

    @workflow(version="1")
    async def plan() -> list[int]:
        return await gathering()

    async def program() -> None:
        async with holdfast.open(url) as hf, asyncio.timeout(20):
            assert await hf.run(plan(), id="a") == [0, 1]

    asyncio.run(program())


def test_what_an_attempt_left_between_two_calls_is_ended(url: str) -> None:
    tries: list[int] = []

    @step(attempts=3, backoff=0.001)
    async def gathering() -> list[int]:
        tries.append(len(tries))

        async def failing() -> int:
            if len(tries) == 1:
                raise ConnectionError
            return 0

        async def slow() -> int:
            await asyncio.sleep(0.05)
            return await ask(1)

        return await asyncio.gather(failing(), slow())

    @workflow(version="1")
    async def plan() -> list[int]:
        return await gathering()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(plan(), id="a") == [0, 1]
            assert ran == [1]
            assert [each.name for each in await hf.history("a")].count("ask") == 1

    asyncio.run(program())
