"""Promise 8: what must stop a run cannot be swallowed."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Cancelled, Diverged, Fenced, HoldfastError, StepFailed, StoreError, step, workflow
from holdfast.store import Batch, Committed

LIMIT_S = 12  # hf.run gives a stopped program five seconds for its cleanup

ran: list[Any] = []
inputs = [1]
broken: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()
    broken.clear()
    inputs[:] = [1]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else str(tmp_path / "jobs.db")


@step
async def first(number: int) -> int:
    ran.append("first")
    return number


@step
async def trouble(number: int) -> int:
    """Where the run is stopped: its inputs differ, or the store is lost while it runs."""
    ran.append("trouble")
    await asyncio.sleep(0)
    return number


@step
async def later(name: str = "later") -> str:
    ran.append(name)
    return name


@step
async def end() -> None:
    ran.append("end")
    if inputs == [1]:
        raise LookupError("not yet")


# -- programs that swallow what they can -------------------------------------------------------------------------


async def except_exception() -> Any:
    try:
        return await trouble(inputs[0])
    except Exception as error:
        ran.append(error)
    return await later()


async def except_everything() -> Any:
    try:
        return await trouble(inputs[0])
    except BaseException:
        pass
    return await later()


async def gathered() -> Any:
    found = await asyncio.gather(trouble(inputs[0]), return_exceptions=True)
    await later()
    return [str(each) for each in found]


async def in_finally() -> Any:
    try:
        return await trouble(inputs[0])
    finally:
        await later()


async def agent_loop() -> Any:
    for turn in range(5):
        try:
            await trouble(inputs[0])
            await later(f"tool {turn}")
        except Exception as error:
            ran.append(error)
    return 0


async def in_group() -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(trouble(inputs[0]))
    except* Exception as errors:
        ran.append(errors)
    except* BaseException:
        pass
    return await later()


async def in_task() -> Any:
    task = asyncio.create_task(trouble(inputs[0]))
    done, _ = await asyncio.wait([task])
    assert done
    await asyncio.sleep(0)
    return await later()


async def shielded() -> Any:
    try:
        return await asyncio.shield(trouble(inputs[0]))
    except asyncio.CancelledError:
        return await later()


async def in_thread() -> Any:
    def body() -> Any:
        try:
            return threaded_trouble(inputs[0])
        except Exception as error:
            ran.append(error)
        except BaseException:
            pass
        return threaded_later()

    return await asyncio.to_thread(body)


@step(name="trouble")
def threaded_trouble(number: int) -> int:
    ran.append("trouble")
    return number


@step
def threaded_later() -> None:
    ran.append("later")


PROGRAMS: list[Callable[[], Awaitable[Any]]] = [
    except_exception,
    except_everything,
    gathered,
    in_finally,
    agent_loop,
    in_group,
    in_task,
    shielded,
    in_thread,
]
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.__name__)


@workflow(version="1")
async def plan(which: int) -> None:
    await first(1)
    try:
        await PROGRAMS[which]()
    finally:
        if broken:
            # also what runs after it all, in the wreckage
            try:
                await later("wreckage")
            except Exception as error:
                ran.append(error)
    await end()


def break_store(hf: holdfast.Holdfast, how: str, when: Callable[[Batch], bool]) -> None:
    """The commit that ``when`` picks out fails as it would if the disk, or the lease, were lost."""
    commit = hf._store.commit

    def breaking(batch: Batch) -> Committed:
        if batch.appends and when(batch):
            broken.append(how)
        if broken and how == "lost":
            raise StoreError("the disk is gone")
        if broken and how == "fenced":
            return Committed(fenced={row.run_no for row in [*batch.appends, *batch.finishes]})
        return commit(batch)

    hf._store.commit = breaking  # type: ignore[method-assign]


@every_program
def test_divergence_stops_the_run(program: Callable[[], Any], url: str) -> None:
    which = PROGRAMS.index(program)

    async def main() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(StepFailed, match="not yet"):
                await hf.run(plan(which), id="a")
            rows = await hf.history("a")
            ran.clear()
            inputs[0] = 2
            broken.append("diverged")
            with pytest.raises(Diverged, match="number: recorded 1, now 2"):
                await asyncio.wait_for(hf.run(plan(which), id="a"), LIMIT_S)
            assert ran == []
            assert await hf.history("a") == rows
            run = await hf.get("a")
            assert (run.status, run.owner) == ("parked", None) and "Diverged" in str(run.error)

    asyncio.run(main())


@every_program
@pytest.mark.parametrize(("how", "error"), [("fenced", Fenced), ("lost", StoreError)])
def test_a_refused_write_stops_the_run(
    program: Callable[[], Any], how: str, error: type[HoldfastError], url: str
) -> None:
    which = PROGRAMS.index(program)

    async def main() -> None:
        async with holdfast.open(url) as hf:
            break_store(hf, how, lambda batch: any(row.name == "trouble" for row in batch.appends))
            with pytest.raises(error):
                await asyncio.wait_for(hf.run(plan(which), id="a"), LIMIT_S)
            assert ran == ["first", "trouble"]
        async with holdfast.open(url) as hf:
            assert [each.name for each in await hf.history("a")] == ["first"]

    asyncio.run(main())


@every_program
def test_cancel_stops_the_run(program: Callable[[], Any], url: str) -> None:
    which = PROGRAMS.index(program)

    async def main() -> None:
        async with holdfast.open(url) as hf:
            reached = asyncio.Event()
            cancelled = threading.Event()
            loop = asyncio.get_running_loop()
            commit = hf._store.commit

            def slowly(batch: Batch) -> Committed:
                if any(row.name == "trouble" for row in batch.appends) and not broken:
                    broken.append("cancelled")
                    loop.call_soon_threadsafe(reached.set)
                    cancelled.wait(LIMIT_S)
                return commit(batch)

            hf._store.commit = slowly  # type: ignore[method-assign]
            running = asyncio.create_task(hf.run(plan(which), id="a"))
            await asyncio.wait_for(reached.wait(), LIMIT_S)
            await hf.cancel("a")
            cancelled.set()
            with pytest.raises(Cancelled):
                await asyncio.wait_for(running, LIMIT_S)
            assert [each for each in ran if isinstance(each, Exception)] == []
            assert "later" not in ran and "wreckage" not in ran and "end" not in ran
            assert (await hf.get("a")).status == "cancelled"

    asyncio.run(main())


# -- programs that never give up ---------------------------------------------------------------------------------


@workflow(version="1")
async def never_gives_up() -> None:
    while True:
        try:
            await trouble(inputs[0])
            await later()
        except BaseException as error:
            ran.append(type(error).__name__)
            if len(ran) > 200_000:
                raise SystemExit("spinning") from None  # so that this test ends


@workflow(version="1")
async def never_gives_up_asleep() -> None:
    while True:
        try:
            await trouble(inputs[0])
            await asyncio.sleep(0.001)
        except BaseException:
            ran.append("again")


@workflow(version="1")
def never_gives_up_in_a_thread() -> None:
    while True:
        try:
            threaded_trouble(inputs[0])
            time.sleep(0.001)
        except BaseException:
            ran.append("again")
            if len(ran) > 200_000:
                return


@workflow(version="1")
async def never_gives_up_in_tasks() -> None:
    async def worker() -> None:
        while True:
            try:
                await trouble(inputs[0])
            except BaseException:
                ran.append("again")
                if len(ran) > 200_000:
                    raise SystemExit("spinning") from None

    await asyncio.gather(worker(), worker())


STUBBORN = [never_gives_up, never_gives_up_asleep, never_gives_up_in_a_thread, never_gives_up_in_tasks]


def in_a_process_of_its_own(test: str, tmp_path: Path) -> None:
    """A program that cannot be stopped would take the whole suite with it."""
    import subprocess
    import sys

    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_poison\ntest_poison.{test}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=20, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.endswith("ended\n")


def stop_a_stubborn_one(which: int, how: str) -> None:
    call = STUBBORN[which]

    async def main() -> None:
        async with holdfast.open(f"memory://{uuid.uuid4()}") as hf:
            if how == "fenced":
                break_store(hf, how, lambda _: len(ran) > 4)
            began = time.monotonic()
            running = asyncio.create_task(hf.run(call.bind(), id="a"))
            while not ran:
                await asyncio.sleep(0.001)
            if how == "cancelled":
                await hf.cancel("a")
            try:
                if how == "unloaded":
                    running.cancel()
                await running
            except (Fenced, Cancelled, asyncio.CancelledError) as error:
                print(type(error).__name__)
            assert time.monotonic() - began < LIMIT_S
            assert len(ran) < 200_000, "it kept the processor busy"

    asyncio.run(main())
    print("ended")


STOPS = [
    (never_gives_up, "fenced"),
    (never_gives_up, "cancelled"),
    (never_gives_up_asleep, "unloaded"),
    (never_gives_up_in_a_thread, "fenced"),
    (never_gives_up_in_tasks, "cancelled"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "how"), STOPS, ids=[f"{program.__name__}-{how}" for program, how in STOPS])
def test_a_program_that_never_gives_up_is_left_behind(program: Any, how: str, tmp_path: Path) -> None:
    in_a_process_of_its_own(f"stop_a_stubborn_one({STUBBORN.index(program)}, {how!r})", tmp_path)


# -- threads -----------------------------------------------------------------------------------------------------


def test_a_plain_workflow_stops_too(url: str) -> None:
    @workflow(version="1")
    def plain_plan() -> None:
        for _ in range(3):
            try:
                threaded_trouble(inputs[0])
            except Exception as error:
                ran.append(error)
        if inputs == [1]:
            raise LookupError

    async def main() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(LookupError):
                await hf.run(plain_plan.bind(), id="a")
            ran.clear()
            inputs[0] = 2
            with pytest.raises(Diverged):
                await asyncio.wait_for(hf.run(plain_plan.bind(), id="a"), LIMIT_S)
            assert ran == []

    asyncio.run(main())
    assert threading.active_count() < 20
