"""Generated programs, cut off at every commit: what a reader of the rows arrives at is the live state, and nothing
that the program saw of its state is otherwise the second time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import holdfast
from holdfast import StateConflict, StepFailed, StoreError, codec, delta, step, weights, workflow
from holdfast.delta import difference
from holdfast.state import replay
from holdfast.store import Batch, Committed

KEYS = st.sampled_from(["a", "b", "c"])
CHANGES = st.one_of(
    st.tuples(st.just("append"), KEYS, st.integers(0, 9)),
    st.tuples(st.just("set"), KEYS, st.sampled_from([1, "x", 2.5, None])),
    st.tuples(st.just("key"), KEYS, st.sampled_from(["p", "q"])),
    st.tuples(st.just("deep"), KEYS, st.sampled_from(["p", "q"])),
    st.tuples(st.just("del"), KEYS, st.none()),
    st.tuples(st.just("pop"), KEYS, st.none()),
    st.tuples(st.just("records"), KEYS, st.integers(3, 9)),
    st.tuples(st.just("inside"), KEYS, st.integers(0, 9)),
    st.tuples(st.just("splice"), KEYS, st.integers(0, 9)),
    st.tuples(st.just("move"), KEYS, st.integers(0, 9)),
    st.tuples(st.just("text"), KEYS, st.integers(0, 9)),
    st.tuples(st.just("alias"), KEYS, KEYS),
    st.tuples(st.just("twice"), KEYS, st.none()),
)
STEPS = st.fixed_dictionaries(
    {
        "changes": st.lists(CHANGES, max_size=3),
        "turns": st.sampled_from([0, 1, 40]),
        "fails": st.booleans(),
        "inner": st.lists(st.lists(CHANGES, max_size=2), max_size=2),
    }
)
PARTS = st.one_of(
    st.tuples(st.just("body"), st.lists(CHANGES, min_size=1, max_size=2)),
    st.tuples(st.just("step"), STEPS),
    st.tuples(st.just("gather"), st.lists(STEPS, min_size=2, max_size=3)),
    st.tuples(st.just("beside"), STEPS, st.lists(CHANGES, max_size=2)),
)


def make(change: tuple[str, str, Any], state: MutableMapping[str, Any] = holdfast.state) -> None:
    what, key, value = change
    held = state.get(key)
    if what == "set":
        state[key] = value
    elif what == "append":
        if not isinstance(held, list):
            state[key] = held = []
        held.append({"value": value})
    elif what in ("key", "deep"):
        if not isinstance(held, dict):
            state[key] = held = {}
        if what == "key":
            held[value] = len(held)
        else:
            held.setdefault("deep", {}).setdefault(value, []).append(len(held))
    elif what == "del":
        state.pop(key, None)
    elif what == "records":
        state[key] = [{"id": n, "tags": [n], "text": "t" * 40} for n in range(value)]
    elif what == "text":
        text = held if isinstance(held, str) else "abc" * 100
        state[key] = text[: 20 * value] + str(value) + text[20 * value + 2 :]
    elif what == "alias" and held is not None:
        state[value] = held  # from now on one object, as far as the program goes on
    elif isinstance(held, list) and held:
        change_list(what, held, value)


def change_list(what: str, held: list[Any], value: Any) -> None:
    if what == "pop":
        held.pop(0)
    elif what == "splice":
        held[value % len(held) : value] = [{"id": value}, value]
    elif what == "move":
        held.insert(value, held.pop())
    elif what == "twice":
        held.append(held[0])
    elif what == "inside":
        for each in held[value % len(held) :: 3]:
            if isinstance(each, dict):
                each.setdefault("tags", []).insert(0, value)
                each["text"] = value if value % 2 else "t" * 50


@step
async def inner(changes: list[Any]) -> None:
    for change in changes:
        make(change)


@step
async def outer(spec: dict[str, Any]) -> None:
    for change in spec["changes"]:
        make(change)
    for _ in range(spec["turns"]):
        await asyncio.sleep(0)
    for changes in spec["inner"]:
        await inner(changes)
    if spec["fails"]:
        raise LookupError("as told")


seen: list[str] = []


def look() -> None:
    seen.append(repr(sorted(holdfast.state.items())))


@workflow(version="1")
async def program(parts: list[Any]) -> dict[str, Any]:
    for part in parts:
        if part[0] == "body":
            for change in part[1]:
                make(change)
        elif part[0] == "step":
            try:
                await outer(part[1])
            except (StepFailed, StateConflict) as error:
                seen.append(str(error))
        else:
            specs = part[1] if part[0] == "gather" else [part[1]]
            tasks = [asyncio.create_task(outer(spec)) for spec in specs]
            await asyncio.sleep(0)
            for change in part[2] if part[0] == "beside" else ():
                make(change)
            seen.extend(str(each) for each in await asyncio.gather(*tasks, return_exceptions=True))
        look()
    return delta.copy(dict(holdfast.state))  # type: ignore[no-any-return]


def exact(value: Any) -> bytes:
    return codec.canonical(value, "the state", "state")


async def cut_off_everywhere(url: str, parts: list[Any], initial: dict[str, Any]) -> None:
    async with holdfast.open(url) as hf:
        run, number = hf._store.commit, next(numbers)
        left = [0]

        def counting(batch: Batch) -> Committed:
            if batch.appends:
                if left[0] == 0:
                    raise StoreError("cut off")
                left[0] -= 1
            return run(batch)

        hf._store.commit = counting  # type: ignore[method-assign]

        async def attempt(id: str, commits: int) -> bool:
            left[0] = commits
            seen.clear()
            try:
                result = await hf.run(program(parts), id=id, state=initial)
            except StoreError:
                return False
            assert exact(reader(hf, id)) == exact(result)
            return True

        for at in range(100):
            id = f"run {number} {at}"
            done = await attempt(id, at)
            before = list(seen)
            if not done:
                done = await attempt(id, 1)  # cut off once more, right behind
                assert seen[: len(before)] == before[: len(seen)]
                before = max(before, list(seen), key=len)
                if not done:
                    assert await attempt(id, 1000)
                assert seen[: len(before)] == before
            else:
                return


def reader(hf: holdfast.Holdfast, id: str) -> dict[str, Any]:
    row = hf._store.get(id)
    assert row is not None
    return replay(row, hf._store.load(row.no)).state


INITIAL = st.sampled_from([{}, {"a": [], "b": {"p": 1}}])
numbers = itertools.count()


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only big values are worth happens to these small ones too."""
    monkeypatch.setattr(difference, "_OVERHEAD", -50)
    monkeypatch.setattr(difference, "_TEXT_MIN", 8)
    monkeypatch.setattr(weights, "_LEAST", 20)


LAW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)


NONE: dict[str, Any] = {"changes": [], "turns": 0, "fails": False, "inner": []}


@LAW
@given(st.lists(PARTS, min_size=1, max_size=5), INITIAL)
@example(  # a value that a step puts where the body had put a number is nobody's yet
    [
        ("body", [("set", "c", 1)]),
        ("gather", [NONE, {**NONE, "changes": [("alias", "a", "c")]}]),
        ("beside", NONE, [("append", "c", 0)]),
    ],
    {"a": [], "b": {"p": 1}},
)
def test_what_a_reader_arrives_at_is_the_live_state(parts: list[Any], initial: dict[str, Any]) -> None:
    asyncio.run(cut_off_everywhere("memory://", parts, initial))


@settings(LAW, max_examples=4)
@given(st.lists(PARTS, min_size=1, max_size=4), INITIAL)
def test_likewise_in_a_file(tmp_path: Path, parts: list[Any], initial: dict[str, Any]) -> None:
    asyncio.run(cut_off_everywhere(str(tmp_path / "jobs.db"), parts, initial))


@settings(LAW, max_examples=4)
@given(st.lists(PARTS, min_size=1, max_size=4), INITIAL)
def test_likewise_on_a_server(postgres_url: str, parts: list[Any], initial: dict[str, Any]) -> None:
    asyncio.run(cut_off_everywhere(postgres_url, parts, initial))


SAVES = st.lists(st.tuples(st.lists(CHANGES, max_size=3), st.booleans()), min_size=1, max_size=8)


@settings(LAW, max_examples=40)
@given(SAVES, INITIAL)
def test_a_session_holds_what_was_saved_last(saves: list[Any], initial: dict[str, Any]) -> None:
    """Whether it was opened anew between the saves or not."""

    async def sessions() -> None:
        async with holdfast.open("memory://") as hf:
            id, left = "s", list(saves)
            expected = exact(initial)
            while left:
                async with hf.session(id, initial) as session:
                    assert exact(dict(session.state)) == expected
                    while left:
                        changes, again = left.pop(0)
                        for change in changes:
                            make(change, session.state)
                        await session.save()
                        expected = exact(dict(session.state))
                        assert exact(reader(hf, id)) == expected
                        if again:
                            break

    asyncio.run(sessions())
