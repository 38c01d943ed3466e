"""What a plan says of edited programs, of those that wait, hang or reach out, and of runs in every condition."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from plans import TIMEOUT_S, planned

import holdfast
from holdfast import StoreError, step, workflow
from holdfast.app import Holdfast
from holdfast.planning import Plan, plan_run, unwritten
from holdfast.store import Store
from holdfast.store.blobs import BlobRows
from holdfast.store.dialogs import Dialogs
from holdfast.store.memory import MemoryStore

did: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()


@step
async def a(x: int = 0) -> str:
    did.append(f"a{x}")
    return f"a{x}"


@step
async def b(x: int = 0) -> str:
    did.append(f"b{x}")
    return f"b{x}"


@step
async def stuck(x: int = 0) -> str:
    await asyncio.get_running_loop().create_future()
    return "never"


@step
def plain(x: int = 0) -> str:
    did.append(f"plain{x}")
    return f"plain{x}"


@step
async def fails() -> str:
    raise OSError("for now")


def lived(function: Any, cut: int | None = None) -> Store:
    """A store with the run "r" of a program, cut after so many checkpoints."""
    store = MemoryStore()
    marked = workflow(name="edited", version="1")(function)

    async def main() -> None:
        hf = Holdfast(store)
        try:
            await asyncio.wait_for(hf.run(marked.bind(), id="r"), 0.5)
        except (TimeoutError, holdfast.HoldfastError, ValueError):
            pass
        await hf.aclose()

    asyncio.run(main())
    did.clear()
    if cut is not None:
        run = store._data.runs[1]
        run.status = "running"
        store._data.checkpoints[1] = {seq: row for seq, row in store._data.checkpoints[1].items() if seq <= cut}
    return store


def plan_of(before: Any, after: Any, cut: int | None = None, **options: Any) -> Plan:
    plan = planned(lived(before, cut), workflow(name="edited", version="1")(after).bind(), **options)
    assert did == [], "a step was executed"
    return plan


def calls(plan: Plan) -> list[str]:
    return [f"{each.name}{each.inputs.get('x', 0)}" for each in plan.would]


async def three() -> list[str]:
    return [await a(1), await b(2), await a(3)]


async def at_once() -> list[str]:
    return list(await asyncio.gather(a(1), b(2), a(3)))


def test_what_would_run_is_told_with_its_inputs_and_line() -> None:
    plan = plan_of(three, three, cut=2)
    assert (plan.recalled, calls(plan), plan.ended) == (2, ["a3"], None)
    (call,) = plan.would
    assert (call.call, call.inputs, call.again) == ("call 1 of step 'a'", {"x": 3}, False)
    assert call.line is not None and call.line.file == __file__ and "three" in call.line.function


def test_other_branches_go_on_where_one_rests() -> None:
    async def twice(x: int) -> list[str]:
        return [await a(x), await b(x)]

    async def both() -> Any:
        return await asyncio.gather(twice(1), twice(2))

    plan = plan_of(both, both, cut=3)
    assert plan.recalled == 3 and len(plan.would) == 1 and plan.would[0].name == "b"
    assert plan.unclaimed == plan.unreached == []


def test_an_inserted_step_would_run_and_what_comes_behind_it_may_be_asked_for() -> None:
    async def inserted() -> list[str]:
        return [await a(1), await plain_in_thread(), await b(2), await a(3)]

    plan = plan_of(three, inserted)
    assert [each.name for each in plan.would] == ["plain"] and plan.unclaimed == []
    assert [row.seq for row in plan.unreached] == [2, 3]


async def plain_in_thread() -> str:
    return await asyncio.to_thread(plain)


def test_a_removed_step_is_unclaimed_once_the_program_has_passed_it() -> None:
    async def removed() -> list[str]:
        return [await a(1), await a(3), await b(7)] if False else [await a(1), await a(3)]

    plan = plan_of(three, removed)
    assert plan.ended == "done" and [row.name for row in plan.unclaimed] == ["b"]

    async def removed_and_more() -> list[str]:
        return [await a(1), await a(3), await plain_in_thread()]

    plan = plan_of(three, removed_and_more)
    assert plan.ended is None and [row.name for row in plan.unclaimed] == ["b"] and plan.unreached == []


def test_a_branch_that_nobody_begins_any_more_is_unclaimed() -> None:
    async def begun(x: int) -> str:
        return await b(x)

    async def with_branch() -> str:
        await asyncio.create_task(begun(1))
        return await a(1)

    async def without() -> list[str]:
        return [await a(1), await plain_in_thread()]

    plan = plan_of(with_branch, without)
    assert [row.name for row in plan.unclaimed] == ["b"]


def test_other_inputs_diverge_with_the_line_and_the_difference() -> None:
    async def other() -> list[str]:
        return [await a(1), await b(9)]

    plan = plan_of(three, other)
    assert plan.diverged is not None and "x: recorded 2, now 9" in plan.diverged
    assert "test_plans.py:" in plan.diverged and plan.would == []


def test_a_failure_that_ended_the_run_would_be_tried_anew() -> None:
    async def failing() -> str:
        await a(1)
        try:
            return await fails()
        finally:
            await b(2)

    plan = plan_of(failing, failing)
    assert [(each.name, each.again) for each in plan.would] == [("fails", True)]
    assert plan.unclaimed == [] and plan.recalled == 1


def test_a_finished_run_is_recalled_to_its_end() -> None:
    plan = plan_of(at_once, at_once)
    assert (plan.ended, plan.recalled, plan.would, plan.run.status) == ("done", 3, [], "done")


def test_a_program_that_would_fail_says_with_what() -> None:
    async def wrong() -> None:
        await a(1)
        raise LookupError("no such page")

    plan = plan_of(three, wrong)
    assert (plan.ended, plan.error) == ("failed", "LookupError: no such page")
    assert [row.seq for row in plan.unclaimed] == [2, 3]


def test_waits_without_outcome_would_be_waited() -> None:
    async def waits() -> Any:
        await a(1)
        await asyncio.gather(
            holdfast.sleep(3600), holdfast.wait_for("answer", str), holdfast.current().run(kid(), id="k")
        )

    plan = plan_of(waits, waits)
    assert sorted(each.kind for each in plan.would) == ["run", "signal", "sleep"]
    assert {each.kind: each.inputs for each in plan.would}["sleep"] == {"seconds": 3600.0}


@workflow(version="1")
async def kid() -> str:
    return await stuck()


def test_a_step_in_flight_with_calls_of_its_own_would_run_and_keeps_them() -> None:
    @step
    async def outer() -> list[str]:
        return [await a(1), await b(2)]

    async def nested() -> list[str]:
        return await outer()

    plan = plan_of(nested, nested, cut=1)
    assert [each.name.rpartition(".")[2] for each in plan.would] == ["outer"]
    assert plan.unreached == plan.unclaimed == [] and plan.recalled == 0


def test_nothing_waits_for_what_is_recorded_inside_a_step_that_is_not_executed() -> None:
    @step
    async def outer() -> list[str]:
        return [await a(1), await stuck()]

    async def nested() -> Any:
        return await asyncio.gather(outer(), later())

    async def later() -> list[str]:
        await asyncio.sleep(0.01)
        return [await b(x) for x in range(10)]

    began = time.monotonic()
    plan = plan_of(nested, nested, timeout_s=60.0)
    assert plan.recalled == 10 and len(plan.would) == 1 and time.monotonic() - began < 4  # patience is 5 s


def test_plain_workflows_are_planned_in_their_threads() -> None:
    def body() -> list[str]:
        return [plain(1), plain(2), plain(3)]

    plan = plan_of(body, body, cut=2)
    assert (plan.recalled, calls(plan)) == (2, ["plain3"])
    plan = plan_of(body, body)
    assert (plan.recalled, plan.ended) == (3, "done")


def test_a_time_limit_around_what_would_run_says_nothing_of_what_comes_behind() -> None:
    async def limited() -> str:
        try:
            async with asyncio.timeout(0.05):
                return await a(1)
        except TimeoutError:
            return await b(1)

    async def waited() -> str:
        try:
            return await asyncio.wait_for(a(1), 0.05)
        except TimeoutError:
            return await b(1)

    for limit in (limited, waited):

        async def program(limit: Any = limit) -> None:
            await asyncio.gather(limit(), asyncio.sleep(0.3))  # so that the limit is reached before all is at rest

        assert calls(plan_of(program, program, cut=0)) == ["a1"]


def test_code_that_does_not_come_to_rest_is_told_with_its_line() -> None:
    async def sleeps() -> str:
        await a(1)
        await asyncio.sleep(3600)
        return await b(2)

    async def spins() -> str:
        await a(1)
        while not over.is_set():
            time.sleep(0.01)
        return await b(2)

    over = threading.Event()
    for program in (sleeps, spins):
        plan = plan_of(three, program, timeout_s=1.0)
        assert plan.recalled == 1 and len(plan.hanging) == 1, plan.hanging
        assert f"in {'test_code' if sys.version_info < (3, 11) else program.__qualname__}" in plan.hanging[0]
    over.set()


def test_code_between_steps_that_takes_its_time_is_waited_for() -> None:
    async def slow() -> str:
        await a(1)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(time.sleep, 0.2)
        return await b(2)

    assert calls(plan_of(slow, slow, cut=1)) == ["b2"]


@pytest.mark.parametrize("how", ["submit", "start", "send", "cancel", "fork", "session"])
def test_code_that_would_change_another_run_changes_nothing(how: str) -> None:
    other = Holdfast(MemoryStore())

    def make(hf: Callable[[], Holdfast]) -> Any:
        async def reaches() -> None:
            await a(1)
            if how == "submit":
                await hf().submit(kid(), id="x")
            elif how == "start":
                await hf().start(kid(), id="x")
            elif how == "send":
                await hf().send("r", "answer", 1)
            elif how == "cancel":
                await hf().cancel("r")
            elif how == "fork":
                await hf().fork("r", at=0, new_id="x")
            else:
                async with hf().session("x"):
                    pass

        return reaches

    for program in (make(holdfast.current), make(lambda: other)):
        store = lived(three)
        plan = planned(store, workflow(name="edited", version="1")(program).bind())
        assert plan.ended != "done" and "only planned" in (plan.error or plan.stopped or ""), plan
    assert asyncio.run(other.runs()) == []


def test_what_was_submitted_before_is_found_again() -> None:
    async def submits() -> str:
        await holdfast.current().submit(kid(), id="x")
        return await a(1)

    plan = plan_of(submits, submits)
    assert (plan.ended, plan.recalled) == ("done", 1)


def test_a_run_is_planned_while_it_is_advanced() -> None:
    store = MemoryStore()
    marked = workflow(name="edited", version="1")(beside)

    async def main() -> None:
        async with Holdfast(store) as hf:
            await hf.start(marked(), id="r")
            while len(await hf.history("r")) < 1:
                await asyncio.sleep(0.001)
            row = store.get("r")
            assert row is not None and row.owner == hf.owner
            home = Holdfast(unwritten(store))
            plan = await asyncio.to_thread(plan_run, home, row, marked(), timeout_s=TIMEOUT_S)
            assert [each.name for each in plan.would] == ["slowly"] and plan.recalled == 1
            assert did == ["a1"]
            gate.set()
            assert await (await hf.get("r")).wait() == "slowly"

    gate.clear()
    asyncio.run(main())


WRITES = {
    "cancel",
    "claim",
    "claim_due",
    "clear_news",
    "delete_dialog",
    "extend",
    "fork",
    "open_dialog",
    "send",
    "tell",
    "renew_blob",
    "put_blob",
}


def test_whatever_else_would_write_is_refused() -> None:
    """``commit`` and ``renew`` let what a submitted run does through, where it changes nothing."""
    store = MemoryStore()
    planned_on = unwritten(store)
    methods = {name for each in (Store, Dialogs, BlobRows) for name in vars(each) if not name.startswith("_")}
    refused = set()
    for name in methods - {"commit", "renew"}:
        found = getattr(planned_on, name)
        if getattr(found, "__self__", None) is not store and callable(found):
            with pytest.raises(StoreError, match=r"the code would .*, and it is only planned"):
                found(*[""] * 3) if name == "send" else found("")
            refused.add(name)
    assert refused == WRITES


gate = threading.Event()


@step
async def slowly() -> str:
    while not gate.is_set():
        await asyncio.sleep(0.001)
    return "slowly"


async def beside() -> str:
    await a(1)
    return await slowly()


def test_a_damaged_record_stops_the_plan() -> None:
    store = lived(three)
    store._data.checkpoints[1][2].result = b"\x01"  # type: ignore[attr-defined]
    plan = planned(store, workflow(name="edited", version="1")(three).bind())
    assert plan.stopped is not None and "CodecError" in plan.stopped and "checkpoint 2" in plan.stopped


def test_other_code_makes_of_a_run_what_its_on_change_says() -> None:
    async def longer() -> list[str]:
        return [await b(7), await a(1), await b(2)]

    def plan(on_change: str) -> Plan:
        newer: Any = workflow(name="edited", version="2", on_change=on_change)  # type: ignore[call-overload]
        return planned(lived(three, cut=2), newer(longer).bind())

    salvage = plan("salvage")
    assert salvage.version == "recorded by version '1' of 'edited', and this is version '2': salvage"
    assert (calls(salvage), salvage.kept, salvage.recalled, salvage.stopped) == (["b7"], 0, 0, None)
    refuse = plan("refuse")
    assert refuse.stopped is not None and refuse.stopped.startswith("VersionMismatch: run 'r' was recorded by version")

    assert [row.seq for row in salvage.unreached] == [1, 2], "what it rests at may ask for them"

    async def shorter() -> list[str]:
        return [await a(1), await a(3)]

    newer: Any = workflow(name="edited", version="2")(shorter)
    left = planned(lived(three, cut=3), newer.bind())
    assert (left.ended, left.kept, [(row.seq, row.name) for row in left.unclaimed]) == ("done", 2, [(2, "b")])
    newer = workflow(name="edited", version="2")(three)
    again = planned(lived(three, cut=2), newer.bind())
    assert (again.kept, calls(again), again.unclaimed) == (2, ["a3"], [])


def test_a_step_in_doubt_is_told_as_that_and_nobody_is_asked() -> None:
    async def asked(x: int) -> str:
        did.append("asked")
        return "yes"

    @step(name="pay", once=True, verify=asked)
    async def pay(x: int) -> str:
        did.append("paid")
        return "paid"

    async def pays() -> str:
        return await pay(1)

    plan = plan_of(pays, pays, cut=1)
    assert [(each.name, each.in_doubt) for each in plan.would] == [("pay", True)] and plan.unclaimed == []
