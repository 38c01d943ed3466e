"""What calling a step or workflow gives, inside and outside of a run."""

from __future__ import annotations

import asyncio
import collections.abc
import functools
import gc
import inspect
import os
import signal
import threading
import types
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Call, HoldfastError, NotInRun, NotRecorded, StepCall, StepFailed, step, workflow

ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@step
async def double(number: int) -> int:
    ran.append(number)
    await asyncio.sleep(0)
    return 2 * number


@step
def triple(number: int) -> int:
    ran.append(number)
    return 3 * number


@workflow
async def doubled(number: int) -> int:
    return await double(number)


@workflow
def tripled(number: int) -> int:
    return triple(number)


# -- outside a run -----------------------------------------------------------------------------------------------


def test_a_call_is_a_coroutine() -> None:
    call, other = double(1), doubled(1)
    assert type(call) is StepCall and type(other) is Call
    for each in (call, other):
        assert isinstance(each, collections.abc.Coroutine)
        assert asyncio.iscoroutine(each) and inspect.isawaitable(each)
        each.close()
    assert asyncio.iscoroutinefunction(double) and asyncio.iscoroutinefunction(doubled)
    assert not asyncio.iscoroutinefunction(triple) and not asyncio.iscoroutinefunction(tripled)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("marked", [double, doubled])
def test_asyncios_tools_take_a_call(marked: Any, debug: bool) -> None:
    async def program() -> list[int]:
        task = asyncio.create_task(marked(2))
        async with asyncio.TaskGroup() as group:
            in_group = group.create_task(marked(3))
        named = asyncio.create_task(marked(7), name="seven")
        repr(named)
        return [
            await marked(1),
            await task,
            in_group.result(),
            *await asyncio.gather(marked(4), marked(5)),
            await asyncio.wait_for(marked(6), 5),
            await named,
            await asyncio.shield(marked(8)),
            await asyncio.ensure_future(marked(9)),
            *sorted([await each for each in asyncio.as_completed([marked(10), marked(11)])]),
        ]

    assert asyncio.run(program(), debug=debug) == [2 * n for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)]
    assert asyncio.run(marked(12), debug=debug) == 24
    assert len(ran) == 12


def test_plain_ones_are_called_as_ever() -> None:
    assert triple(2) == 6
    assert tripled(2) == 6


def test_another_loop_takes_a_call() -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(doubled(2)) == 4


@pytest.mark.parametrize("marked", [double, doubled])
def test_a_call_never_awaited_warns(marked: Any) -> None:
    with pytest.warns(RuntimeWarning, match=f"'{marked.__name__}' was called but never awaited"):
        marked(1)
        gc.collect()
    assert ran == []


def test_a_call_that_was_used_or_closed_does_not_warn() -> None:
    asyncio.run(doubled(1))
    double(1).close()
    with pytest.raises(RuntimeError, match="make a new one"):
        call = double(1)
        call.close()
        asyncio.run(call)
    del call
    gc.collect()


@pytest.mark.parametrize("marked", [double, doubled])
def test_a_call_awaited_twice_is_an_error(marked: Any) -> None:
    async def twice() -> None:
        call = marked(1)
        await call
        with pytest.raises(RuntimeError, match=f"'{marked.__name__}' was already awaited"):
            await call
        task = asyncio.create_task(call := marked(2))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already awaited"):
            await call
        await task

    asyncio.run(twice())
    assert ran == [1, 2]


def test_a_bound_plain_workflow_is_no_awaitable() -> None:
    async def program() -> None:
        with pytest.raises(TypeError, match=r"plain def.*hf\.run"):
            await tripled.bind(1)

    asyncio.run(program())
    gc.collect()


def test_wrong_arguments_are_a_type_error() -> None:
    async def program() -> None:
        with pytest.raises(TypeError, match="number"):
            await double()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            await double(1, 2)  # type: ignore[call-arg]

    asyncio.run(program())


def test_the_decorated_looks_like_the_function() -> None:
    assert double.__name__ == "double" and double.__module__ == __name__
    assert list(inspect.signature(double).parameters) == ["number"]
    assert inspect.unwrap(double) is double.__wrapped__  # type: ignore[attr-defined]
    call = double(1)
    assert "double" in repr(double) and "double" in repr(call)
    assert call.__qualname__ == "double" and call.__name__ == "double"
    call.close()


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decorator", [step, workflow, step(), workflow()])
def test_generators_are_refused_with_advice(decorator: Any) -> None:
    def pages() -> Iterator[int]:
        yield 1

    async def stream() -> AsyncIterator[int]:
        yield 1

    for function in (pages, stream):
        with pytest.raises(TypeError, match=r"generator.*Return a list.*step of its own"):
            decorator(function)


@pytest.mark.parametrize(
    "options",
    [{"pure": True}, {"on_change": "salvage"}, {"attempt": 3}],
)
def test_unknown_options_of_a_step(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"unexpected option '{next(iter(options))}'.*attempts"):
        step(**options)


@pytest.mark.parametrize("options", [{"attempts": 3}, {"timeout": 1}, {"retention": 1}])
def test_unknown_options_of_a_workflow(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"unexpected option '{next(iter(options))}'"):
        workflow(**options)


async def asynchronous(number: int) -> None: ...


def plain(number: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "error", "says"),
    [
        (plain, {"timeout": 1}, TypeError, "needs an async def.*thread cannot be stopped"),
        (asynchronous, {"timeout": 0}, ValueError, "timeout= must be seconds above 0"),
        (asynchronous, {"timeout": -1.0}, ValueError, "timeout="),
        (asynchronous, {"timeout": "60"}, ValueError, "timeout="),
        (asynchronous, {"timeout": float("nan")}, ValueError, "timeout="),
        (asynchronous, {"attempts": 0}, ValueError, "attempts= must be a whole number from 1"),
        (asynchronous, {"attempts": 1.5}, ValueError, "attempts="),
        (asynchronous, {"attempts": True}, ValueError, "attempts="),
        (asynchronous, {"attempts": None}, ValueError, "attempts="),
        (asynchronous, {"backoff": -1}, ValueError, "backoff= must be seconds from 0"),
        (asynchronous, {"backoff": "1"}, ValueError, "backoff="),
        (asynchronous, {"retry_on": KeyboardInterrupt}, TypeError, "retry_on="),
        (asynchronous, {"retry_on": "ValueError"}, TypeError, "retry_on="),
        (asynchronous, {"retry_on": (ValueError, 3)}, TypeError, "retry_on="),
        (asynchronous, {"retry_on": ValueError()}, TypeError, "retry_on="),
        (asynchronous, {"name": ""}, TypeError, "name="),
        (asynchronous, {"name": 3}, TypeError, "name="),
        (asynchronous, {"name": "two\nlines"}, ValueError, "name= must be on one line"),
        (asynchronous, {"ignore": "client"}, TypeError, "client.*no parameters"),
        (asynchronous, {"ignore": ["number", "client"]}, TypeError, "client"),
        (asynchronous, {"key": "number"}, TypeError, "key="),
        (asynchronous, {"version": 1.5}, TypeError, "version="),
        (asynchronous, {"version": ""}, TypeError, "version="),
    ],
)
def test_bad_values_of_options(function: Any, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        step(**options)(function)


@pytest.mark.parametrize("thing", [3, "double", functools.partial(plain, 1), staticmethod(plain), classmethod(plain)])
@pytest.mark.parametrize("decorator", [step, workflow])
def test_only_functions_are_marked(decorator: Any, thing: Any) -> None:
    with pytest.raises(TypeError, match="needs a function"):
        decorator(thing)


def test_hf_run_takes_only_calls_of_workflows() -> None:
    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            for wrong in (doubled, 3, tripled(1)):
                with pytest.raises(TypeError, match=r"expected a call of a workflow, such as review\(…\)"):
                    await hf.run(wrong, id="a")  # type: ignore[arg-type]
            a_step = double(1)
            with pytest.raises(TypeError, match="call of a workflow"):
                await hf.run(a_step, id="a")  # type: ignore[arg-type]
            a_step.close()
            for wrong in ("", "  ", 3, None, b"a"):
                with pytest.raises(TypeError, match="id= must be"):
                    await hf.run(doubled(1), id=wrong)  # type: ignore[arg-type]
            gc.collect()

    asyncio.run(program())


# -- methods -----------------------------------------------------------------------------------------------------


class Agent:
    def __init__(self, name: str) -> None:
        self.name = name

    @step
    async def think(self, prompt: str, *, hard: bool = False) -> str:
        ran.append(self.name)
        return f"{self.name} thinks {prompt}"

    @step
    def note(self, prompt: str) -> str:
        ran.append(self.name)
        return f"{self.name} notes {prompt}"

    @staticmethod
    @step
    async def still(prompt: str) -> str:
        return f"still {prompt}"

    @classmethod
    @step
    async def common(cls, prompt: str) -> str:
        return f"{cls.__name__} {prompt}"

    @classmethod
    @step
    def common_note(cls, prompt: str) -> str:
        return f"{cls.__name__} {prompt}"

    @workflow(version="1")
    async def answer(self, prompt: str) -> list[str]:
        return [
            await self.think(prompt),
            await Agent.think(self, prompt, hard=True),
            await self.still(prompt),
            await Agent.still(prompt),
            await self.common(prompt),
            await Agent.common(prompt),
            await asyncio.to_thread(self.note, prompt),
            await asyncio.to_thread(Agent.common_note, prompt),
        ]

    @workflow(version="1")
    def answer_plainly(self, prompt: str) -> list[str]:
        return [self.note(prompt), Agent.note(self, prompt), self.common_note(prompt)]


class SubAgent(Agent):
    @step
    async def think(self, prompt: str, *, hard: bool = False) -> str:
        return "sub: " + await super().think(prompt, hard=hard)


def test_methods_inside_and_outside_a_run() -> None:
    ada = Agent("Ada")
    expected = [
        *["Ada thinks on"] * 2,
        *["still on"] * 2,
        *["Agent on"] * 2,
        "Ada notes on",
        "Agent on",
    ]
    plainly = ["Ada notes on", "Ada notes on", "Agent on"]

    async def program() -> None:
        assert await ada.answer("on") == expected
        assert await asyncio.to_thread(ada.answer_plainly, "on") == plainly
        async with holdfast.open("memory://") as hf:
            assert await hf.run(ada.answer("on"), id="a") == expected
            assert await hf.run(ada.answer_plainly.bind("on"), id="b") == plainly
            assert await hf.run(Agent.answer(ada, "on"), id="a") == expected
            history = await hf.history("a")
            assert [each.name for each in history][:2] == ["Agent.think"] * 2
            # self and cls are no inputs
            assert [each.inputs for each in history] == [
                {"prompt": "on"},
                {"prompt": "on", "hard": True},
                *[{"prompt": "on"}] * 6,
            ]
            assert (await hf.get("a")).workflow == "Agent.answer"

    asyncio.run(program())


def test_self_is_no_input() -> None:
    """Another object of the class resumes the run: objects do not outlive processes."""

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            one = await hf.run(Agent("Ada").answer("on"), id="a")
            ran.clear()
            assert await hf.run(Agent("Bob").answer("on"), id="a") == one
            assert ran == []

    asyncio.run(program())


def test_an_overriding_step_calls_the_one_it_overrides() -> None:
    async def program() -> None:
        assert await SubAgent("Eve").think("on") == "sub: Eve thinks on"
        async with holdfast.open("memory://") as hf:
            assert (await hf.run(SubAgent("Eve").answer("on"), id="a"))[0] == "sub: Eve thinks on"

    asyncio.run(program())


def test_a_classmethod_as_python_3_13_binds_it() -> None:
    """There ``classmethod`` passes the class as the first argument, and does not ask ``__get__``."""
    common = types.MethodType(Agent.__dict__["common"].__func__, Agent)

    @workflow
    async def plan() -> str:
        return str(await common("on"))

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await plan() == "Agent on"
            assert await hf.run(plan(), id="a") == "Agent on"
            assert [each.inputs for each in await hf.history("a")] == [{"prompt": "on"}]

    asyncio.run(program())


def test_a_step_borrowed_as_an_attribute_stays_what_it_was() -> None:
    class Borrower:
        twice = double
        thrice = staticmethod(triple)

    @workflow
    async def plan() -> list[int]:
        return [await double(1), await asyncio.to_thread(Borrower.thrice, 1)]

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan(), id="a") == [2, 3]
            assert [each.inputs for each in await hf.history("a")] == [{"number": 1}] * 2

    asyncio.run(program())


# -- inside a run ------------------------------------------------------------------------------------------------


def test_a_call_never_awaited_warns_in_a_run_too() -> None:
    @workflow
    async def plan() -> int:
        double(1)
        gc.collect()
        return await double(2)

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.warns(RuntimeWarning, match="'double' was called but never awaited"):
                assert await hf.run(plan(), id="a") == 4

    asyncio.run(program())
    assert ran == [2]


def test_a_call_that_was_refused_does_not_warn_besides() -> None:
    def bad_key(number: int) -> str:
        return ""

    @step(key=bad_key)
    async def keyed(number: int) -> int:
        return number

    @workflow
    async def plan() -> int:
        with pytest.raises(HoldfastError, match="key= must return a non-empty str"):
            keyed(1)
        gc.collect()
        return 1

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan(), id="a") == 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(program())


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_text_that_no_store_can_hold_is_refused_where_it_is_given(text: str) -> None:
    """In a batch it would take other runs' rows along."""

    async def anything(number: int) -> int:
        return number

    for options in ({"name": text}, {"version": text}):
        with pytest.raises(TypeError, match="which no store can hold"):
            step(**options)(anything)
        with pytest.raises(TypeError, match="which no store can hold"):
            workflow(**options)(anything)
    keyed = step(key=lambda number: text)(anything)

    @workflow
    async def plan() -> int:
        with pytest.raises(HoldfastError, match="which no store can hold"):
            keyed(1)
        return 1

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan(), id="a") == 1
            again = plan()
            with pytest.raises(TypeError, match="id= must be"):
                await hf.run(again, id=text)
            again.close()

    asyncio.run(program())


def test_a_plain_step_on_the_loops_thread_is_refused() -> None:
    @workflow
    async def plan() -> int:
        with pytest.raises(HoldfastError, match=r"await asyncio\.to_thread\(triple, …\)"):
            triple(1)
        return await asyncio.to_thread(triple, 2)

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan(), id="a") == 6
            assert [each.n for each in await hf.history("a")] == [0]

    asyncio.run(program())
    assert ran == [2]


def test_a_plain_workflow_inside_a_run_blocks_neither() -> None:
    @workflow
    async def plan() -> int:
        with pytest.raises(HoldfastError, match=r"asyncio\.to_thread"):
            tripled(1)
        return await asyncio.to_thread(tripled, 2)

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan(), id="a") == 6
            assert [(each.kind, each.name, each.scope) for each in await hf.history("a")] == [
                ("step", "triple", "tripled#0"),
                ("workflow", "tripled", ""),
            ]

    asyncio.run(program())


def test_without_a_loop() -> None:
    with holdfast.open("memory://") as hf:
        assert hf.wait(hf.run(tripled.bind(2), id="a")) == 6
        assert hf.wait(hf.run(tripled.bind(2), id="a")) == 6
        assert hf.wait(hf.run(doubled(3), id="b")) == 6
        assert hf.wait(hf.run(doubled.bind(3), id="b")) == 6
        run = hf.wait(hf.start(tripled.bind(5)))
        assert hf.wait(run.wait()) == 15
        assert [each.name for each in hf.wait(hf.history("a"))] == ["triple"]
        with pytest.raises(holdfast.NotFound):
            hf.wait(hf.get("none"))
    assert ran == [2, 3, 5]


def test_wait_refuses_where_a_loop_is_running() -> None:
    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.raises(HoldfastError, match=r"await hf\.run"):
                hf.wait(hf.get("a"))

    asyncio.run(program())


def test_a_plain_workflow_runs_in_a_thread_of_its_own() -> None:
    where: list[threading.Thread] = []

    @workflow
    def plan() -> int:
        where.append(threading.current_thread())
        return triple(1)

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan.bind(), id="a") == 3

    asyncio.run(program())
    assert where[0] is not threading.main_thread()


def test_a_step_in_a_thread_that_lost_its_run_warns_with_the_call_site() -> None:
    @workflow
    async def plan() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, triple, 1)

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.warns(NotRecorded, match=r"'triple'.*asyncio\.to_thread"):
                assert await hf.run(plan(), id="a") == 3
            assert await hf.history("a") == []

    asyncio.run(program())


def test_an_async_step_in_a_thread_that_lost_its_run_warns_too() -> None:
    """Also on a loop of the thread's own, since no run lives on that one."""

    @workflow
    async def plan() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(double(2)))

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.warns(NotRecorded, match=r"'double'.*asyncio\.to_thread") as told:
                assert await hf.run(plan(), id="a") == 4
            assert told[0].filename == __file__
            assert await hf.history("a") == []

    asyncio.run(program())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_process_forked_by_a_run_is_no_part_of_it() -> None:
    """The loop that answers the run's calls is the parent's: the child would wait for it for ever."""

    def told_by_child() -> str:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                value = triple(2) + asyncio.run(double(2))
            os.write(writing, f"{value} {[each.category.__name__ for each in caught]} {caught[0].message}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        return os.fdopen(reading).read()

    @workflow
    def plan() -> str:
        return told_by_child()

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            told = await hf.run(plan.bind(), id="a")
            assert told.startswith("10 ['NotRecorded', 'NotRecorded'] step 'triple' was called in a process"), told
            assert "forked by run 'a'" in told
            assert await hf.history("a") == []

    asyncio.run(program())


def test_a_call_made_in_a_run_and_awaited_outside_of_it_is_refused() -> None:
    made: list[StepCall[int]] = []

    @workflow
    async def plan() -> None:
        made.append(double(1))

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            await hf.run(plan(), id="a")
            with pytest.raises(NotInRun, match="not part of it"):
                await made.pop()

    asyncio.run(program())
    assert ran == []


def test_a_result_is_a_value_of_its_own_the_first_time_too(tmp_path: Path) -> None:
    """A recalled result shares nothing with what the step held, or with itself; a live one must not either."""
    held: list[Any] = [[0], [0]]

    @step
    async def given(items: list[int]) -> list[int]:
        return items

    @step
    async def cached() -> list[Any]:
        return held

    @step
    async def tangled() -> list[list[int]]:
        return [[0]] * 2

    @step
    async def last() -> None:
        if not ran:
            ran.append("failed")
            raise ValueError

    @workflow(version="1")
    async def plan() -> list[Any]:
        items = [1]
        found = [await given(items), await cached(), await tangled()]
        found[0].append(2)
        found[1][0].append(2)
        found[2][0].append(2)
        held[1].append(3)
        await last()
        return [items, *found]

    async def program() -> None:
        async with holdfast.open(tmp_path / "jobs.db") as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            expected = [[1], [1, 2], [[0, 2], [0]], [[0, 2], [0]]]
            assert await hf.run(plan(), id="a") == expected
            held[:] = [[0], [0]]
            assert await hf.run(plan(), id="b") == expected

    asyncio.run(program())


def test_a_step_that_changes_its_arguments_warns_that_a_resume_would_not() -> None:
    @step
    async def append(items: list[int], item: int) -> int:
        items.append(item)
        return item

    @step(ignore="items")
    async def append_ignored(items: list[int], item: int) -> int:
        items.append(item)
        return item

    @workflow
    async def plan() -> list[int]:
        items = [1]
        await append_ignored(items, 2)
        with pytest.warns(NotRecorded, match=r"run 'a': the arguments of step .*append' were changed") as told:
            await append(items, 3)
        assert [each.filename for each in told] == [__file__]
        return items

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan(), id="a") == [1, 2, 3]

    asyncio.run(program())


def test_two_steps_of_one_name_in_a_run_are_refused_with_the_way_out() -> None:
    @step(name="fetch")
    async def one() -> int:
        return 1

    @step(name="fetch")
    async def other() -> int:
        return 2

    @workflow
    async def plan() -> None:
        await one()
        await other()

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.raises(HoldfastError, match=r"two different steps are named 'fetch'.*@step\(name=…\)"):
                await hf.run(plan(), id="a")

    asyncio.run(program())


def test_nested_workflows_are_scopes_and_hf_run_makes_runs_of_their_own() -> None:
    @workflow
    async def plan() -> list[int]:
        inside = await doubled(1)
        own = await holdfast.current().run(doubled(2), id=f"{holdfast.run_id()}/child")
        return [inside, own]

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(plan(), id="a") == [2, 4]
            assert [(each.kind, each.name, each.scope) for each in await hf.history("a")] == [
                ("step", "double", "doubled#0"),
                ("workflow", "doubled", ""),
                ("run", "doubled", ""),  # began to wait …
                ("run", "doubled", ""),  # … and for what came of it
            ]
            assert [each.name for each in await hf.history("a/child")] == ["double"]
            assert (await hf.get("a/child")).result == 4

    asyncio.run(program())
    assert ran == [1, 2]


def test_own_runs_are_not_done_again_on_resume() -> None:
    fails = [True]

    @step
    async def last() -> int:
        if fails:
            raise ValueError("not yet")
        return 1

    @workflow
    async def plan() -> int:
        own = await holdfast.current().run(doubled(2), id="child")
        return own + await last()

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            fails.clear()
            assert await hf.run(plan(), id="a") == 5

    asyncio.run(program())
    assert ran == [2]


def test_a_run_ends_when_its_own_run_fails(tmp_path: Path) -> None:
    @step
    async def bad() -> None:
        raise ValueError("no")

    @workflow
    async def child() -> None:
        await bad()

    @workflow
    async def plan() -> str:
        try:
            await holdfast.current().run(child(), id="child")
        except StepFailed as failure:
            return failure.message
        return ""

    async def program() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            assert await hf.run(plan(), id="a") == "no"
            assert (await hf.get("child")).status == "failed"

    asyncio.run(program())
