"""The crash sweep over maps and loops; it prints its seed."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import scope_programs as programs

from holdfast.testing import crash_sweep

pytestmark = pytest.mark.crash

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))


def result_of(target: Any, **options: Any) -> Any:
    print(f"seed {SEED}: HOLDFAST_SEED={SEED} replays it")
    sweep = crash_sweep(target, seed=SEED, **options)
    print(sweep)
    return sweep.result


def test_a_map_over_steps_threads_and_plain_functions() -> None:
    names = ["a", "bb", "ccc"]
    sizes, weights, described, seen = result_of(programs.mapping(names), limit=14, second=2)
    assert (sizes, weights, seen) == ([1, 2, 3], [10, 20, 30], 12)
    assert described == ["a: 1, 10, True", "bb: 2, 20, True", "ccc: 3, 30, True"]


def test_a_map_in_a_plain_workflow() -> None:
    names = ["a", "bb", "ccc"]
    assert result_of(programs.mapping_in_threads.bind(names), limit=6, second=1) == [[10, 20, 30], names, 30]


def test_failures_of_items() -> None:
    result = result_of(programs.collecting(["x", "bad y", "z"]), limit=8, second=2)
    assert result == ["x", "bad y", "z", "a", "b", "bad y"]


def test_a_loop_that_is_broken_off() -> None:
    total, last, notes, _ = result_of(programs.looping(3), limit=8, second=2)
    assert (total, last) == (106, 3)
    assert notes == ["begun", "turn 0", "turn 1", "turn 2", "turn 3", "broken off"]


def test_loops_in_loops_of_a_plain_workflow() -> None:
    assert result_of(programs.looping_in_a_thread.bind(["ab", "c"]), limit=6, second=1) == [["a", "b", "c"], 2, "end"]
