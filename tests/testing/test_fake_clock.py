"""Time passes when the test says so."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

import holdfast
from holdfast import clock, step, workflow
from holdfast.testing import FakeClock


def test_sleepers_wake_in_order_each_at_its_own_time() -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *times: float) -> None:
        for seconds in times:
            await clock.sleep(seconds)
            woken.append((name, clock.monotonic()))

    async def main() -> None:
        with FakeClock() as time:
            began = clock.now_ms()
            tasks = [
                asyncio.create_task(sleeper("a", 5)),
                asyncio.create_task(sleeper("b", 1, 1, 4)),
                asyncio.create_task(sleeper("c", 2)),
                asyncio.create_task(sleeper("d", 0, 60)),
            ]
            await time.sleepers(4)
            assert woken == [("d", 0.0)]
            await time.advance(4)
            assert woken[1:] == [("b", 1.0), ("c", 2.0), ("b", 2.0)]
            assert (clock.now_ms() - began, time.sleeping) == (4000, 3)
            tasks[3].cancel()
            await asyncio.sleep(0)
            await time.advance(100)
            assert woken[4:] == [("a", 5.0), ("b", 6.0)] and clock.monotonic() == 104
            assert time.sleeping == 0
            with pytest.raises(ValueError, match="does not go back"):
                await time.advance(-1)
            with pytest.raises(TimeoutError, match="0 tasks sleep"):
                await time.sleepers(1, timeout=0.01)
        assert clock.now_ms() > 1_700_000_000_000 and clock.monotonic() != 104

    asyncio.run(main())


def test_backoff_by_the_fake_clock(hf_sqlite: holdfast.Holdfast, fake_clock: FakeClock) -> None:
    tries: list[float] = []

    @step(attempts=4, backoff=10)
    async def flaky() -> str:
        tries.append(clock.monotonic())
        if len(tries) < 4:
            raise OSError
        return "done"

    @workflow(version="1")
    async def patient() -> str:
        return await flaky()

    async def main() -> None:
        running = asyncio.create_task(hf_sqlite.run(patient(), id="x"))
        await fake_clock.sleepers(1)
        while not running.done():
            await fake_clock.advance(0.5)
            await asyncio.sleep(0.001)
        assert await running == "done"

    asyncio.run(main())
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert all(base / 2 <= waited <= base for base, waited in zip((10, 20, 40), waits, strict=True)), waits


def test_a_program_without_a_loop(tmp_path: Path) -> None:
    with FakeClock() as time, holdfast.open(tmp_path / "a.db") as hf:

        @step(attempts=2, backoff=40)
        def flaky() -> float:
            if clock.monotonic() < 20:
                raise OSError
            return clock.monotonic()

        @workflow(version="1")
        def plain() -> float:
            return flaky()

        run = hf.wait(hf.start(plain.bind(), id="x"))
        hf.wait(time.sleepers(1))
        hf.wait(time.advance(100))
        assert 20 <= hf.wait(run.wait()) <= 100  # a thread is not waited for
