"""``Holdfast``: starting, looking up, ending; who may see what from where."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest

import holdfast
from holdfast import (
    Busy,
    Cancelled,
    CodecError,
    Diverged,
    HoldfastError,
    Mismatch,
    NotFound,
    NotInRun,
    StepFailed,
    StoreError,
    VersionMismatch,
    step,
    workflow,
)

ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else str(tmp_path / "jobs.db")


@step
async def double(number: int) -> int:
    ran.append(number)
    return 2 * number


@workflow(version="1")
async def doubled(number: int, *, more: int = 0) -> int:
    return await double(number) + more


@workflow(version="1")
async def other(number: int) -> int:
    return await double(number)


@step
async def endless() -> None:
    ran.append("endless")
    await asyncio.sleep(3600)


@workflow(version="1")
async def stuck() -> None:
    try:
        await endless()
    finally:
        ran.append("cleaned up")


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


# -- the same line -----------------------------------------------------------------------------------------------


def test_the_same_line_starts_resumes_and_returns(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(doubled(2), id="a") == 4
            assert await hf.run(doubled(2), id="a") == 4
            both = await asyncio.gather(*(hf.run(doubled(3), id="b") for _ in range(3)))
            assert both == [6, 6, 6]
        async with holdfast.open(url) as again:
            assert await again.run(doubled(2), id="a") == 4

    asyncio.run(program())
    assert ran == [2, 3]


def test_mismatch_changes_nothing(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.run(doubled(2), id="a")
            before, rows = await hf.get("a"), await hf.history("a")
            for wrong in (doubled(3), doubled(2, more=1), other(2)):
                with pytest.raises(Mismatch, match=r"'a'.*Nothing was changed; choose another id"):
                    await hf.run(wrong, id="a")
                with pytest.raises(Mismatch):
                    await hf.start(doubled(9), id="a")
            assert await hf.get("a") == before
            assert await hf.history("a") == rows
            # an argument that is written out, but equal to its default, is the same
            assert await hf.run(doubled(number=2, more=0), id="a") == 4

    asyncio.run(program())
    assert ran == [2]


def test_mismatch_with_a_run_that_is_live(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            running = asyncio.create_task(hf.run(stuck(), id="a"))
            await until(lambda: ran)
            with pytest.raises(Mismatch, match="live in this process as 'stuck'"):
                await hf.run(doubled(2), id="a")
            assert (await hf.get("a")).status == "running"
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(program())


def test_another_version_is_refused_and_changes_nothing(url: str) -> None:
    failing = [True]

    @step
    async def maybe(number: int) -> int:
        if failing:
            raise ValueError("no")
        return number

    @workflow(name="plan", version="1")
    async def plan(number: int) -> int:
        return await double(number) + await maybe(number)

    @workflow(name="plan", version="2", on_change="refuse")
    async def later_plan(number: int) -> int:
        return await double(number) - await maybe(number)

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(1), id="a")
            before, rows = await hf.get("a"), await hf.history("a")
            with pytest.raises(VersionMismatch, match=r"version '1'.*version '2'"):
                await hf.run(later_plan(1), id="a")
            assert (await hf.get("a"), await hf.history("a")) == (before, rows)
            failing.clear()
            assert await hf.run(plan(1), id="a") == 3
            # a finished run returns its result under any version
            assert await hf.run(later_plan(1), id="a") == 3

    asyncio.run(program())
    assert ran == [1]


def test_the_fingerprint_of_an_undeclared_version_is_the_code_not_its_looks(url: str) -> None:
    failing = [True]

    @step
    async def maybe() -> int:
        if failing:
            raise ValueError("no")
        return 1

    @workflow(name="plan")
    async def plan() -> int:
        return await maybe()

    @workflow(name="plan", on_change="refuse")
    async def replan() -> int:
        return await maybe() + 1

    def make() -> Any:
        @workflow(name="plan")
        async def plan() -> int:
            """Documented meanwhile."""
            return await maybe()  # and formatted

        return plan

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            with pytest.raises(VersionMismatch):
                await hf.run(replan(), id="a")
            failing.clear()
            assert await hf.run(make()(), id="a") == 1

    asyncio.run(program())


def test_the_initial_state_counts_when_the_run_is_new(url: str) -> None:
    @workflow
    async def plan() -> Any:
        return dict(holdfast.state)

    async def program() -> None:
        async with holdfast.open(url) as hf:
            given = {"pages": [1]}
            assert await hf.run(plan(), id="a", state=given) == {"pages": [1]}
            assert await hf.run(plan(), id="a", state={"pages": [2]}) == {"pages": [1]}
            assert await hf.run(plan(), id="b") == {}
            with pytest.raises(CodecError, match="initial state") as refused:
                await hf.run(plan(), id="c", state={"pages": [object()]})
            assert refused.value.path == "state['pages'][0]"
            with pytest.raises(NotFound):
                await hf.get("c")

    asyncio.run(program())


# -- start, get, runs, history -----------------------------------------------------------------------------------


def test_start_gives_a_run_to_wait_for(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            run = await hf.start(doubled(2), id="a")
            assert run.id == "a" and run.workflow == "doubled"
            assert await run.wait() == 4
            assert await run.wait() == 4
            assert await hf.run(doubled(2), id="a") == 4
            with caplog.at_level(logging.INFO, "holdfast"):
                unnamed = await hf.start(doubled(3))
            assert f"resume it with hf.run(…, id={unnamed.id!r})" in caplog.text
            assert await unnamed.wait() == 6
            assert await hf.run(doubled(3), id=unnamed.id) == 6
            with pytest.raises(Mismatch):
                await hf.start(doubled(4), id="a")
            # who waits and goes does not stop what was started
            run = await hf.start(stuck(), id="s")
            await until(lambda: "endless" in ran)
            for line in (run.wait, lambda: hf.run(stuck(), id="s")):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(line(), 0.05)
            assert (await hf.get("s")).status == "running"

    asyncio.run(program())
    assert ran == [2, 3, "endless", "cleaned up"]


def test_start_does_not_wait_for_another_owner(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf, holdfast.open(url) as remote:
            running = asyncio.create_task(remote.run(stuck(), id="a"))
            await until(lambda: ran)
            run = await asyncio.wait_for(hf.start(stuck(), id="a"), 5)
            assert (run.id, run.status) == ("a", "running")
            await remote.cancel("a")
            with pytest.raises(Cancelled):
                await asyncio.wait_for(run.wait(), 5)
            with pytest.raises(Cancelled):
                await running

    asyncio.run(program())


def test_what_a_failed_run_tells(url: str) -> None:
    @workflow
    async def bad() -> None:
        raise LookupError("no such account")

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(LookupError, match="no such account"):
                await hf.run(bad(), id="a")
            run = await hf.get("a")
            assert run.status == "failed" and run.error == "LookupError: no such account" and run.result is None
            with pytest.raises(StepFailed) as told:
                await run.wait()
            assert (told.value.step, told.value.error_type, told.value.message) == (
                bad.__qualname__,
                "LookupError",
                "no such account",
            )
            started = await hf.start(bad(), id="b")
            with pytest.raises((LookupError, StepFailed), match="no such account"):
                await started.wait()

    asyncio.run(program())


def test_waiting_for_a_parked_run_tells_why(url: str) -> None:
    number = [1]

    @workflow
    async def moody() -> None:
        await double(number[0])
        if number == [1]:
            raise ValueError

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(ValueError):
                await hf.run(moody(), id="a")
            number[0] = 2
            with pytest.raises(Diverged, match=r"number: recorded 1, now 2"):
                await hf.run(moody(), id="a")
            run = await hf.get("a")
            assert run.status == "parked" and run.error is not None and run.error.startswith("Diverged: ")
            with pytest.raises(Diverged, match=r"number: recorded 1, now 2"):
                await run.wait()
            number[0] = 1  # hf.run tries it again
            with pytest.raises(ValueError):
                await hf.run(moody(), id="a")

    asyncio.run(program())


def test_the_attributes_of_a_run(url: str) -> None:
    @step
    async def costly() -> None:
        holdfast.spend(tokens=10, usd=0.25)
        holdfast.spend(tokens=1)

    @workflow(version="7")
    async def plan() -> list[int]:
        await asyncio.gather(costly(), costly())
        return [1]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            began = datetime.now(UTC) - timedelta(milliseconds=2)
            await hf.run(plan(), id="a")
            run = await hf.get("a")
            assert (run.id, run.workflow, run.version, run.status) == ("a", plan.__qualname__, "7", "done")
            assert (run.result, run.error, run.deaths, run.waiting_for) == ([1], None, 0, None)
            assert (run.spent.tokens, run.spent.usd) == (22, 0.5)
            assert began <= run.created_at <= run.updated_at <= datetime.now(UTC) + timedelta(milliseconds=2)
            assert run.created_at.utcoffset() == timedelta(0)

    asyncio.run(program())


def test_the_attributes_of_a_checkpoint(url: str) -> None:
    tries = [0]

    @step(attempts=2, backoff=0)
    async def flaky(number: int, quiet: bool = False) -> dict[str, int]:
        holdfast.state["n"] = number
        tries[0] += 1
        if tries[0] == 1:
            raise ValueError("once")
        await asyncio.sleep(0.02)
        return {"number": number}

    @step
    async def bad() -> None:
        raise LookupError("gone")

    @workflow
    async def plan() -> None:
        await flaky(1)
        await asyncio.gather(double(1), double(2), bad(), return_exceptions=True)

    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.run(plan(), id="a")
            history = await hf.history("a")
            assert isinstance(history, list) and [each.seq for each in history] == [1, 2, 3, 4]
            one = history[0]
            promised = "seq kind name n branch status started_at duration attempts inputs result delta"
            names = {field.name for field in dataclasses.fields(one)}
            assert names >= set(promised.split())
            assert (one.seq, one.kind, one.n, one.branch, one.status, one.attempts) == (1, "step", 0, "", "done", 2)
            assert (one.name, one.inputs, one.result) == (flaky.__qualname__, {"number": 1}, {"number": 1})
            assert one.duration >= 0.02 and one.started_at <= datetime.now(UTC)
            assert "n" in str(one.delta)
            doubles = [each for each in history if each.name == "double"]
            assert [each.n for each in doubles] == [0, 1] and len({each.branch for each in doubles}) == 1
            failed = next(each for each in history if each.status == "failed")
            assert (failed.name, failed.result, failed.error) == (bad.__qualname__, None, "LookupError: gone")

    asyncio.run(program())


def test_listing_runs(url: str) -> None:
    @workflow(name="bad")
    async def bad() -> None:
        raise ValueError

    async def program() -> None:
        async with holdfast.open(url) as hf:
            for number in range(5):
                await hf.run(doubled(number), id=f"d{number}")
                await hf.run(other(number), id=f"o{number}")
            with pytest.raises(ValueError):
                await hf.run(bad(), id="bad")
            everything = [run.id for run in await hf.runs()]
            assert everything == ["bad", "o4", "d4", "o3", "d3", "o2", "d2", "o1", "d1", "o0", "d0"]
            assert [run.id for run in await hf.runs(status="failed")] == ["bad"]
            assert [run.id for run in await hf.runs(workflow="other", limit=2)] == ["o4", "o3"]
            assert [run.id for run in await hf.runs(workflow="other", limit=2, after="o3")] == ["o2", "o1"]
            assert [run.id for run in await hf.runs(status="done", workflow="doubled", after="o1")] == ["d1", "d0"]
            assert await hf.runs(workflow="none") == []
            listed, after = [], None
            while page := await hf.runs(limit=3, after=after):
                listed += [run.id for run in page]
                after = listed[-1]
            assert listed == everything
            assert {type(run.result) for run in await hf.runs(status="done")} == {int}
            assert await (await hf.runs(workflow="other", limit=1))[0].wait() == 8
            assert await (await hf.runs(workflow="other", limit=2))[1].wait() == 6
            with pytest.raises(NotFound, match="'none'"):
                await hf.runs(after="none")

    asyncio.run(program())


def test_results_have_their_types_where_the_workflow_is_known(url: str) -> None:
    @workflow
    async def when() -> tuple[datetime, uuid.UUID]:
        return datetime(2026, 11, 1, tzinfo=UTC), uuid.UUID(int=1)

    async def program() -> None:
        expected = (datetime(2026, 11, 1, tzinfo=UTC), uuid.UUID(int=1))
        async with holdfast.open(url) as hf:
            assert await hf.run(when(), id="a") == expected
            assert await hf.run(when(), id="a") == expected
            assert (await hf.get("a")).result == expected

    asyncio.run(program())


def test_not_found_names_the_id_and_the_store(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            for ask in (hf.get, hf.history, hf.cancel):
                with pytest.raises(NotFound, match="no run 'nobody'") as missing:
                    await ask("nobody")
                assert hf.url in str(missing.value)

    asyncio.run(program())


# -- cancelling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_process", [True, False])
def test_cancel_stops_a_live_run_for_good(url: str, same_process: bool) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf, holdfast.open(url) as remote:
            running = asyncio.create_task(hf.run(stuck(), id="a"))
            await until(lambda: ran)
            waiting = asyncio.create_task(remote.run(stuck(), id="a"))
            started = await hf.start(stuck(), id="a")
            await (hf if same_process else remote).cancel("a")
            async with asyncio.timeout(8):
                for each in (running, waiting):
                    with pytest.raises(Cancelled, match=r"'a' was cancelled.*new id"):
                        await each
                with pytest.raises(Cancelled):
                    await started.wait()
            run = await hf.get("a")
            assert run.status == "cancelled" and run.result is None
            for each_hf in (hf, remote):
                with pytest.raises(Cancelled):
                    await each_hf.run(stuck(), id="a")
            await hf.cancel("a")  # again: nothing
            assert await hf.history("a") == []

    asyncio.run(program())
    assert ran == ["endless", "cleaned up"]


def test_cancel_of_runs_that_are_not_live(url: str) -> None:
    @workflow
    async def bad() -> None:
        raise ValueError

    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.run(doubled(1), id="done")
            await hf.cancel("done")
            assert (await hf.get("done")).status == "done"
            assert await hf.run(doubled(1), id="done") == 2
            with pytest.raises(ValueError):
                await hf.run(bad(), id="failed")
            await hf.cancel("failed")
            with pytest.raises(Cancelled):
                await hf.run(bad(), id="failed")
            running = asyncio.create_task(hf.run(stuck(), id="unloaded"))
            await until(lambda: "endless" in ran)
            running.cancel()
            await asyncio.wait([running])
            await hf.cancel("unloaded")
            with pytest.raises(Cancelled):
                await hf.run(stuck(), id="unloaded")

    asyncio.run(program())


# -- opening and closing -----------------------------------------------------------------------------------------


def test_a_run_that_is_being_unloaded_is_waited_for_and_resumed(url: str) -> None:
    """Who gave up, and who asks again at once, are often two requests that know nothing of each other."""
    began, unwinding = asyncio.Event(), asyncio.Event()

    @step
    async def long(number: int) -> int:
        began.set()
        await asyncio.sleep(0.05)
        return number

    @workflow(version="1")
    async def plan() -> int:
        try:
            return await long(1) + await long(2)
        finally:
            unwinding.set()
            await asyncio.sleep(0.05)

    async def program() -> None:
        async with holdfast.open(url) as hf:
            given_up = asyncio.create_task(hf.run(plan(), id="a"))
            await began.wait()
            given_up.cancel()
            await unwinding.wait()
            assert not given_up.done()
            assert await hf.run(plan(), id="a") == 3
            assert given_up.cancelled()

            began.clear()
            unwinding.clear()
            waiting = asyncio.create_task(hf.run(plan(), id="b"))
            await began.wait()
            closing = asyncio.create_task(hf.aclose())
            await unwinding.wait()
            with pytest.raises(HoldfastError, match="this Holdfast is closed"):
                await hf.run(plan(), id="c")
            with pytest.raises(HoldfastError, match=r"'b' was unloaded.*the same line resumes it"):
                await waiting
            await closing

    asyncio.run(program())


def test_closing_unloads_live_runs_and_the_same_line_resumes(url: str) -> None:
    go = [False]

    @step
    async def gate() -> int:
        ran.append("gate")
        if not go[0]:
            await asyncio.sleep(3600)
        return 1

    @workflow
    async def plan() -> int:
        return await double(1) + await gate()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            running = asyncio.create_task(hf.run(plan(), id="a"))
            await hf.start(plan(), id="b")
            await until(lambda: ran.count("gate") == 2)
        with pytest.raises((HoldfastError, asyncio.CancelledError)):
            await running
        go[0] = True
        async with holdfast.open(url) as hf:
            assert (await hf.get("a")).owner is None
            began = time.monotonic()
            assert await hf.run(plan(), id="a", wait=False) == 3
            assert await hf.run(plan(), id="b", wait=False) == 3
            assert time.monotonic() - began < 5
            assert (await hf.get("a")).deaths == 0

    asyncio.run(program())
    assert ran.count(1) == 2


def test_a_closed_holdfast_says_so(url: str) -> None:
    async def program() -> None:
        hf = holdfast.open(url)
        await hf.run(doubled(1), id="a")
        await hf.aclose()
        await hf.aclose()
        for use in (
            lambda: hf.run(doubled(1), id="a"),
            lambda: hf.start(doubled(1), id="a"),
            lambda: hf.get("a"),
            lambda: hf.runs(),
            lambda: hf.history("a"),
            lambda: hf.cancel("a"),
        ):
            with pytest.raises(HoldfastError, match="closed; open another one"):
                await use()
        with pytest.raises(HoldfastError, match="closed"):
            hf.session("a")
        gc.collect()

    asyncio.run(program())
    with holdfast.open(url) as hf:
        hf.wait(hf.runs())
    hf.close()
    with pytest.raises(HoldfastError, match="closed"):
        hf.wait(hf.runs())
    gc.collect()


def test_closing_without_a_loop_unloads_what_was_started(url: str) -> None:
    with holdfast.open(url) as hf:
        hf.wait(hf.start(stuck(), id="a"))
        deadline = time.monotonic() + 5
        while not ran and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ran == ["endless", "cleaned up"]
    with holdfast.open(url) as hf:
        run = hf.wait(hf.get("a"))
        assert (run.status, run.owner) == ("running", None)


def test_nothing_is_opened_before_its_first_use(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    hf = holdfast.open(file)
    assert not file.exists()
    hf.close()
    assert not file.exists()


def test_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_URL", raising=False)
    assert holdfast.open().url == "sqlite:///holdfast.db"
    monkeypatch.setenv("HOLDFAST_URL", "")
    assert holdfast.open().url == "sqlite:///holdfast.db"
    monkeypatch.setenv("HOLDFAST_URL", "memory://shared")
    assert holdfast.open().url == "memory://shared"
    for refused in ("mysql://u:secret@h/d", ":memory:", ""):
        with pytest.raises(StoreError) as told:
            holdfast.open(refused)
        assert "secret" not in str(told.value)


def test_memory_stores_are_shared_by_name() -> None:
    name = f"memory://{uuid.uuid4()}"

    async def program() -> None:
        async with holdfast.open(name) as one, holdfast.open(name) as same, holdfast.open("memory://") as private:
            await one.run(doubled(1), id="a")
            assert await same.run(doubled(1), id="a") == 2
            with pytest.raises(NotFound):
                await private.get("a")
        async with holdfast.open(name) as later:
            assert (await later.get("a")).result == 2

    asyncio.run(program())
    assert ran == [1]


def test_one_holdfast_in_two_threads_with_two_loops(url: str) -> None:
    hf = holdfast.open(url)
    begin = threading.Barrier(2)
    results: dict[str, list[int]] = {}

    @step
    async def slow(number: int) -> int:
        ran.append(number)
        await asyncio.sleep(0.05)
        return number

    @workflow
    async def plan(number: int) -> int:
        return sum(await asyncio.gather(*(slow(number + each) for each in range(4))))

    def work(name: str, offset: int) -> None:
        async def program() -> None:
            shared = hf.run(plan(1000), id="shared")
            results[name] = await asyncio.gather(
                shared, *(hf.run(plan(offset + 10 * each), id=f"{name}{each}") for each in range(5))
            )

        begin.wait()
        asyncio.run(program())

    threads = [threading.Thread(target=work, args=("a", 100)), threading.Thread(target=work, args=("b", 200))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results["a"] == [4006, *(4 * (100 + 10 * each) + 6 for each in range(5))]
    assert results["b"] == [4006, *(4 * (200 + 10 * each) + 6 for each in range(5))]
    assert len(ran) == len(set(ran)) == 44
    hf.close()


def test_a_module_level_holdfast_over_several_loops(url: str) -> None:
    hf = holdfast.open(url)
    assert asyncio.run(hf.run(doubled(1), id="a")) == 2
    assert asyncio.run(hf.run(doubled(1), id="a")) == 2
    assert asyncio.run(hf.run(doubled(2), id="b")) == 4
    hf.close()


def test_a_loop_that_ends_unloads_its_runs(url: str) -> None:
    """A started run is cut off by the end of ``asyncio.run``: a cancellation from outside, which records nothing."""
    hf = holdfast.open(url)
    go = [False]

    @step
    async def gate() -> int:
        ran.append("gate")
        if not go[0]:
            await asyncio.sleep(3600)
        return 1

    @workflow
    async def plan() -> int:
        return sum(await asyncio.gather(gate(), gate())) + await gate()

    async def begin() -> None:
        await hf.start(plan(), id="a")
        await until(lambda: ran.count("gate") == 2)

    asyncio.run(begin())

    async def again() -> None:
        assert await hf.history("a") == []
        go[0] = True
        assert await asyncio.wait_for(hf.run(plan(), id="a"), 5) == 3

    asyncio.run(again())
    hf.close()


# -- what code in a run may ask for ------------------------------------------------------------------------------


def test_everything_works_plainly_outside_a_run() -> None:
    @step
    async def read(number: int) -> int:
        holdfast.state.setdefault("read", []).append(number)
        holdfast.spend(tokens=3)
        return number

    @workflow
    async def plan() -> list[int]:
        await asyncio.gather(read(1), read(2))
        assert isinstance(holdfast.uuid4(), uuid.UUID) and 0 <= holdfast.random() < 1
        assert abs((holdfast.now() - datetime.now(UTC)).total_seconds()) < 5
        return sorted(holdfast.state["read"])

    assert asyncio.run(plan()) == [1, 2]

    async def with_a_state() -> None:
        holdfast.state["read"] = [0]
        assert await plan() == [0, 1, 2]
        assert dict(holdfast.state) == {"read": [0, 1, 2]} and len(holdfast.state) == 1
        del holdfast.state["read"]
        assert "read" not in holdfast.state and list(holdfast.state) == []
        with pytest.raises(TypeError, match=r"a key of holdfast\.state is a str"):
            holdfast.state[1] = 2  # type: ignore[index]

    asyncio.run(with_a_state())
    assert asyncio.run(plan()) == [1, 2]
    assert holdfast.uuid4() != holdfast.uuid4()
    holdfast.spend(usd=1)
    for ask in (holdfast.run_id, holdfast.current):
        with pytest.raises(NotInRun, match=r"outside every run; start one with hf\.run"):
            ask()


def test_run_id_and_current(url: str) -> None:
    @step
    async def inner() -> bool:
        return (holdfast.run_id(), holdfast.current().url) == ("a", hf_url[0])

    @step
    def in_thread() -> str:
        return holdfast.run_id()

    @workflow
    async def plan() -> list[Any]:
        return [holdfast.run_id(), await inner(), await asyncio.to_thread(in_thread)]

    hf_url = [""]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            hf_url[0] = hf.url
            assert await hf.run(plan(), id="a") == ["a", True, "a"]

    asyncio.run(program())


def test_time_and_chance_are_the_same_on_resume(url: str) -> None:
    fails = [2]
    seen: list[list[Any]] = []

    @step
    async def tick(number: int) -> int:
        await asyncio.sleep(0.01)
        return number

    @step
    async def last() -> None:
        if fails[0]:
            fails[0] -= 1
            raise ValueError

    def ask() -> list[Any]:
        return [holdfast.now(), holdfast.uuid4(), holdfast.random(), holdfast.uuid4()]

    async def branch(number: int) -> list[Any]:
        before = ask()
        await tick(number)
        return before + ask()

    @workflow(version="1")
    async def nested(number: int) -> list[Any]:
        first = ask()
        await tick(number)
        if fails[0]:
            await last()
        return first + ask()

    @workflow(version="1")
    def nested_plain() -> int:
        ask_seen.append(ask())
        return 1

    ask_seen: list[list[Any]] = []

    @workflow(version="1")
    async def plan() -> None:
        found = ask()
        await tick(0)
        found += ask()
        for each in await asyncio.gather(branch(1), branch(2)):
            found += each
        seen.append(found)
        try:
            nested_values = nested(3)
            seen.append(await nested_values)
        finally:
            found += ask()
        await asyncio.to_thread(nested_plain)
        await last()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            for _ in range(2):
                with pytest.raises(StepFailed):
                    await hf.run(plan(), id="a")
                await asyncio.sleep(0.02)
            await hf.run(plan(), id="a")

    asyncio.run(program())
    starts = [found for found in seen if len(found) > 8]
    assert len(starts) == 3 and starts[0][:24] == starts[1][:24] == starts[2][:24]
    times = starts[0][0::4]
    assert times[0] < times[1] <= times[2] < times[3] and times[0].tzinfo is UTC
    chances = [value for value in starts[0] if not isinstance(value, datetime)]
    assert len(set(chances)) == len(chances)


def test_a_nested_workflow_tells_the_same_time_on_resume(url: str) -> None:
    fails = [True]
    seen: list[Any] = []

    @step
    async def last() -> None:
        await asyncio.sleep(0.02)
        if fails:
            raise ValueError

    @workflow(version="1")
    async def nested() -> None:
        seen.append((holdfast.now(), holdfast.uuid4()))
        with pytest.raises(NotInRun):
            holdfast.spend(tokens=1)
        await last()

    @workflow(version="1")
    def nested_plain() -> None:
        seen.append((holdfast.now(), holdfast.uuid4()))
        with pytest.raises(NotInRun):
            holdfast.spend(tokens=1)
        if fails:
            raise ValueError

    @workflow(version="1")
    async def plan() -> None:
        await double(1)
        await asyncio.gather(nested(), asyncio.to_thread(nested_plain), return_exceptions=True)
        await nested()
        await asyncio.to_thread(nested_plain)

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            await asyncio.sleep(0.02)
            first = list(seen)
            seen.clear()
            fails.clear()
            await hf.run(plan(), id="a")
            assert seen[0] == first[-1]

    asyncio.run(program())


class Tokens:
    """A whole number of a library's own kind, as numpy's are."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("spent", "key", "told"),
    [
        ({"tokens": Tokens()}, "k", None),
        ({"tokens": 2**64}, "k", "ValueError"),
        ({"usd": float("nan")}, "k", "ValueError"),
        ({"tokens": 1.5}, "k", "TypeError"),
        ({}, "caf\udce9", "HoldfastError"),
    ],
)
def test_what_a_store_cannot_take_is_refused_before_it_fails_other_runs(
    tmp_path: Path, spent: dict[str, Any], key: str, told: str | None
) -> None:
    """A commit that fails ends every run of its batch, and the journal."""
    ended: list[str] = []

    @step(key=lambda: key)
    async def spending() -> None:
        holdfast.spend(**spent)

    @step
    async def last() -> str:
        while not ended:
            await asyncio.sleep(0.001)
        return "undisturbed"

    @workflow(version="1")
    async def one() -> None:
        await spending()

    @workflow(version="1")
    async def other() -> str:
        return await last()

    async def program() -> None:
        async with holdfast.open(tmp_path / "jobs.db") as hf:
            beside = asyncio.create_task(hf.run(other(), id="b"))
            try:
                await hf.run(one(), id="a")
            except StepFailed as failed:
                ended.append(failed.error_type)
            except HoldfastError as error:
                ended.append(type(error).__name__)
            else:
                ended.append("done")
                assert (await hf.get("a")).spent.tokens == 7
            assert ended == [told or "done"]
            assert await beside == "undisturbed"

    asyncio.run(program())


def test_costs_are_recorded_with_the_step(url: str) -> None:
    tries = [0]

    @step(attempts=2, backoff=0)
    async def flaky() -> None:
        holdfast.spend(tokens=5)
        tries[0] += 1
        if tries[0] == 1:
            raise ValueError  # what a failed attempt cost was spent all the same

    @step
    async def outer() -> None:
        holdfast.spend(usd=1.5)
        await flaky()

    @step
    def in_thread() -> None:
        holdfast.spend(tokens=100)

    @step
    async def bad() -> None:
        holdfast.spend(tokens=1000)
        raise ValueError

    @workflow
    async def plan() -> None:
        with pytest.raises(NotInRun, match="belongs into a step"):
            holdfast.spend(tokens=1)
        await outer()
        await asyncio.to_thread(in_thread)
        with pytest.raises(StepFailed):
            await bad()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.run(plan(), id="a")
            run = await hf.get("a")
            assert (run.spent.tokens, run.spent.usd) == (1110, 1.5)
            assert [(each.tokens, each.usd) for each in await hf.history("a")] == [
                (10, None),
                (None, 1.5),
                (100, None),
                (1000, None),
            ]

    asyncio.run(program())


# -- options of steps --------------------------------------------------------------------------------------------


def failing_once() -> Any:
    fails = [True]

    @step(name="last")
    async def last() -> None:
        if fails:
            fails.clear()
            raise ValueError

    return last


def test_a_key_numbers_a_call_instead_of_its_position(url: str) -> None:
    last = failing_once()
    order = [3, 1, 2]

    def by_number(number: int) -> str:
        return f"n{number}"

    @step(key=by_number)
    async def keyed(number: int) -> int:
        ran.append(number)
        return 10 * number

    @workflow(version="1")
    async def plan() -> list[int]:
        found = [await keyed(number) for number in order]
        await last()
        return found

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            assert [(each.key, each.n) for each in await hf.history("a")][:3] == [("n3", 0), ("n1", 0), ("n2", 0)]
            order[:] = [2, 4, 3, 1]
            assert await hf.run(plan(), id="a") == [20, 40, 30, 10]

    asyncio.run(program())
    assert ran == [3, 1, 2, 4]


def test_ignored_arguments_are_no_inputs(url: str) -> None:
    last = failing_once()
    client = [object()]

    @step(ignore=("client", "password"))
    async def call(client: object, number: int, password: pydantic.SecretStr | None = None) -> int:
        ran.append(number)
        return number

    @workflow(version="1")
    async def plan() -> int:
        found = await call(client[0], 1, pydantic.SecretStr("hunter2"))
        await last()
        return found

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            client[0] = object()
            assert await hf.run(plan(), id="a") == 1
            assert (await hf.history("a"))[0].inputs == {"number": 1}

    asyncio.run(program())
    assert ran == [1]


@pytest.mark.parametrize("secret", [pydantic.SecretStr("hunter2"), {"deep": [pydantic.SecretStr("hunter2")]}])
def test_secrets_are_refused_as_inputs(url: str, secret: Any) -> None:
    @step
    async def login(password: Any) -> None:
        ran.append(password)

    @workflow
    async def plan() -> None:
        await login(secret)

    @workflow
    async def told(password: Any) -> None: ...

    async def program() -> None:
        async with holdfast.open(url) as hf:
            for call, says in ((plan(), r'ignore="password"'), (told(secret), "inside a step")):
                with pytest.raises(CodecError, match=f"password.*{says}") as refused:
                    await hf.run(call, id=call.definition.name)
                assert "hunter2" not in str(refused.value)

    asyncio.run(program())
    assert ran == []


def test_a_record_of_another_version_of_a_step_does_not_fit(url: str) -> None:
    last = failing_once()

    def make(version: int) -> Any:
        @step(name="versioned", version=version)
        async def versioned() -> int:
            return version

        @workflow(name="plan", version="1")
        async def plan() -> int:
            found: int = await versioned()
            await last()
            return found

        return plan()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed):
                await hf.run(make(1), id="a")
            with pytest.raises(Diverged, match="recorded by version '1' of the step, the code is version '2'"):
                await hf.run(make(2), id="a")
            assert await hf.run(make(1), id="a") == 1

    asyncio.run(program())


@dataclasses.dataclass
class Page:
    text: str
    image: object = None


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_result_that_would_not_come_back_is_refused_at_once(url: str, attempts: int) -> None:
    @dataclasses.dataclass
    class Document:
        page: Page

    @step(name="docs", attempts=attempts, backoff=0)
    async def docs() -> list[Document]:
        ran.append("docs")
        return [Document(Page("a", object() if number == 3 else None)) for number in range(5)]

    @workflow
    async def plan() -> int:
        return len(await docs())

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(CodecError, match=r"the result of step 'docs'") as refused:
                await hf.run(plan(), id="a")
            assert refused.value.path == "docs[3].page.image"
            assert "docs[3].page.image" in str(refused.value)
            assert await hf.history("a") == []

    asyncio.run(program())
    assert ran == ["docs"]


def test_an_argument_that_cannot_be_an_input_is_named(url: str) -> None:
    @workflow
    async def plan() -> int:
        return await double({"a": [object()]})  # type: ignore[arg-type]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(CodecError, match=r"the inputs of step 'double'") as refused:
                await hf.run(plan(), id="a")
            assert refused.value.path == "number['a'][0]"

    asyncio.run(program())
    assert ran == []


def test_a_workflows_result_that_would_not_come_back_fails_the_run(url: str) -> None:
    @workflow
    async def plan() -> Any:
        return [await double(1), object()]

    async def program() -> None:
        async with holdfast.open(url) as hf:
            for _ in range(2):
                with pytest.raises(CodecError, match="the result of workflow"):
                    await hf.run(plan(), id="a")
            assert (await hf.get("a")).status == "failed"

    asyncio.run(program())
    assert ran == [1]


def test_returns_says_the_type_where_the_annotation_does_not(url: str) -> None:
    last = failing_once()
    kinds: list[Any] = []

    @step(returns=list[Page])
    async def untyped():  # type: ignore[no-untyped-def]
        return [Page("a")]

    @workflow(version="1")
    async def plan() -> None:
        kinds.append(await untyped())
        await last()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            await hf.run(plan(), id="a")

    asyncio.run(program())
    assert kinds == [[Page("a")]] * 2


def test_busy_is_told_to_who_does_not_wait(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf, holdfast.open(url) as remote:
            running = asyncio.create_task(hf.run(stuck(), id="a"))
            await until(lambda: ran)
            with pytest.raises(Busy, match=f"pid {os.getpid()}.*wait=False"):
                await remote.run(stuck(), id="a", wait=False)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()

    asyncio.run(program())


def test_a_run_cancelled_while_it_is_claimed_is_not_held_for_ever(url: str) -> None:
    """Whoever gives up in the very beginning leaves no lease behind that the heartbeat would prolong."""

    async def program() -> None:
        async with holdfast.open(url) as hf, holdfast.open(url) as remote:
            for turns in range(1, 12):
                running = asyncio.create_task(hf.run(doubled(1), id=f"a{turns}"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                running.cancel()
                await asyncio.wait([running])
            await asyncio.sleep(0.05)
            for turns in range(1, 12):
                assert await remote.run(doubled(1), id=f"a{turns}", wait=False) == 2

    asyncio.run(program())
