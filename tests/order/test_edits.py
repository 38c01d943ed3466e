"""What a resume says when the code was edited between crash and resume, and where a call has no place in the record."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import harness
import pytest
from harness import execute, on_loop, restored

import holdfast
from holdfast import branches, step, workflow
from holdfast.app import Holdfast
from holdfast.store.memory import MemoryStore

did: list[str] = []


@step
async def a(x: int = 0) -> str:
    did.append(f"a{x}")
    return f"a{x}"


@step
async def b(x: int = 0) -> str:
    did.append(f"b{x}")
    return f"b{x}"


@step
async def c(x: int = 0) -> str:
    did.append(f"c{x}")
    return f"c{x}"


def edited(
    before: Callable[[], Coroutine[Any, Any, Any]],
    after: Callable[[], Coroutine[Any, Any, Any]],
    *,
    cut: int,
    version: str = "1",
) -> harness.Record:
    """Run ``before``, crash after ``cut`` checkpoints, and resume it as ``after``."""
    first = workflow(name="edited", version="1")(before)
    then = workflow(name="edited", version=version)(after)

    async def main() -> harness.Record:
        record = await execute(first, "edited", MemoryStore(), 0)
        assert record.error is None, record.error
        did.clear()
        return await execute(then, "edited", restored(record, cut), 0)

    record: harness.Record = on_loop("asyncio", main())
    return record


async def three() -> list[str]:
    return [await a(1), await b(2), await c(3)]


async def three_at_once() -> list[str]:
    return list(await asyncio.gather(a(1), b(2), c(3)))


def test_an_inserted_step_of_another_name_is_executed_and_the_rest_recalled() -> None:
    async def inserted() -> list[str]:
        return [await a(1), await c(9), await b(2)]

    async def two() -> list[str]:
        return [await a(1), await b(2)]

    record = edited(two, inserted, cut=2)
    assert record.result == ["a1", "c9", "b2"] and did == ["c9"]
    assert record.unclaimed == []


@pytest.mark.parametrize("whole", [three, three_at_once])
def test_a_removed_step_is_left_alone(whole: Any) -> None:
    async def removed() -> list[str]:
        return list(await asyncio.gather(a(1), c(3))) if whole is three_at_once else [await a(1), await c(3)]

    record = edited(whole, removed, cut=3)
    assert record.result == ["a1", "c3"] and did == []
    assert [name.rpartition(" ")[2] for name in record.unclaimed] == ["b#0"]


def test_a_removed_call_of_the_same_step_lets_the_others_move_up() -> None:
    async def loop() -> list[str]:
        return [await a(x) for x in (1, 2, 3)]

    async def shorter() -> list[str]:
        return [await a(x) for x in (2, 3)]

    record = edited(loop, shorter, cut=3)
    assert record.result == ["a2", "a3"] and did == []


def test_reordered_steps_keep_their_records() -> None:
    async def loop() -> list[str]:
        return [await a(x) for x in (1, 2, 3)]

    async def backwards() -> list[str]:
        return [await b(0), *[await a(x) for x in (3, 2, 1)]]

    record = edited(loop, backwards, cut=3)
    assert record.result == ["b0", "a3", "a2", "a1"] and did == ["b0"]


def test_a_call_in_flight_does_not_take_the_record_of_its_twin() -> None:
    """Both were made at once with the same inputs; the record of the second is not for the first."""
    racing: list[str] = []

    @step(name="racer")
    async def racer(x: int) -> str:
        racing.append("run")
        if len(racing) == 1:
            await asyncio.sleep(0.002)
        return f"run {len(racing)}"

    async def race() -> int:
        twins = [asyncio.create_task(racer(1)), asyncio.create_task(racer(1))]
        done, _ = await asyncio.wait(twins, return_when=asyncio.FIRST_COMPLETED)
        winner = next(k for k, task in enumerate(twins) if task in done)
        await b(winner)
        await asyncio.wait(twins)
        return winner

    record = edited(race, race, cut=1)
    assert (record.error, record.result) == (None, 1)


def test_other_inputs_raise_diverged_and_say_what_was_and_what_is() -> None:
    async def other() -> list[str]:
        return [await a(1), await b(7), await c(3)]

    record = edited(three, other, cut=3)
    assert isinstance(record.error, holdfast.Diverged)
    said = str(record.error)
    assert "checkpoint 2" in said and "'b'" in said and "recorded 2, now 7" in said and "edited" in said
    assert record.run.status == "parked" and did == []


def test_diverged_passes_except_exception() -> None:
    async def swallowing() -> list[str]:
        got = [await a(1)]
        with contextlib.suppress(Exception):
            got.append(await b(7))
        await asyncio.gather(c(8), c(9), return_exceptions=True)
        return got

    record = edited(three, swallowing, cut=2)
    assert isinstance(record.error, holdfast.Diverged) and did == []


def test_a_record_of_another_branch_is_not_taken() -> None:
    async def branch(x: int) -> str:
        return await a(x)

    async def two() -> list[str]:
        return list(await asyncio.gather(branch(1), branch(2)))

    async def swapped() -> list[str]:
        return list(await asyncio.gather(branch(2), branch(1)))

    record = edited(two, swapped, cut=2)
    assert isinstance(record.error, holdfast.Diverged) and did == []


def test_another_version_is_refused() -> None:
    record = edited_version()
    assert isinstance(record, holdfast.VersionMismatch)
    assert "'1'" in str(record) and "'2'" in str(record)


def edited_version() -> BaseException:
    async def main() -> BaseException:
        first, then = (
            workflow(name="edited", version="1")(three),
            workflow(name="edited", version="2", on_change="refuse")(three),
        )
        record = await execute(first, "edited", MemoryStore(), 0)
        async with Holdfast(restored(record, 2)) as hf:
            with pytest.raises(holdfast.VersionMismatch) as raised:
                await hf.run(then(), id="edited", state=harness.INITIAL)
        return raised.value

    error: BaseException = on_loop("asyncio", main())
    return error


# -- calls that have no place ----------------------------------------------------------------------------------


async def in_run(body: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with Holdfast(MemoryStore()) as hf:
        return await hf.run(workflow(name="placeless", version="1")(body)(), id="placeless")


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@LOOPS
def test_two_different_steps_of_one_name_are_refused(loop: str) -> None:
    def made(value: int) -> Any:
        if value:

            @step(name="double")
            async def one() -> int:
                return 1

            return one

        @step(name="double")
        async def two() -> int:
            return 2

        return two

    async def body() -> list[int]:
        return [await made(0)(), await made(1)()]

    with pytest.raises(holdfast.HoldfastError, match=r"two different steps are named 'double'.*name="):
        on_loop(loop, in_run(body))


@LOOPS
def test_a_task_made_behind_the_factorys_back_raises(loop: str) -> None:
    async def body() -> str:
        running = asyncio.get_running_loop()
        ours = running.get_task_factory()
        running.set_task_factory(None)
        try:

            async def lost() -> str:
                return await a(1)

            await asyncio.create_task(lost())
        finally:
            running.set_task_factory(ours)
        return "not reached"

    with pytest.raises(holdfast.NotInRun, match=r"behind holdfast's back"):
        on_loop(loop, in_run(body))


@LOOPS
def test_a_task_made_after_the_end_of_its_run_is_told_so(loop: str) -> None:
    """As a library does that keeps the context in which it was called."""
    contexts: list[contextvars.Context] = []

    async def late() -> str:
        return await a(1)

    @workflow(version="1")
    async def ends() -> str:
        contexts.append(contextvars.copy_context())
        return "ended"

    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(ends(), id="over") == "ended"
            await contexts[0].run(asyncio.create_task, late())

    with pytest.raises(holdfast.NotInRun, match=r"run 'over' has ended, and what this task .* can no longer"):
        on_loop(loop, main())


@LOOPS
@pytest.mark.parametrize("what", ["a step", "the state", "a random number"])
def test_a_callback_of_the_loop_raises(loop: str, what: str) -> None:
    """It runs in no task. A step called there was executed on every resume and recorded in none."""

    async def body() -> str:
        running = asyncio.get_running_loop()
        called: asyncio.Future[Any] = running.create_future()

        def callback(_: object) -> None:
            try:
                if what == "a step":
                    called.set_result(asyncio.ensure_future(a(1)))
                elif what == "the state":
                    called.set_result(holdfast.state.setdefault("called", True))
                else:
                    called.set_result(holdfast.random())
            except Exception as error:
                called.set_exception(error)

        running.create_task(asyncio.sleep(0)).add_done_callback(callback)
        return str(await called)

    with pytest.raises(holdfast.NotInRun, match=r"callback .* in no task"):
        on_loop(loop, in_run(body))


@LOOPS
@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
def test_an_eager_task_raises(loop: str) -> None:
    async def body() -> str:
        async def eager() -> str:
            return await a(1)

        return await asyncio.create_task(eager())

    async def main() -> Any:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        return await in_run(body)

    with pytest.raises(holdfast.NotInRun, match=r"eager"):
        on_loop(loop, main())


@LOOPS
def test_a_factory_that_was_there_before_is_asked_too(loop: str) -> None:
    made: list[str] = []

    async def body() -> str:
        async def member() -> str:
            return await a(1)

        return await asyncio.create_task(member())

    async def main() -> Any:
        def counting(running: Any, coro: Any, **kwargs: Any) -> Any:
            made.append(coro.__qualname__)
            return asyncio.Task(coro, loop=running, **kwargs)

        asyncio.get_running_loop().set_task_factory(counting)
        return await in_run(body)

    assert on_loop(loop, main()) == "a1"
    assert any(name.endswith("member") for name in made)


@step
def plain(x: int) -> int:
    return x


@LOOPS
def test_a_step_in_a_bare_thread_warns_that_it_is_not_recorded(loop: str) -> None:
    async def body() -> int:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, plain, 1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert asyncio_run(loop, in_run(body)) == 1
    said = [each for each in caught if issubclass(each.category, holdfast.NotRecorded)]
    assert said and "'plain'" in str(said[0].message)


def asyncio_run(loop: str, main: Coroutine[Any, Any, Any]) -> Any:
    factory: Any = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


@LOOPS
def test_a_plain_step_on_the_loops_thread_names_the_way(loop: str) -> None:
    async def body() -> int:
        return plain(1)

    with pytest.raises(holdfast.HoldfastError, match=r"await asyncio\.to_thread\(plain, …\)"):
        on_loop(loop, in_run(body))


async def _member(x: int) -> str:
    return await a(x)


@LOOPS
@pytest.mark.parametrize("make", [set, iter], ids=["set", "generator"])
def test_as_completed_over_what_has_no_order_raises(loop: str, make: Any) -> None:
    async def body() -> list[str]:
        members = [_member(k) for k in range(3)]
        try:
            return [await each for each in asyncio.as_completed(make(members))]
        finally:
            for each in members:
                each.close()

    with pytest.raises(holdfast.HoldfastError, match=r"Give it a list"):
        on_loop(loop, in_run(body))


@LOOPS
def test_as_completed_over_tasks_may_be_a_set(loop: str) -> None:
    """They were numbered when they were made."""

    async def body() -> list[str]:
        tasks = {asyncio.create_task(_member(k)) for k in range(3)}
        return sorted([await each for each in asyncio.as_completed(tasks)])

    assert on_loop(loop, in_run(body)) == ["a0", "a1", "a2"]


@LOOPS
def test_the_tasks_of_as_completed_begin_in_the_order_of_its_list(loop: str) -> None:
    """Else who comes first to a semaphore follows memory addresses, and with it the order of all that is recorded."""

    async def body() -> list[str]:
        began: list[str] = []
        turn = asyncio.Semaphore(2)

        async def member(k: int) -> None:
            async with turn:
                began.append(await a(k))

        for _ in range(3):
            for each in asyncio.as_completed([member(k) for k in range(20)]):
                await each
        return began

    assert on_loop(loop, in_run(body)) == [f"a{k}" for k in range(20)] * 3


@LOOPS
def test_numbers_do_not_depend_on_where_as_completed_finds_its_coroutines(loop: str) -> None:
    async def body() -> list[str]:
        frames = []

        async def member(k: int) -> None:
            frames.append((k, branches.current_frame().branch))

        for _ in range(2):
            for each in asyncio.as_completed([member(k) for k in range(20)]):
                await each
        return [branch.rpartition("#")[2] for _, branch in sorted(frames, key=lambda each: each[0])]

    numbers = on_loop(loop, in_run(body))
    assert numbers == [str(n) for k in range(20) for n in (k, k + 20)]


@LOOPS
def test_two_tasks_that_share_a_context_are_two_branches(loop: str) -> None:
    async def body() -> list[str]:
        shared = contextvars.copy_context()
        tasks = [asyncio.get_running_loop().create_task(_member(k), context=shared) for k in range(2)]
        return [await task for task in tasks]

    assert on_loop(loop, in_run(body)) == ["a0", "a1"]


def test_many_records_that_are_asked_for_no_more_end_in_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.patience.PATIENCE_S", 0.05)

    async def before() -> list[str]:
        await asyncio.gather(*(a(x) for x in range(1500)))
        return await asyncio.gather(b(1), b(2))

    async def after() -> list[str]:
        return await asyncio.gather(b(1), b(2))

    record = edited(before, after, cut=1501)
    assert (record.result, did) == (["b1", "b2"], ["b2"])
    assert len(record.unclaimed) == 1500


def test_a_record_that_changed_code_put_another_in_the_place_of_is_still_recalled() -> None:
    async def before() -> list[str]:
        return [await a(1), await a(2)]

    async def after() -> list[str]:
        return [await a(2), await a(2)]

    first = workflow(name="edited", version="1")(before)
    then = workflow(name="edited", version="1")(after)

    async def main() -> None:
        record = await execute(first, "edited", MemoryStore(), 0)
        for expected in (["a2"], []):
            did.clear()
            record = await execute(then, "edited", restored(record, len(record.rows)), 0)
            assert (record.result, did) == (["a2", "a2"], expected)

    on_loop("asyncio", main())
