"""Promise 6: state is the same at every point of the program in every resume, with any concurrency."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import CodecError, StateConflict, StepFailed, step, workflow

failing: list[Any] = []
seen: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    failing.clear()
    seen.clear()


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else str(tmp_path / "jobs.db")


def plain() -> dict[str, Any]:
    """A copy of the state as the code that asks sees it."""
    from holdfast import delta

    return delta.copy(dict(holdfast.state))  # type: ignore[no-any-return]


async def replayed(hf: holdfast.Holdfast, id: str) -> dict[str, Any]:
    """The state as a reader of the rows arrives at it."""
    from holdfast.state import replay

    row = hf._store.get(id)
    assert row is not None
    return replay(row, hf._store.load(row.no)).state


@step
async def end() -> None:
    if failing:
        raise LookupError("not yet")


@step
async def append(key: str, value: Any, turns: int = 0) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    holdfast.state.setdefault(key, []).append(value)


@step
async def put(key: str, value: Any, turns: int = 0) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    holdfast.state[key] = value


def first_time_and_resumed(plan: Any, url: str, **options: Any) -> list[Any]:
    """Run to the failing end, then past it: what was seen must be the same, and so must a reader's state."""

    async def program() -> list[Any]:
        async with holdfast.open(url) as hf:
            failing.append("end")
            found: list[list[Any]] = []
            with pytest.raises(StepFailed, match="not yet"):
                await hf.run(plan(), id="a", **options)
            found.append(list(seen))
            seen.clear()
            failing.clear()
            await hf.run(plan(), id="a", **options)
            found.append(list(seen))
            assert found[0] == found[1][:-1]
            assert await replayed(hf, "a") == found[1][-1]
            return found[1]

    return asyncio.run(program())


def test_overlapping_steps_each_have_a_view_of_their_own(url: str) -> None:
    @step
    async def look(name: str) -> list[Any]:
        holdfast.state[name] = "begun"
        before = plain()
        for _ in range(50):
            await asyncio.sleep(0)
        holdfast.state[name] = "done"
        return [before, plain()]

    @workflow(version="1")
    async def plan() -> None:
        holdfast.state["body"] = 1
        seen.extend(await asyncio.gather(look("x"), look("y")))
        seen.append(plain())
        await end()
        seen.append(plain())

    x, y, after, _ = first_time_and_resumed(plan, url)
    assert x == [{"body": 1, "x": "begun"}, {"body": 1, "x": "done"}]
    assert y == [{"body": 1, "y": "begun"}, {"body": 1, "y": "done"}]
    assert after == {"body": 1, "x": "done", "y": "done"}


@pytest.mark.parametrize("nested", [False, True])
def test_overlapping_steps_lose_nothing_where_the_state_was_empty(url: str, nested: bool) -> None:
    """Once it was looked at there is a live dict, which the steps must not share although nothing is in it yet."""

    @step
    async def begin(key: str, turns: int) -> None:
        holdfast.state[key] = turns
        for _ in range(turns):
            await asyncio.sleep(0)

    async def both() -> dict[str, Any]:
        assert len(holdfast.state) == 0
        await asyncio.gather(begin("a", 1), begin("b", 200))
        return plain()

    inner = step(name="inner")(both) if nested else both

    @workflow(version="1")
    async def plan() -> dict[str, Any]:
        return await inner()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(plan(), id="a") == {"a": 1, "b": 200}
            assert await replayed(hf, "a") == {"a": 1, "b": 200}

    asyncio.run(program())


def test_what_others_do_to_a_value_before_it_is_delivered_is_no_part_of_it(url: str) -> None:
    """The row holds the value as it was when the step ended, and so must the live state."""
    shared = [1]
    ended = asyncio.Event()

    @step
    async def keep() -> None:
        holdfast.state["kept"] = shared
        ended.set()

    async def others() -> None:
        await ended.wait()
        shared.append(2)

    @workflow(version="1")
    async def plan() -> list[int]:
        await asyncio.gather(keep(), others())
        return list(holdfast.state["kept"])

    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(plan(), id="a") == [1]

    asyncio.run(program())


def test_changes_are_applied_when_the_outcome_is_delivered(url: str) -> None:
    @workflow(version="1")
    async def plan() -> None:
        async def watch(name: str, turns: int) -> None:
            await put(name, turns, turns)
            seen.append((name, sorted(holdfast.state)))

        async with asyncio.TaskGroup() as group:
            for name, turns in (("slow", 300), ("quick", 0), ("middle", 100)):
                group.create_task(watch(name, turns))
        await end()
        seen.append(plain())

    found = first_time_and_resumed(plan, url)
    assert found[:3] == [
        ("quick", ["quick"]),
        ("middle", ["middle", "quick"]),
        ("slow", ["middle", "quick", "slow"]),
    ]


def test_a_failed_attempt_and_a_failed_step_leave_nothing(url: str) -> None:
    tries: list[int] = []

    @step(attempts=3, backoff=0)
    async def flaky() -> None:
        holdfast.state["pages"].append("half")
        holdfast.state[f"try {len(tries)}"] = 1
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError

    @step
    async def bad() -> None:
        holdfast.state["pages"].clear()
        holdfast.state["bad"] = 1
        raise ValueError

    @workflow(version="1")
    async def plan() -> None:
        await flaky()
        with pytest.raises(StepFailed):
            await bad()
        seen.append(plain())
        await end()
        seen.append(plain())

    assert first_time_and_resumed(plan, url, state={"pages": []})[0] == {"pages": ["half"], "try 2": 1}


def test_overlapping_appends_and_different_keys_survive(url: str) -> None:
    @step
    async def add(number: int) -> None:
        holdfast.state["read"].append(number)
        holdfast.state["by number"][str(number)] = {"length": number}
        holdfast.state["nested"]["deep"]["read"].append(number)
        await asyncio.sleep(0.001 * (5 - number))

    @workflow(version="1")
    async def plan() -> None:
        await asyncio.gather(*(add(number) for number in range(5)))
        holdfast.state["read"].append("body")
        seen.append(plain())
        await end()
        seen.append(plain())

    initial = {"read": ["first"], "by number": {"-1": {}}, "nested": {"deep": {"read": []}}}
    state = first_time_and_resumed(plan, url, state=initial)[0]
    assert sorted(state["read"][1:-1]) == list(range(5)) and state["read"][0] == "first" and state["read"][-1] == "body"
    assert state["read"][1:-1] == state["nested"]["deep"]["read"]
    assert state["by number"] == {"-1": {}, **{str(n): {"length": n} for n in range(5)}}


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        (("set", "k", 1), ("set", "k", 2), True),
        (("set", "k", "same"), ("set", "k", "same"), False),
        (("increment", "n"), ("increment", "n"), True),
        (("increment", "new"), ("increment", "new"), True),
        (("set", "k", 1), ("del", "k"), True),
        (("del", "k"), ("del", "k"), False),
        (("append", "list"), ("append", "list"), False),
        (("append", "list"), ("set", "list", []), True),
        (("append", "list"), ("pop", "list"), True),
        (("pop", "list"), ("append", "list"), False),  # nothing is lost: the one is gone, the other is there
        (("append", "fresh"), ("append", "fresh"), True),
        (("key", "dict", "a"), ("key", "dict", "b"), False),
        (("key", "dict", "old"), ("key", "dict", "old"), True),
        (("set", "k", 1), ("set", "n", 1), False),
    ],
)
@pytest.mark.parametrize("with_body", [False, True])
def test_conflicts_are_the_same_live_and_on_recall(one: Any, other: Any, conflict: bool, with_body: bool) -> None:
    def change(what: Any, who: str) -> None:
        state = holdfast.state
        match what:
            case ("set", key, value):
                state[key] = value
            case ("increment", key):
                state[key] = state.get(key, 0) + 1
            case ("del", key):
                del state[key]
            case ("append", key):
                state.setdefault(key, []).append(who)
            case ("pop", key):
                state[key].pop()
            case ("key", key, name):
                state[key][name] = who

    @step
    async def first() -> None:
        change(one, "first")

    @step
    async def second() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        change(other, "second")

    @workflow(version="1")
    async def plan() -> None:
        if with_body:
            task = asyncio.create_task(second())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            change(one, "first")
            found = await asyncio.gather(task, return_exceptions=True)
        else:
            found = await asyncio.gather(first(), second(), return_exceptions=True)
        seen.append([(type(each).__name__, str(each)) for each in found])
        seen.append(plain())
        await end()
        seen.append(plain())

    initial = {"k": "old", "n": 0, "list": ["x"], "dict": {"old": 0}}
    outcome = first_time_and_resumed(plan, f"memory://{uuid.uuid4()}", state=initial)[0]
    kinds = [kind for kind, _ in outcome if kind != "NoneType"]
    assert kinds == (["StateConflict"] if conflict else [])
    if conflict:
        assert "Two overlapping parts of the run changed" in outcome[-1][1]


def test_a_conflict_ends_the_run_unless_it_is_caught(url: str) -> None:
    @workflow(version="1")
    async def plan() -> None:
        await asyncio.gather(put("k", 1), put("k", 2, 20))

    async def program() -> None:
        async with holdfast.open(url) as hf:
            for _ in range(2):
                with pytest.raises(StateConflict, match=r"'a', step 'put': .*changed k: .*Return the value"):
                    await hf.run(plan(), id="a")

    asyncio.run(program())


def test_recall_changes_containers_in_place(url: str) -> None:
    @step
    async def grow(number: int) -> None:
        holdfast.state["pages"].append({"number": number, "words": [number]})
        holdfast.state["index"][str(number)] = number

    @step
    async def correct(number: int) -> None:
        for page in holdfast.state["pages"]:
            page["words"].append(number)

    @workflow(version="1")
    async def plan() -> None:
        pages, index = holdfast.state["pages"], holdfast.state["index"]
        await grow(1)
        first = pages[0]
        await asyncio.gather(grow(2), append("other", 1))
        await correct(3)
        seen.append([pages is holdfast.state["pages"], index is holdfast.state["index"], first is pages[0]])
        seen.append([list(pages), dict(index), first])
        first["words"].append("body")
        await append("pages", "last")
        seen.append([holdfast.state["pages"][0]["words"], len(pages)])
        await end()
        seen.append(plain())

    found = first_time_and_resumed(plan, url, state={"pages": [], "index": {}})
    assert found[0] == [True, True, True]
    assert found[2] == [[1, 3, "body"], 3]


def test_nested_steps_have_views_of_their_own(url: str) -> None:
    @step
    async def inner(number: int) -> dict[str, Any]:
        holdfast.state["inner"].append(number)
        await asyncio.sleep(0)
        return plain()

    @step
    async def outer() -> list[Any]:
        holdfast.state["outer"] = "begun"
        one = await inner(1)
        between = plain()
        two, three = await asyncio.gather(inner(2), inner(3))
        holdfast.state["outer"] = "done"
        return [one, between, two, three, plain()]

    @workflow(version="1")
    async def nested() -> None:
        holdfast.state["nested"] = "begun"
        await inner(4)
        holdfast.state["nested"] = "done"

    @workflow(version="1")
    async def plan() -> None:
        holdfast.state["body"] = 1
        both = asyncio.gather(outer(), nested())
        await asyncio.sleep(0)
        seen.append(plain())
        seen.append((await both)[0])
        seen.append(plain())
        await end()
        seen.append(plain())

    during, views, after, _ = first_time_and_resumed(plan, url, state={"inner": []})
    assert during == {"inner": [], "body": 1}  # nothing of the inner steps is seen outside before the outer one is done
    begun = {"body": 1, "outer": "begun"}
    assert views[0] == {"inner": [1], **begun} and views[1] == {"inner": [1], **begun}
    assert views[2] == {"inner": [1, 2], **begun} and views[3] == {"inner": [1, 3], **begun}
    assert views[4] == {"inner": [1, 2, 3], "body": 1, "outer": "done"}
    assert sorted(after.pop("inner")) == [1, 2, 3, 4]
    assert after == {"body": 1, "outer": "done", "nested": "done"}


def test_plain_steps_in_threads(url: str) -> None:
    @step
    def add(number: int) -> dict[str, Any]:
        holdfast.state["read"].append(number)
        return plain()

    @step
    def outer(number: int) -> dict[str, Any]:
        add(number)
        holdfast.state[str(number)] = number
        return plain()

    @workflow(version="1")
    def plan() -> None:
        seen.append(add(1))
        holdfast.state["body"] = 1
        seen.append(outer(2))
        seen.append(plain())
        asyncio.run(nothing())
        threaded_end()
        seen.append(plain())

    async def nothing() -> None: ...

    @step
    def threaded_end() -> None:
        if failing:
            raise LookupError("not yet")

    @workflow(version="1")
    async def gathered() -> None:
        views = await asyncio.gather(asyncio.to_thread(outer, 1), asyncio.to_thread(outer, 2))
        seen.append([view["read"] for view in views])
        seen.append({**plain(), "read": sorted(holdfast.state["read"])})
        await end()
        seen.append(plain())

    found = first_time_and_resumed(plan.bind, url, state={"read": []})
    assert found[0] == {"read": [1]}
    assert found[1] == {"read": [1, 2], "body": 1, "2": 2} == found[2]
    seen.clear()
    views, after, _ = first_time_and_resumed(gathered, f"memory://{uuid.uuid4()}", state={"read": []})
    assert views == [[1], [2]]
    assert after == {"read": [1, 2], "1": 1, "2": 2}


def test_changes_that_only_the_body_makes_are_carried_for_readers(url: str) -> None:
    @step
    async def outer() -> None:
        await append("pages", "inner")

    @workflow(version="1")
    async def plan() -> None:
        await append("pages", 1)
        holdfast.state["pages"].append("body")
        await outer()
        holdfast.state["first touched"] = 1
        await append("pages", 2)
        seen.append(plain())
        await end()
        holdfast.state["after the last row"] = 1
        seen.append(plain())

    state = first_time_and_resumed(plan, url)[0]
    assert state["pages"] == [1, "body", "inner", 2]


@pytest.mark.parametrize("whose", ["step", "body"])
def test_what_a_refused_row_would_have_carried_is_carried_by_the_next(url: str, whose: str) -> None:
    @step
    async def unfit() -> None:
        if whose == "step":
            holdfast.state["bad"] = object()

    @workflow(version="1")
    async def plan() -> dict[str, Any]:
        holdfast.state["body"] = 1
        if whose == "body":
            holdfast.state["bad"] = object()
        with pytest.raises(CodecError, match="bad"):
            await unfit()
        holdfast.state.pop("bad", None)
        await append("pages", 1)
        return plain()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(plan(), id="a") == {"body": 1, "pages": [1]}
            assert await replayed(hf, "a") == {"body": 1, "pages": [1]}

    asyncio.run(program())


def test_what_a_failed_attempt_of_the_run_left_is_put_right_for_readers(url: str) -> None:
    @workflow(version="1")
    async def plan() -> None:
        await append("pages", 1)
        try:
            await end()
        except StepFailed:
            holdfast.state["failed"] = True
            raise
        await append("pages", 2)
        seen.append(plain())

    async def program() -> None:
        async with holdfast.open(url) as hf:
            failing.append("end")
            with pytest.raises(StepFailed):
                await hf.run(plan(), id="a")
            assert await replayed(hf, "a") == {"pages": [1], "failed": True}
            failing.clear()
            await hf.run(plan(), id="a")
            assert seen == [{"pages": [1, 2]}]
            assert await replayed(hf, "a") == {"pages": [1, 2]}

    asyncio.run(program())


def test_a_value_the_codec_refuses_is_named(url: str) -> None:
    @step
    async def bad() -> None:
        holdfast.state["pages"] = [1, {"image": object()}]

    @workflow(version="1")
    async def plan() -> None:
        await bad()

    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.raises(CodecError, match="the state change of step") as told:
                await hf.run(plan(), id="a")
            assert told.value.path.endswith("[1]['image']") and "pages" in told.value.path
            assert await hf.history("a") == []

    asyncio.run(program())


def test_outside_a_run_it_is_a_plain_mapping() -> None:
    @workflow
    async def plan() -> dict[str, Any]:
        await asyncio.gather(append("pages", 1), append("pages", 2))
        await put("k", 1)
        return plain()

    async def program() -> None:
        holdfast.state["pages"] = []
        assert await plan() == {"pages": [1, 2], "k": 1}
        holdfast.state.clear()

    asyncio.run(program())
    assert asyncio.run(plan()) == {"pages": [1, 2], "k": 1}
    assert "pages" not in holdfast.state
