"""The crash sweep over programs of every kind; each run of it prints its seed."""

from __future__ import annotations

import os
import random
from typing import Any

import crash_programs as programs
import pytest

from holdfast import StepFailed
from holdfast.testing import Sweep, crash_sweep

pytestmark = pytest.mark.crash

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))


def swept(target: Any, *, commits: int, **options: Any) -> Sweep:
    """``commits``: at least so many, else the program does not do what it is here for."""
    print(f"seed {SEED}: HOLDFAST_SEED={SEED} replays it")
    sweep = crash_sweep(target, seed=SEED, **options)
    print(sweep)
    firsts = {point for point in sweep.points if ", then" not in point and point.startswith("commit")}
    assert len(firsts) >= 2 * commits, sweep.points
    for method in ("get", "claim", "load"):
        assert any(f", then {method} 1 before" in point for point in sweep.points), (method, sweep.points)
    assert sweep.kills >= len(sweep.points)
    return sweep


def test_sequential() -> None:
    assert swept(programs.sequential(3), commits=6).result[2:] == [
        0,
        1,
        3,
        "done [3]",
        {"total": 3, "log": [0, 1, 3]},
    ]


def test_nested_coroutines_in_a_gather() -> None:
    result = swept(programs.branching(), commits=4).result
    assert result["chapters"] == ["A1+A2+A3", "B1+B2+B3", "C1+C2+C3"] and len(result["fetched"]) == 9


def test_steps_that_are_executed_once() -> None:
    """Their keys are among the results: the same in every process."""
    assert [each[:2] for each in swept(programs.transferring(), commits=4).result] == ["1 ", "2 ", "3 "]


def test_steps_in_steps() -> None:
    assert swept(programs.nested(), commits=12).result == [9, 10, 9, ["intro", "tables", "end"]]


def test_state_that_overlapping_parts_append_to() -> None:
    assert swept(programs.appending(), commits=4).result == [0, 10, 11, 20, 21, 30, 99]


def test_plain_steps_in_threads() -> None:
    assert swept(programs.threaded(), commits=3).result == [6, 30, 42, 7, 3]


def test_a_plain_workflow() -> None:
    assert swept(programs.plain.bind("x"), commits=7).result == "x: 61"


def test_failures_that_are_history() -> None:
    seen = ["ValueError no tea", "tea", "ValueError no milk", "milk"]
    assert swept(programs.failing_over(), commits=6).result == seen


def test_a_failure_that_ends_the_run() -> None:
    swept(programs.failing(), commits=5, raises=StepFailed)


def test_a_step_that_the_workflow_cancels() -> None:
    assert swept(programs.cancelling(), commits=5, second=2).result == ["QUICK", "cancelled", 2]


def test_a_session() -> None:
    assert swept(programs.in_session, commits=5).result["order"] == ["docs", "checks", "summary"]


@pytest.mark.parametrize("target", [programs.sequential(1), programs.two_runs], ids=["sequential", "two runs"])
def test_on_postgres(target: Any, postgres_server: str) -> None:
    """A part of the points, each in a schema of its own."""
    print(f"seed {SEED}: HOLDFAST_SEED={SEED} replays it")
    try:
        sweep = crash_sweep(target, store=programs.on_postgres, seed=SEED, limit=8, second=1)
        assert sweep.kills >= len(sweep.points) > 8
    finally:
        programs.drop_schemas()


def test_two_runs_in_one_process() -> None:
    swept(programs.two_runs, commits=6)


def test_an_initial_state_goes_along() -> None:
    result = swept(programs.sequential(1), commits=4, state={"given": 1}, second=0).result
    assert result[-1] == {"given": 1, "total": 0, "log": [0]}
