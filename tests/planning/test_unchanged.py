"""Of an unchanged program, wherever its record was cut, a plan says that all is recalled. Replay: HOLDFAST_SEED=…"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plans import planned

from holdfast.store.memory import MemoryStore

sys.path.insert(0, str(Path(__file__).parents[1] / "order"))
import harness
import programs

SEED = int(os.environ.get("HOLDFAST_SEED", "1"))
PROGRAMS = 100
AT_ONCE = 25


def check_cut(record: harness.Record, cut: int, make: Callable[[], Any], what: str) -> None:
    store = harness.restored(record, cut)
    here = programs.worlds["r"] = programs.World(0)
    try:
        plan = planned(store, make())
    finally:
        del programs.worlds["r"]
    said = f"{what}, cut after {cut} (HOLDFAST_SEED={SEED}):\n{plan}\n{harness.table(record.rows, cut)}"
    assert plan.diverged is None and plan.stopped is None and not plan.hanging, said
    assert plan.unclaimed == [] and plan.unreached == [], said
    assert {name for name, _ in here.began} <= {"child"}, f"a step was executed; {said}"
    if cut == len(record.rows):
        assert plan.ended == "done", said
    else:
        assert plan.would or plan.ended == "done", said


def run_whole(make: Callable[[], Any]) -> harness.Record:
    undo = harness.tell_of_deliveries()
    try:
        record: harness.Record = asyncio.run(harness.execute(make, "r", MemoryStore(), SEED))
    finally:
        undo()
    return record


@pytest.mark.parametrize("first", range(0, PROGRAMS, AT_ONCE))
def test_of_an_unchanged_program_cut_anywhere_all_is_recalled(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        make = lambda seed=seed: programs.generated(seed * 1000 + SEED)  # noqa: E731
        record = run_whole(make)
        assert record.error is None, record.error
        for cut in {0, len(record.rows), *(len(record.rows) * k // 4 for k in range(1, 4))}:
            check_cut(record, cut, make, f"generated({seed * 1000 + SEED})")


@pytest.mark.parametrize("name", [made.__name__ for made in programs.ZOO])
def test_of_each_program_of_the_zoo_all_is_recalled(name: str) -> None:
    make = next(made for made in programs.ZOO if made.__name__ == name)
    record = run_whole(make)
    for cut in range(len(record.rows) + 1):
        check_cut(record, cut, make, name)
