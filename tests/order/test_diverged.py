"""What ``Diverged`` tells: which call it is, the line of the program that makes it, what differs, and the ways on.

Each program is run once to its end and fails there, and then asks for something else (``then``)."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import Diverged, StepFailed, step, workflow

LONG = "All happy families are alike; each unhappy family is unhappy in its own way. " * 20
then = False  # whether the program runs for the second time, and asks for something else


@step
async def fetch(url: str = "", options: Any = None, *rest: Any) -> int:
    return 1


@step(key=lambda url, options: url)
async def keyed(url: str, options: Any) -> int:
    return 1


@step
def plain(number: int) -> int:
    return 1


@step
async def fails() -> None:
    if not then:
        raise OSError("for now")


def told(program: Callable[[], Any]) -> str:
    """What is said when ``program`` goes on otherwise than it began."""
    global then
    marked = workflow(name="program", version="1")(program)

    async def main() -> str:
        global then
        async with holdfast.open("memory://") as hf:
            then = False
            with pytest.raises(StepFailed):
                await hf.run(marked.bind(), id="r")
            then = True
            with pytest.raises(Diverged) as caught:
                await hf.run(marked.bind(), id="r")
            run = await hf.get("r")
            assert run.status == "parked" and run.error == f"Diverged: {caught.value}"
            return str(caught.value)

    return asyncio.run(main())


def line_with(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(k for k, line in enumerate(lines) if text in line)


def differences(*inputs: Any) -> list[str]:
    """The lines that tell what differs between two lists of arguments of ``fetch``."""

    async def program() -> None:
        await fetch(*inputs[then])
        await fails()

    lines = told(program).splitlines()
    assert lines[0] == "run 'r', checkpoint 1: call 0 of step 'fetch' was recorded with other inputs."
    ways = next(k for k, line in enumerate(lines) if line.startswith("The code between steps"))
    assert "program: await fetch(*inputs[then])" in lines[1]
    return [line.removeprefix("  ") for line in lines[2:ways]]


@pytest.mark.parametrize(
    ("recorded", "now", "said"),
    [
        (["a"], ["b"], ["url: recorded 'a', now 'b'"]),
        (["a"], ["a", 5], ["options: recorded left out (or its default), now 5"]),
        (["a", 5], ["a"], ["options: recorded 5, now left out (or its default)"]),
        ([["a", "b", "c"]], [["a", "x", "c"]], ["url[1]: recorded 'b', now 'x'"]),
        (
            [[1, 2, 3]],
            [[1, 2, 9, 9, 3]],
            ["url: recorded 3 elements, now 5; new is what stands from [2] on: [9, 9]"],
        ),
        ([[1, 2, 3]], [[1, 3]], ["url: recorded 3 elements, now 2; gone is what was recorded from [1] on: [2]"]),
        (
            [[1, 2, 3, 4]],
            [[1, 7, 4]],
            ["url: recorded 4 elements, now 3; from [1] on recorded [2, 3], now [7]"],
        ),
        (
            ["a", {"limits": [{"max": 10}, {"max": 20, "a b": 1}], "mode": "x"}],
            ["a", {"limits": [{"max": 10}, {"max": 21}], "mode": "x", "new": None}],
            [
                "options.limits[1]['a b']: recorded 1, now missing",
                "options.limits[1].max: recorded 20, now 21",
                "options.new: recorded missing, now None",
            ],
        ),
        (
            [LONG[:800]],
            [LONG[:400] + "not " + LONG[400:800]],
            ["url: from character 400 on recorded …'own way. All happy families are alike; each unha'…, now "],
        ),
        (
            [list(range(20))],
            [list(range(1, 21))],
            [*[f"url[{k}]: recorded {k}, now {k + 1}" for k in range(8)], "and 12 more differences"],
        ),
        ([1], [True], ["url: recorded 1, now True"]),
        ([[1, 2]], [(1, 2)], ["they read the same when written out: what differs is a type (a tuple for a list, "]),
        (
            ["a", "b" * 5000],
            ["a", "b" * 5000 + "c"],
            ["of the recorded inputs only the beginning is kept to be read, and it is the same: they differ behind it"],
        ),
        (
            ["a", "b" * 5000],
            ["a", "b" * 500 + "c" + "b" * 5000],
            ["inputs, of which only the beginning is kept: from character 509 on recorded …'bbbbbbbbbbbbbbbb"],
        ),
    ],
    ids=[
        "a value",
        "an argument more",
        "an argument less",
        "an element of a list",
        "new elements",
        "an element gone",
        "elements replaced",
        "a deep dict",
        "a long text",
        "many differences",
        "a type",
        "a type that reads the same",
        "behind what is kept",
        "in what is kept",
    ],
)
def test_only_what_differs_is_told(recorded: list[Any], now: list[Any], said: list[str]) -> None:
    found = differences(recorded, now)
    assert len(found) == len(said), found
    for line, beginning in zip(found, said, strict=True):
        assert line.startswith(beginning)
    assert all(len(line) < 500 for line in found)


def test_the_line_that_makes_the_call_is_told() -> None:
    async def below() -> None:
        await fetch("b" if then else "a")  # here

    async def program() -> None:
        await below()
        await fails()

    said = told(program)
    assert f"test_diverged.py:{line_with(below, '# here')}, in " in said
    assert 'below: await fetch("b" if then else "a")  # here\n' in said


def test_of_a_call_left_to_gather_the_line_is_told_where_its_code_waits() -> None:
    async def program() -> None:
        await asyncio.gather(
            fetch("a"),
            fetch("c" if then else "b"),
        )
        await fails()

    said = told(program)
    assert f"test_diverged.py:{line_with(program, 'await asyncio.gather(')}, in " in said
    assert "call 1 of step 'fetch'" in said


def test_a_call_in_a_task_of_its_own_is_told_by_its_task_and_line() -> None:
    async def one(url: str) -> None:
        await fetch(url)  # here

    async def program() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(one("a"))
            group.create_task(one("c" if then else "b"))
        await fails()

    said = told(program)
    assert f"test_diverged.py:{line_with(one, '# here')}, in " in said
    assert re.search(r"\n  in the task \S+one#1\n", said)


def test_a_call_inside_another_is_told_with_what_it_is_inside() -> None:
    @step
    async def research(topic: str) -> None:
        await keyed("p1", 2 if then else 1)
        await fails()

    async def program() -> None:
        await research("x")

    said = told(program)
    assert "checkpoint 1: call 'p1' of step 'keyed' was recorded with other inputs." in said
    assert re.search(r"\n  inside \S+research#0\n", said)


@pytest.mark.parametrize("by_thread", [False, True])
def test_a_call_in_a_thread_is_told_by_its_line(by_thread: bool) -> None:
    def below() -> None:
        time.sleep(0)
        plain(2 if then else 1)  # here

    async def with_thread() -> None:
        await asyncio.to_thread(below)
        await fails()

    @step(name="fails")
    def failing() -> None:
        if not then:
            raise OSError("for now")

    def program() -> None:
        below()
        failing()

    said = told(with_thread if by_thread else program)
    assert f"test_diverged.py:{line_with(below, '# here')}, in " in said


def test_a_step_given_to_a_thread_is_told_where_its_code_waits() -> None:
    async def program() -> None:
        await asyncio.to_thread(plain, 2 if then else 1)
        await fails()

    said = told(program)
    assert f"test_diverged.py:{line_with(program, 'to_thread(plain')}, in " in said


def test_the_ways_on_are_told() -> None:
    async def program() -> None:
        await fetch("b" if then else "a")
        await fails()

    said = told(program)
    for way in ("deterministic", "ignore=", "key=", "version=", "on_change=", "new id"):
        assert way in said


def test_a_step_of_another_version_is_told_as_that() -> None:
    async def program() -> None:
        await step(name="v", version="2" if then else "1")(noop)(1)
        await fails()

    said = told(program)
    assert "call 0 of step 'v' was recorded by version '1' of the step, the code is version '2'." in said
    assert "@step(version='1')" in said and "new id" in said and "ignore=" not in said


async def noop(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: holdfast.sleep(0 if not then else 0.5), "call 0 of sleep() was recorded with other inputs."),
        (lambda: holdfast.current().run(child(2 if then else 1), id="c"), "child run 'c' of workflow 'child' was re"),
        (
            lambda: step(name="sleep")(noop)(1) if then else holdfast.sleep(0),
            "call 0 of sleep() was recorded, and now the program calls a step of the name 'sleep' there.",
        ),
        (
            lambda: holdfast.sleep(0) if then else step(name="sleep")(noop)(1),
            "call 0 of step 'sleep' was recorded, and now the program makes a wait there (sleep).",
        ),
    ],
    ids=["sleep", "child run", "a step for a wait", "a wait for a step"],
)
def test_waits_are_told_too(make: Callable[[], Any], said: str) -> None:
    async def program() -> None:
        await make()  # here
        await fails()

    text = told(program)
    assert said in text and f"test_diverged.py:{line_with(program, '# here')}, in " in text
    if "child" in said:
        assert "\n  number: recorded 1, now 2\n" in text


@workflow(version="1")
async def child(number: int) -> int:
    return number
