"""What a salvage keeps, call by call; how often; and that it may be left and begun again anywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from editing import a, b, bare, did, edit, fails, goes_on, stop

import holdfast
from holdfast import Diverged, StepFailed, step, workflow
from holdfast.codec import Types, encode, encode_inputs, fingerprint
from holdfast.past import present
from holdfast.recall import blank_row
from holdfast.salvage import Pool, Sought
from holdfast.store import Checkpoint


@step
async def outer(x: int) -> str:
    did.append(f"outer{x}")
    return await a(x) + await b(x)


async def nested() -> list[str]:
    return [await outer(1), await stop()]


async def nested_before() -> list[str]:
    return [await a(1), await outer(1), await stop()]


async def nested_other() -> list[str]:
    return [await outer(2), await outer(1), await stop()]


@step(name="outer", version=2)
async def outer_2(x: int) -> str:
    did.append(f"outer{x}")
    return await b(x) + await a(x)


async def nested_changed() -> list[str]:
    return [await outer_2(1), await stop()]


def test_a_finished_call_stands_for_what_is_inside_it(url: str) -> None:
    edited = edit(url, nested, nested)
    assert (edited.executed, edited.kept) == ([], ["outer1"])
    assert [row.name for row in edited.rows if row.scope] == ["a", "b"]  # not read, and not written again


def test_where_the_outer_call_does_not_fit_its_insides_may(url: str) -> None:
    edited = edit(url, nested, nested_changed)
    assert (edited.executed, edited.kept) == (["outer1"], ["b1", "a1"])


def test_what_is_inside_of_a_call_may_be_kept_beside_it(url: str) -> None:
    edited = edit(url, nested, nested_before)
    assert (edited.executed, edited.kept) == ([], ["a1", "outer1"])


def test_what_is_inside_of_a_kept_call_is_not_kept_once_more(url: str) -> None:
    async def after() -> list[str]:
        return [await outer(1), await a(1), await stop()]

    edited = edit(url, nested, after)
    assert (edited.executed, edited.kept) == (["a1"], ["outer1"])


def test_a_new_call_before_it_takes_nothing_that_has_other_inputs(url: str) -> None:
    edited = edit(url, nested, nested_other)
    assert edited.kept == ["outer1"] and edited.executed == ["outer2", "a2", "b2"]


def test_each_result_is_kept_once(url: str) -> None:
    async def twice() -> list[str]:
        return [await a(1), await a(1), await stop()]

    async def thrice() -> list[str]:
        return [await a(1), await a(1), await a(1), await stop()]

    edited = edit(url, twice, thrice)
    assert (edited.kept, edited.executed) == (["a1", "a1"], ["a1"])


def test_the_one_of_the_same_place_comes_first(url: str) -> None:
    counted: list[int] = []

    @step
    async def counts(x: int) -> int:
        counted.append(x)
        return len(counted)

    async def before() -> list[Any]:
        return [await counts(1), await counts(1), await counts(1), await stop()]

    async def task() -> int:
        return await counts(1)

    async def after() -> list[Any]:
        return [await counts(1), await asyncio.create_task(task()), await counts(1), await stop()]

    # The task asks in another branch, before the body asks for the one of its own second place.
    assert edit(url, before, after).result[:3] == [1, 2, 3]


def test_failures_and_cancellations_are_not_kept(url: str) -> None:
    failing = [True]

    @step
    async def flaky(x: int) -> str:
        did.append(f"flaky{x}")
        if failing:
            raise ValueError("no")
        return "yes"

    @step
    async def slow(x: int) -> str:
        did.append(f"slow{x}")
        if failing:
            await asyncio.sleep(60)
        return "fast"

    async def plan() -> list[str]:
        found = []
        try:
            found.append(await flaky(1))
        except StepFailed:
            found.append("failed")
        try:
            found.append(await asyncio.wait_for(slow(1), 0.05))
        except TimeoutError:
            found.append("late")
        return [*found, await stop()]

    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, plan)
            failing.clear()
            edited = await goes_on(hf, plan)
            assert (edited.executed, edited.kept) == (["flaky1", "slow1"], [])
            assert edited.result == ["yes", "fast", "stop"]

    asyncio.run(main())


def test_state_comes_along_with_what_is_kept(url: str) -> None:
    @step
    async def notes(x: int) -> None:
        did.append(f"notes{x}")
        holdfast.state.setdefault("notes", []).append(x)

    async def before() -> list[Any]:
        holdfast.state["body"] = "old"
        await notes(1)
        await notes(2)
        await notes(3)
        return [await stop()]

    async def after() -> list[Any]:
        await notes(1)
        await notes(3)
        return [dict(holdfast.state), await stop()]

    edited = edit(url, before, after)
    assert edited.executed == [] and edited.result[0] == {"notes": [1, 3]}


def test_back_to_the_version_before_and_on_again(url: str) -> None:
    async def one() -> list[str]:
        return [await a(1), await b(1), await stop()]

    async def two() -> list[str]:
        return [await a(1), await b(2), await stop()]

    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, one)
            with pytest.raises(StepFailed):
                await failing(hf, two, 2)
            assert did == ["b2"]
            with pytest.raises(StepFailed):
                await failing(hf, one, 1)
            assert did == []
            edited = await goes_on(hf, two)
            assert (edited.executed, edited.run.version) == ([], "2")
            begins = [row for row in edited.rows if row.kind == "version"]
            assert [(row.version, row.result["to"]["version"]) for row in begins] == [
                ("1", "2"),
                ("2", "1"),
                ("1", "2"),
            ]
            places = [row.place for row in present(edited.rows)]
            assert len(set(places)) == len(places)
            # Finished, it is what it is under any version.
            assert await hf.run(workflow(name="edited", version=9, on_change="refuse")(one)(), id="x") == edited.result

    async def failing(hf: holdfast.Holdfast, body: Any, version: int) -> None:
        did.clear()
        await hf.run(workflow(name="edited", version=version)(body)(), id="x")

    asyncio.run(main())


def test_what_a_restart_left_behind_does_not_come_back(url: str) -> None:
    async def plan() -> list[str]:
        return [await a(1), await stop()]

    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, nested_before)
            with pytest.raises(StepFailed):
                await hf.run(workflow(name="edited", version=2, on_change="restart")(plan)(), id="x")
            edited = await goes_on(hf, nested_before, version=3)
            assert (edited.kept, edited.executed) == (["a1"], ["outer1", "a1", "b1"])

    asyncio.run(main())


def test_another_python_counts_as_another_version(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.definition import Definition

    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, nested_before)
            monkeypatch.setattr(Definition, "python", "3.99")
            refused = await goes_on(hf, nested_before, version=1, on_change="refuse")
            assert isinstance(refused.error, holdfast.VersionMismatch)
            assert "under Python 3." in str(refused.error) and "this is Python 3.99" in str(refused.error)
            edited = await goes_on(hf, nested_before, version=1)
            assert (edited.executed, edited.kept) == ([], ["a1", "outer1"])

    asyncio.run(main())


def test_waits_of_the_attempt_before_are_not_waited_for_again(url: str) -> None:
    """A sleep that is over is not slept again; one that has begun ends when it would have. A signal is taken again."""

    async def before() -> list[Any]:
        await holdfast.sleep(0.01)
        first = await holdfast.wait_for("go", int, timeout=30)
        second = await holdfast.wait_for("go", int)
        return [first, second, await stop()]

    async def after() -> list[Any]:
        await holdfast.sleep(0.01)
        first = await holdfast.wait_for("go", int, timeout=30)
        await a(first)
        second = await holdfast.wait_for("go", int)
        return [first, second, await stop()]

    async def main() -> None:
        async with holdfast.open(url) as hf:
            asking = asyncio.create_task(fails(hf, before))
            while True:
                try:
                    await hf.send("x", "go", 1)
                    break
                except holdfast.NotFound:
                    await asyncio.sleep(0.01)
            await hf.send("x", "go", 2)
            await asking
            edited = await goes_on(hf, after)
            assert edited.result == [1, 2, "stop"] and edited.executed == ["a1"]
            old = [row for row in edited.rows if row.status == "waiting"]
            begun = {row.seq: row.result for row in old}
            assert [begun[seq] for seq in sorted(begun)[:3]][1:] == [begun[seq] for seq in sorted(begun)[3:]]
            assert edited.kept == ["sleep0.01"]

    asyncio.run(main())


# -- crashes in the middle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(7))
def test_a_salvage_that_was_cut_off_goes_on_with_what_it_has(url: str, cut: int) -> None:
    """Left after each of its checkpoints, and begun again by the same version: nothing is kept or executed twice."""

    async def before() -> list[str]:
        return [await a(1), await a(1), await b(2), await bare(), await stop()]

    async def after() -> list[str]:
        found = []
        for call in (lambda: b(9), lambda: a(1), lambda: b(2), lambda: a(1), lambda: a(1), bare):
            if len(found) == cut and cutting:
                await asyncio.Event().wait()
            found.append(await call())
        return [*found, await stop()]

    cutting = [True]

    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, before)
            if cut == 6:
                cutting.clear()
            else:
                leaving = asyncio.create_task(goes_on(hf, after))
                while len(await hf.history("x")) < 6 + cut:
                    await asyncio.sleep(0.005)
                leaving.cancel()
                await asyncio.wait({leaving})
            was, cutting[:] = list(did), []
            edited = await goes_on(hf, after)
            assert edited.error is None, edited.error
            assert edited.result == ["b9", "a1", "b2", "a1", "a1", "bare", "stop"]
            assert was + edited.executed == ["b9", "a1"]
            assert sorted(edited.kept) == ["a1", "a1", "b2", "bare"]

    asyncio.run(main())


# -- once ----------------------------------------------------------------------------------------------------


class Place:
    """As much of a frame as a pool looks at."""

    def __init__(self, scope: str = "", branch: str = "") -> None:
        self.scope, self.branch, self.task, self.thread = scope, branch, None, 0


def row(seq: int, name: str, x: int, status: str = "done", *, branch: str = "", n: int = 0) -> Checkpoint:
    made = blank_row(1, 1, kind="step")
    made.seq, made.name, made.status, made.branch, made.n = seq, name, status, branch, n
    made.inputs = encode_inputs({"x": x}, "")
    made.fingerprint = fingerprint(made.inputs)
    return made


def begins(seq: int, how: str) -> Checkpoint:
    made = blank_row(1, 1, kind="version")
    told = {"from": {"schema_version": 0}}
    made.seq, made.status, made.result = seq, how, encode(told, Types.none, "")
    return made


def sought(name: str, x: int, *, branch: str = "", n: int = 0, key: str | None = None) -> Sought:
    inputs = encode_inputs({"x": x}, "")
    place: Any = Place(branch=branch)
    return Sought(place, "step", name, key, n, "", inputs, fingerprint(inputs))


def refused(pool: Pool, call: Sought) -> None:
    async def main() -> None:
        with pytest.raises(Diverged, match="recorded 1, now 2"):
            pool.find(call)

    asyncio.run(main())


@pytest.mark.parametrize("how", ["salvage", "restart"])
def test_what_was_done_once_is_kept_wherever_it_is_called(how: str) -> None:
    rows = [row(1, "pay", 1, "intent"), row(2, "pay", 1), row(3, "ask", 1), begins(4, how)]
    pool = Pool("x", rows, 0)
    assert pool.find(sought("ask", 1)) is (rows[2] if how == "salvage" else None)
    assert pool.find(sought("pay", 1, branch="task#0", n=3)) is rows[1]
    assert pool.find(sought("pay", 1)) is None  # a second time it is another call
    assert pool.left == pool.doubts == []


@pytest.mark.parametrize("how", ["salvage", "restart"])
def test_other_inputs_where_something_was_done_once_diverge(how: str) -> None:
    rows = [row(1, "pay", 1, "intent"), row(2, "pay", 1), begins(3, how)]
    pool = Pool("x", rows, 0)
    refused(pool, sought("pay", 2))
    refused(pool, sought("pay", 2, n=5))
    assert pool.find(sought("pay", 1, n=5)) is rows[1]
    assert pool.find(sought("pay", 2)) is None  # nothing is left that it could repeat


def test_an_intent_without_outcome_stays_a_doubt() -> None:
    rows = [row(1, "pay", 1, "intent"), begins(2, "restart")]
    pool = Pool("x", rows, 0)
    assert pool.doubts == [rows[0]]
    refused(pool, sought("pay", 2))
    assert pool.find(sought("pay", 1, branch="elsewhere#0")) is rows[0] and pool.doubts == []


def test_an_attempt_that_certainly_was_not_is_no_doubt() -> None:
    rows = [row(1, "pay", 1, "intent"), row(2, "pay", 1, "not_done"), begins(3, "salvage")]
    pool = Pool("x", rows, 0)
    assert pool.doubts == [] and pool.find(sought("pay", 2)) is None and pool.find(sought("pay", 1)) is None
