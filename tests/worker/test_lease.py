"""How long a lease lasts is a value of the Holdfast that holds it."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import step, workflow
from holdfast.testing import FakeClock

held = asyncio.Event()


@step
async def work() -> None:
    await held.wait()


@workflow(version="1")
async def job() -> str:
    await work()
    return "done"


@pytest.mark.parametrize("seconds", [0, 0.9, -1, 86_401, math.inf, math.nan])
def test_a_lease_has_its_bounds(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"lease= must be from 1 to 86400 seconds, got"):
        holdfast.open("memory://", lease=seconds)


@pytest.mark.parametrize("given", ["10", None, True])
def test_a_lease_is_a_number(given: Any) -> None:
    with pytest.raises(TypeError, match="lease= must be a number of seconds"):
        holdfast.open("memory://", lease=given)


def test_each_holdfast_has_its_own(tmp_path: Path) -> None:
    """What is written into the row, and how long the holder trusts it, are that Holdfast's."""

    async def main() -> None:
        global held
        held = asyncio.Event()
        with FakeClock():
            for seconds in (1, 60):
                async with holdfast.open(tmp_path / "a.db", lease=seconds) as hf:
                    before = hf._store.now_ms()
                    await hf.start(job(), id=f"job-{seconds}")
                    row = hf._store.get(f"job-{seconds}")
                    assert row is not None
                    assert seconds * 1000 <= row.lease_until_ms - before <= seconds * 1000 + 900
                    run = hf._live[f"job-{seconds}"].run
                    assert run is not None and run.lease_deadline == pytest.approx(0.8 * seconds)

    asyncio.run(main())
