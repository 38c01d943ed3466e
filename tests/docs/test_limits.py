"""docs/limits.md: the limits that no program on the page shows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
import holdfast.patience
from holdfast import CodecError, StepFailed, StoreError, step, workflow
from holdfast.store.sqlite import SQLiteStore

failing = [True]
slow_s = [0.05]


@pytest.fixture(autouse=True)
def fails_at_first() -> None:
    failing[:] = [True]
    slow_s[:] = [0.05]


@step
async def seen(name: str) -> str:
    return name


@step
async def end() -> None:
    if failing:
        raise ConnectionError("not yet")


@workflow(version="1")
async def timed() -> str:
    """Which of two branches is first depends on a timer of the body."""
    first: list[str] = []

    async def with_timer() -> None:
        await asyncio.sleep(slow_s[0])
        first.append(await seen("behind a timer"))

    async def behind_a_step() -> None:
        await pause()
        first.append(await seen("behind a step"))

    await asyncio.gather(with_timer(), behind_a_step())
    await end()
    return first[0]


@step
async def pause() -> None:
    await asyncio.sleep(0.15)


@pytest.mark.parametrize(("slower_s", "first"), [(0.2, "behind a timer"), (1.5, "behind a step")])
def test_a_timer_of_the_body_is_waited_for_within_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slower_s: float, first: str
) -> None:
    """Patience is five seconds; half of one here, so that the test need not take ten."""
    monkeypatch.setattr(holdfast.patience, "PATIENCE_S", 0.5)

    async def program() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            with pytest.raises(StepFailed):
                await hf.run(timed(), id="a")
            names = [each.inputs for each in await hf.history("a") if each.name == "seen"]
            assert names == [{"name": "behind a timer"}, {"name": "behind a step"}]
            slow_s[:] = [slower_s]
            failing.clear()
            assert await hf.run(timed(), id="a") == first

    asyncio.run(program())


@pytest.mark.parametrize(("turns", "resumed"), [(4, "came"), (400, "did not come")])
def test_values_handed_on_through_many_turns_of_the_loop(tmp_path: Path, turns: int, resumed: str) -> None:
    @workflow(name="handing", version="1")
    async def handing() -> str:
        came: list[str] = []

        async def hand_on() -> None:
            await seen("a")
            for _ in range(turns):
                await asyncio.sleep(0)
            came.append("came")

        async def look() -> str:
            await pause()
            return came[0] if came else "did not come"

        _, found = await asyncio.gather(hand_on(), look())
        if failing:
            assert found == "came"
        await end()
        return found

    async def program() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            with pytest.raises(StepFailed):
                await hf.run(handing(), id="a")
            failing.clear()
            assert await hf.run(handing(), id="a") == resumed

    asyncio.run(program())


def test_a_group_that_a_plain_error_ended(tmp_path: Path) -> None:
    @step(name="sibling")
    async def sibling() -> int:
        if failing:
            await asyncio.sleep(60)
        return 1

    async def check() -> None:
        await seen("checked")
        if failing:
            raise ValueError("an error of the body")

    @workflow(name="grouped", version="1")
    async def grouped() -> int:
        async with asyncio.TaskGroup() as group:
            found = group.create_task(sibling())
            group.create_task(check())
        return found.result()

    async def program() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            with pytest.raises(ExceptionGroup):
                await hf.run(grouped(), id="a")
            assert [(each.name, each.status) for each in await hf.history("a")] == [
                ("seen", "done"),
                ("sibling", "cancelled"),
            ]
            failing.clear()
            with pytest.raises(StepFailed, match="CancelledError"):
                await hf.run(grouped(), id="a")
            assert await hf.run(grouped(), id="a") == 1

    asyncio.run(program())


def test_what_a_step_does_to_a_variable_is_not_done_again(tmp_path: Path) -> None:
    @step
    async def grow(number: int) -> None:
        grown.append(number)

    @workflow(name="growing", version="1")
    async def growing() -> int:
        await grow(1)
        await end()
        return len(grown)

    async def program() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            with pytest.raises(StepFailed):
                await hf.run(growing(), id="a")
            assert grown == [1]
            grown.clear()  # as a new process has it
            failing.clear()
            assert await hf.run(growing(), id="a") == 0

    grown: list[int] = []
    asyncio.run(program())


def test_a_file_where_no_log_can_be_kept_is_refused(tmp_path: Path) -> None:
    """SQLite's dotfile locking has no shared memory, as network file systems have none."""

    @workflow(version="1")
    async def plan() -> None: ...

    async def program() -> None:
        async with holdfast.Holdfast(SQLiteStore(tmp_path / "a.db", vfs="unix-dotfile")) as hf:
            with pytest.raises(StoreError, match=r"can keep no write-ahead log.*put it on a local disk"):
                await hf.run(plan(), id="a")

    asyncio.run(program())


def test_nesting_and_previews() -> None:
    @workflow(version="1")
    async def passing(texts: list[str], number: int) -> None:
        await seen("x" * 100_000)
        deep: list[object] = []
        for _ in range(number):
            deep = [deep]
        holdfast.state["deep"] = deep

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            await hf.run(passing(["whole"] * 1000, 90), id="a")
            row = await hf._read(hf._store.get, "a")
            assert row is not None and len(row.inputs) > 5000
            (first, _) = await hf._read(hf._store.load, row.no)
            assert first.inputs is not None and len(first.inputs) <= 2048
            with pytest.raises(CodecError, match="nested more than 100 levels deep"):
                await hf.run(passing([], 120), id="b")

    asyncio.run(program())


@pytest.mark.slow
def test_a_static_step_is_typed_on_its_class(tmp_path: Path) -> None:
    program = tmp_path / "agent.py"
    program.write_text(
        "from holdfast import step\n\n\n"
        "class Agent:\n    @staticmethod\n    @step\n"
        "    async def think(prompt: str) -> str:\n        return prompt\n\n\n"
        "async def right() -> str:\n    return await Agent.think('on')\n\n\n"
        "async def refused() -> str:\n    return await Agent().think('on')\n"
    )
    source = str(Path(holdfast.__file__).parents[1])
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(program)],
        env={"MYPYPATH": source, "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    (line,) = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert "agent.py:16: error: Too many arguments" in line
