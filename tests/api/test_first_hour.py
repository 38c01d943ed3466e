"""What a newcomer gets wrong in the first hour, and what is said about it: whole messages, as they are read."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Busy, HoldfastError, Mismatch, NotInRun, NotRecorded, StepFailed, step, workflow


class Client:
    """Something that lives in one process: a connection, an API client."""


@dataclass
class Page:
    text: str


@step
async def fetch(client: Client, url: str) -> str:
    return url


@step(ignore="client")
async def fetch_with(client: Client, url: str) -> str:
    return url


@step
async def parse(text: str):  # type: ignore[no-untyped-def]  # that nothing says what it returns is the point
    return Page(text)


@step
async def parse_into(text: str) -> dict[str, Any]:
    return {"pages": [Page(text)]}


@step
async def keep(text: str) -> None:
    holdfast.state["page"] = Page(text)


@step
async def length(text: str) -> int:
    return len(text)


@step
def count(text: str) -> int:
    return len(text)


@workflow
async def fetching(url: str) -> str:
    return await fetch(Client(), url)


@workflow
async def fetching_with(client: Client) -> str:
    return await fetch(client, "u")


@workflow
async def parsing(text: str) -> str:
    page: Page = await parse(text)
    return page.text


@workflow
async def parsing_into(text: str) -> None:
    await parse_into(text)


@workflow
async def keeping(text: str) -> None:
    await keep(text)


@workflow
async def of_page(page: Any) -> None: ...


@workflow
async def returning_page() -> Any:
    return [Page("a")]


@workflow
async def forgetting(text: str) -> Any:
    return length(text)


@workflow
async def passing_on(text: str) -> int:
    return await length(length(text))  # type: ignore[arg-type]


@workflow
async def blocking(text: str) -> int:
    return count(text)


@workflow
def awaiting_nothing(text: str) -> Any:
    return length(text)


@workflow
def running_a_loop(text: str) -> int:
    async def inner() -> int:
        return await length(text)

    return asyncio.run(inner())


def said_by(program: Callable[[holdfast.Holdfast], Awaitable[Any]], besides: str = "^$") -> tuple[str, str]:
    """(the error's class, its message) of what the program raises, with no warning besides, or only such ones."""

    async def told() -> tuple[str, str]:
        async with holdfast.open("memory://") as hf:
            with pytest.raises(Exception) as raised:
                await program(hf)
            return type(raised.value).__name__, str(raised.value)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", besides)
        try:
            return asyncio.run(told())
        finally:
            gc.collect()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: fetching("u"),
            "the inputs of step 'fetch' cannot be stored: client is of type test_first_hour.Client; pass plain data "
            'instead. Or leave the argument out of what is compared and stored: @step(ignore="client").',
        ),
        (
            lambda: fetching_with(Client()),
            "the inputs of workflow 'fetching_with' cannot be stored: client is of type test_first_hour.Client; pass "
            "plain data instead. All arguments of a workflow are stored, so that it can be resumed without them: make "
            "what cannot be stored inside a step, or where the module is loaded.",
        ),
        (
            lambda: parsing("a"),
            "the result of step 'parse' cannot be stored: it is a test_first_hour.Page, and nothing there says what to "
            "restore it as; annotate the return type of the function so that it names Page (a step may say "
            "returns=Page too), or return plain data.",
        ),
        (
            lambda: parsing_into("a"),
            "the result of step 'parse_into' cannot be stored: parse_into['pages'][0] is a test_first_hour.Page, and "
            "the class test_first_hour:Page is not reachable from the annotation; annotate the return type of the "
            "function so that it names Page (a step may say returns=Page too), or return plain data.",
        ),
        (
            lambda: returning_page(),
            "the result of workflow 'returning_page' cannot be stored: result[0] is a test_first_hour.Page, and the "
            "class test_first_hour:Page is not reachable from the annotation; annotate the return type of the function "
            "so that it names Page (a step may say returns=Page too), or return plain data.",
        ),
        (
            lambda: keeping("a"),
            "the state change of step 'keep' cannot be stored: state['page'] is a test_first_hour.Page, and nothing "
            "there says what to restore it as; keep plain data there (dict, list, str, numbers).",
        ),
        (
            lambda: of_page(Page("a")),
            "the arguments of 'of_page' cannot be stored: page is a test_first_hour.Page, and the class "
            "test_first_hour:Page is not reachable from the annotation; annotate the parameter so that it names Page, "
            "or pass plain data.",
        ),
        (
            lambda: forgetting("a"),
            "the result of workflow 'forgetting' cannot be stored: it is <StepCall of length>, which nobody has "
            "awaited yet; write await before the call.",
        ),
        (
            lambda: passing_on("a"),
            "the inputs of step 'length' cannot be stored: text is <StepCall of length>, which nobody has awaited yet; "
            "write await before the call. Or leave the argument out of what is compared and stored: "
            '@step(ignore="text").',
        ),
    ],
)
def test_values_that_cannot_be_stored(call: Callable[[], Any], says: str) -> None:
    besides = "step 'length' was called but never awaited"  # where it is true
    assert said_by(lambda hf: hf.run(call(), id="a"), besides) == ("CodecError", says)


def test_what_the_message_says_about_a_client_helps() -> None:
    @workflow
    async def fetching_so(url: str) -> str:
        return await fetch_with(Client(), url)

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            assert await hf.run(fetching_so("u"), id="a") == "u"
            assert [each.inputs for each in await hf.history("a")] == [{"url": "u"}]

    asyncio.run(program())


WANTED = "expected a call of a workflow, such as review(…) or, for a plain def, review.bind(…); got "


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda: length("a"), "<StepCall of length>. A step is awaited in a workflow; run that."),
        (lambda: length, "<step length>. A step is called in a workflow; run that."),
        (lambda: fetching, "<workflow fetching>. It has to be called: give it its arguments."),
        (lambda: awaiting_nothing, "<workflow awaiting_nothing>. It has to be bound to its arguments: .bind(…)."),
        (lambda: 3, "3. A plain def workflow that is called has run already: .bind(…) makes the call to be run."),
    ],
)
def test_what_is_given_to_hf_run(given: Callable[[], Any], says: str) -> None:
    assert said_by(lambda hf: hf.run(given(), id="a")) == ("TypeError", WANTED + says)
    assert said_by(lambda hf: hf.start(given(), id="a")) == ("TypeError", WANTED + says)


def test_a_function_that_is_not_marked() -> None:
    async def unmarked() -> None: ...

    kind, said = said_by(lambda hf: hf.run(unmarked(), id="a"))  # type: ignore[arg-type]
    assert kind == "TypeError" and said.startswith(f"{WANTED}<coroutine object test_a_function_that_is_not_marked")
    assert said.endswith(">. Mark the function with @workflow.")


def test_no_id() -> None:
    call = fetching("u")
    kind, said = said_by(lambda hf: hf.run(call))  # type: ignore[call-arg]
    call.close()
    assert (kind, said) == ("TypeError", "Holdfast.run() missing 1 required keyword-only argument: 'id'")


def test_the_same_id_with_other_arguments() -> None:
    async def twice(hf: holdfast.Holdfast) -> None:
        await hf.run(measuring("a"), id="m-1")
        await hf.run(measuring("b"), id="m-1")

    assert said_by(twice) == (
        "Mismatch",
        "run 'm-1' was started with other arguments: {'text': 'a'}, now {'text': 'b'}. Nothing was changed; choose "
        "another id for other work.",
    )
    assert issubclass(Mismatch, HoldfastError)


@workflow
async def measuring(text: str) -> int:
    return await length(text)


def test_a_lambda_has_no_name() -> None:
    with pytest.raises(TypeError) as raised:
        step(lambda text: len(text))
    assert str(raised.value) == (
        '@step: a lambda has no name for its records to be found by. Write a def, or name it: step(name="…")(lambda …).'
    )
    measure = step(name="measure")(lambda text: len(text))
    assert measure("abc") == 3


class Parser:
    def __call__(self, text: str) -> str:
        return text


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (Parser, "got <class 'test_first_hour.Parser'>. Mark the methods of the class that are steps, each by itself."),
        (Parser(), "Write a def that calls it, and mark that with @step."),
        (len, "got <built-in function len>. Write a def that calls it, and mark that with @step."),
        (staticmethod(len), "Put @step nearer to the def, below @staticmethod."),
        (classmethod(len), "Put @step nearer to the def, below @classmethod."),
    ],
)
def test_what_is_no_function(thing: Any, says: str) -> None:
    with pytest.raises(TypeError, match="@step needs a function") as raised:
        step(thing)
    assert str(raised.value).endswith(says)


def test_a_plain_step_on_the_loop() -> None:
    assert said_by(lambda hf: hf.run(blocking("a"), id="a")) == (
        "HoldfastError",
        "step 'count' is a plain def, and calling it here would block the event loop. Write: await "
        "asyncio.to_thread(count, …)",
    )


def test_an_async_step_in_a_plain_workflow() -> None:
    says = (
        "step 'length' is an async def, and the plain def code that calls it here cannot await it. Make the workflow "
        "an async def, and write: await length(…); or make the step a plain def."
    )
    assert said_by(lambda hf: hf.run(awaiting_nothing.bind("a"), id="a")) == ("HoldfastError", says)
    kind, said = said_by(lambda hf: hf.run(running_a_loop.bind("a"), id="a"))
    assert kind == NotInRun.__name__ and "a loop of its own" in said


def test_a_step_in_a_thread_pool() -> None:
    @workflow
    def pooled() -> list[int]:
        with ThreadPoolExecutor(1) as pool:
            return list(pool.map(lambda text: count(text), ["a", "bc"]))

    with holdfast.open("memory://") as hf, pytest.warns(NotRecorded) as warned:
        assert hf.wait(hf.run(pooled.bind(), id="a")) == [1, 2]
    assert str(warned[0].message) == (
        "step 'count' was called in a thread that belongs to no run while one is live, so its result is not recorded. "
        "In an async workflow, start the thread with asyncio.to_thread, which carries the run along."
    )
    assert warned[0].filename == __file__


def test_a_step_outside_of_every_run_is_a_function() -> None:
    assert asyncio.run(length("abc")) == 3 and count("abc") == 3


def test_a_call_that_nobody_awaited() -> None:
    with pytest.warns(RuntimeWarning) as warned:
        length("a")
        gc.collect()
    assert str(warned[0].message) == "step 'length' was called but never awaited, so it did not run"


def test_a_second_process_on_one_run_says_that_it_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two ``Holdfast`` on one file own runs as two processes do. It is a warning, so it is seen without any set-up."""
    going_on = asyncio.Event()

    @step
    async def work() -> int:
        await going_on.wait()
        return 1

    @workflow
    async def plan() -> int:
        return await work()

    async def program() -> None:
        async with holdfast.open(tmp_path / "a.db") as one, holdfast.open(tmp_path / "a.db") as other:
            await one.start(plan(), id="a")
            with pytest.raises(Busy) as busy:
                await other.run(plan(), id="a", wait=False)
            assert str(busy.value).startswith("run 'a' is being advanced by ")
            second = asyncio.create_task(other.run(plan(), id="a"))
            while not any("waiting for it to end" in record.getMessage() for record in caplog.records):
                await asyncio.sleep(0.01)
            going_on.set()
            assert await second == 1

    with caplog.at_level(logging.WARNING, "holdfast"):
        asyncio.run(program())
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("run a: ") and said.endswith(" advances it now, waiting for it to end")


def test_a_list_that_every_step_makes() -> None:
    @step
    async def note(number: int) -> None:
        await asyncio.sleep(0)
        holdfast.state.setdefault("notes", []).append(number)

    @workflow
    async def plan() -> None:
        await asyncio.gather(note(1), note(2))

    kind, said = said_by(lambda hf: hf.run(plan(), id="a"))
    assert kind == "StateConflict" and said.endswith(
        "it was absent when this one began, is [1] now, and would become [2]. Make it in the workflow, before they "
        "begin; then they may append to the list, or set different keys of the dict."
    )


def test_a_workflow_that_lets_a_cancellation_through() -> None:
    @step
    async def slow() -> int:
        await asyncio.sleep(60)
        return 1

    @workflow
    async def plan() -> int:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    async def run_and_wait_again(hf: holdfast.Holdfast) -> None:
        with pytest.raises(StepFailed) as raised:
            await hf.run(plan(), id="a")
        with pytest.raises(StepFailed) as waited:  # for what the record says of it
            await (await hf.get("a")).wait()
        assert str(waited.value) == str(raised.value)
        raise raised.value

    assert said_by(run_and_wait_again) == (
        "StepFailed",
        "test_a_workflow_that_lets_a_cancellation_through.<locals>.plan failed with "
        "asyncio.exceptions.CancelledError: its own code let a cancellation through; the history tells which call was "
        "cancelled",
    )


def test_a_state_that_is_no_mapping() -> None:
    async def program(hf: holdfast.Holdfast) -> None:
        await hf.run(fetching("u"), id="a", state=[1])  # type: ignore[arg-type]

    assert said_by(program) == ("TypeError", "state= must be a mapping, the initial state of a new run, got [1]")


def test_a_run_that_was_started_and_left(caplog: pytest.LogCaptureFixture) -> None:
    """Closed over it, the Holdfast says so where somebody sees it without any set-up."""

    @step
    async def slow() -> None:
        await asyncio.sleep(60)

    @workflow
    async def plan() -> None:
        await slow()

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            await hf.start(plan(), id="a")

    asyncio.run(program())
    assert [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING] == [
        "run a: stopped from outside with 0 steps recorded; the same line resumes it"
    ]
