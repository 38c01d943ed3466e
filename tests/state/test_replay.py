"""Generated programs, cut off at every commit: what a reader of the rows arrives at is the live state, and nothing
that the program saw of its state is otherwise the second time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import holdfast
from holdfast import StateConflict, StepFailed, StoreError, codec, delta, step, workflow
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


def make(change: tuple[str, str, Any]) -> None:
    what, key, value = change
    state = holdfast.state
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
    elif isinstance(held, list) and held:
        held.pop(0)


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


async def cut_off_everywhere(parts: list[Any], initial: dict[str, Any]) -> None:
    async with holdfast.open("memory://") as hf:
        commit = hf._store.commit
        left = [0]

        def counting(batch: Batch) -> Committed:
            if batch.appends:
                if left[0] == 0:
                    raise StoreError("cut off")
                left[0] -= 1
            return commit(batch)

        hf._store.commit = counting  # type: ignore[method-assign]

        async def attempt(id: str, commits: int) -> bool:
            left[0] = commits
            seen.clear()
            try:
                result = await hf.run(program(parts), id=id, state=initial)
            except StoreError:
                return False
            assert reader(hf, id) == result
            return True

        for at in range(100):
            id = f"run {at}"
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
    initial = codec.decode(row.state, codec.Types.none, "state", root="state") if row.state else {}
    return replay(initial, hf._store.load(row.no))


def run(body: Callable[[], Any]) -> None:
    asyncio.run(body())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(st.lists(PARTS, min_size=1, max_size=5), st.sampled_from([{}, {"a": [], "b": {"p": 1}}]))
def test_what_a_reader_arrives_at_is_the_live_state(parts: list[Any], initial: dict[str, Any]) -> None:
    run(lambda: cut_off_everywhere(parts, initial))
