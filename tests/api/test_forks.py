"""``hf.fork``: what a fork shares with its source, and what it does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import CodecError, HoldfastError, Mismatch, NotFound, StepFailed, step, workflow
from holdfast.app import Holdfast

did: list[str] = []
model = "small"  # what the program thinks with: other code, as it were


@step
async def think(turn: int) -> str:
    holdfast.spend(tokens=10)
    did.append(f"think {turn}")
    return f"{holdfast.state.get('model', model)} thought {turn}"


@step
async def report(thoughts: list[str]) -> str:
    did.append("report")
    if "wrong" in thoughts[-1]:
        raise ValueError("a wrong turn")
    return "; ".join(thoughts)


@workflow(version="1")
async def agent(turns: int) -> str:
    thoughts = [await think(turn) for turn in range(turns)]
    return await report(thoughts)


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return "memory://" if request.param == "memory" else str(tmp_path / "jobs.db")


def on(url: str, program: Callable[[Holdfast], Any]) -> Any:
    async def main() -> Any:
        async with holdfast.open(url) as hf:
            return await program(hf)

    return asyncio.run(main())


def test_a_fork_recalls_what_is_shared_and_executes_what_comes_after(url: str) -> None:
    async def program(hf: Holdfast) -> None:
        assert await hf.run(agent(3), id="a") == "small thought 0; small thought 1; small thought 2"
        before = await hf.history("a")
        fork = await hf.fork("a", at=2, new_id="b", state={"model": "large"})
        assert (fork.id, fork.status, fork.forked_from, fork.workflow) == ("b", "queued", ("a", 2), "agent")
        assert (fork.spent.tokens, fork.deaths, fork.steps, fork.resumed) == (0, 0, 0, 0)
        did.clear()
        assert await hf.run(agent(3), id="b") == "small thought 0; small thought 1; large thought 2"
        assert did == ["think 2", "report"]
        again = await hf.get("b")
        assert (again.status, again.spent.tokens, again.steps, again.resumed) == ("done", 10, 2, 0)
        assert [each.seq for each in await hf.history("b")] == [1, 2, 3, 4]
        source = await hf.get("a")
        assert (source.forked_from, source.spent.tokens, source.status) == (None, 30, "done")
        assert await hf.history("a") == before

    on(url, program)


def test_a_failed_run_is_forked_before_its_wrong_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(hf: Holdfast) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("test_forks.model", "wrong")
            with pytest.raises(StepFailed):
                await hf.run(agent(2), id="a")
        fork = await hf.fork("a", at=1, new_id="b")
        assert fork.error is None and fork.status == "queued"
        assert await hf.run(agent(2), id="b") == "wrong thought 0; small thought 1"
        assert (await hf.get("a")).status == "failed"

    on("memory://", program)


def test_a_fork_of_a_fork_knows_its_source(url: str) -> None:
    async def program(hf: Holdfast) -> None:
        await hf.run(agent(2), id="a")
        await hf.fork("a", at=1, new_id="b")
        await hf.run(agent(2), id="b")
        fork = await hf.fork("b", at=2, new_id="c")
        assert fork.forked_from == ("b", 2)
        did.clear()
        await hf.run(agent(2), id="c")
        assert did == ["report"]

    on(url, program)


def test_a_fork_of_nothing_shares_the_arguments_only() -> None:
    async def program(hf: Holdfast) -> None:
        await hf.run(agent(1), id="a")
        await hf.fork("a", at=0, new_id="b")
        did.clear()
        with pytest.raises(Mismatch, match="other arguments"):
            await hf.run(agent(2), id="b")
        await hf.run(agent(1), id="b")
        assert did == ["think 0", "report"]

    on("memory://", program)


def test_a_run_is_forked_while_it_runs() -> None:
    async def program(hf: Holdfast) -> None:
        gate = asyncio.Event()

        @step
        async def first() -> int:
            return 1

        @step
        async def second() -> int:
            await gate.wait()
            return 2

        @workflow(version="1")
        async def both() -> int:
            return await first() + await second()

        await hf.start(both(), id="a")
        while not await hf.history("a"):
            await asyncio.sleep(0.001)
        await hf.fork("a", at=1, new_id="b")
        gate.set()
        assert await hf.run(both(), id="b") == 3 and await (await hf.get("a")).wait() == 3

    on("memory://", program)


def test_a_fork_inside_a_call_that_is_not_finished_there_keeps_what_was_done_in_it() -> None:
    @step
    async def inner(n: int) -> int:
        did.append(f"inner {n}")
        return n

    @step
    async def outer() -> int:
        return sum([await inner(n) for n in range(3)])

    @workflow(version="1")
    async def nested() -> int:
        return await outer()

    async def program(hf: Holdfast) -> None:
        assert await hf.run(nested(), id="a") == 3
        await hf.fork("a", at=2, new_id="b")
        did.clear()
        assert await hf.run(nested(), id="b") == 3
        assert did == ["inner 2"]

    on("memory://", program)


def test_a_signal_taken_before_stays_taken_and_the_mailbox_is_the_forks_own(url: str) -> None:
    @workflow(version="1")
    async def asks() -> list[str]:
        return [await holdfast.wait_for("answer", str) for _ in range(2)]

    async def program(hf: Holdfast) -> None:
        await hf.start(asks(), id="a")
        for answer in ("yes", "no"):
            await hf.send("a", "answer", answer)
        assert await (await hf.get("a")).wait() == ["yes", "no"]
        taken = [each.seq for each in await hf.history("a") if each.kind == "signal" and each.status == "done"]
        await hf.fork("a", at=taken[0], new_id="b")
        await hf.start(asks(), id="b")
        await hf.send("b", "answer", "perhaps")
        assert await (await hf.get("b")).wait() == ["yes", "perhaps"]

    on(url, program)


def test_what_is_random_is_so_for_the_fork_too() -> None:
    @step
    async def keep(value: float) -> float:
        return value

    @workflow(version="1")
    async def dice() -> list[float]:
        return [await keep(holdfast.random()) for _ in range(3)]

    async def program(hf: Holdfast) -> None:
        thrown = await hf.run(dice(), id="a")
        await hf.fork("a", at=2, new_id="b")
        assert await hf.run(dice(), id="b") == thrown  # else the shared records would not fit

    on("memory://", program)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"id": "x", "at": 1, "new_id": "b"}, NotFound, "there is no run 'x' to fork"),
        ({"id": "a", "at": 3, "new_id": "b"}, ValueError, r"no checkpoint 3: at= is from 0 .* to 2, the last one"),
        ({"id": "a", "at": -1, "new_id": "b"}, ValueError, "no checkpoint -1"),
        ({"id": "a", "at": "1", "new_id": "b"}, TypeError, "at= is the number of a checkpoint"),
        ({"id": "a", "at": 1, "new_id": "a"}, Mismatch, "run 'a' exists already. Nothing was changed"),
        ({"id": "a", "at": 1, "new_id": ""}, TypeError, "id= must be"),
        ({"id": "a", "at": 1, "new_id": "b", "state": [1]}, TypeError, "state= must be a mapping"),
        ({"id": "s", "at": 1, "new_id": "b"}, HoldfastError, "'s' is a session"),
    ],
)
def test_what_cannot_be_forked_is_refused_and_nothing_is_written(asked: Any, error: Any, said: str) -> None:
    async def program(hf: Holdfast) -> None:
        await hf.run(agent(1), id="a")
        async with hf.session("s") as session:
            session.state["x"] = 1
            await session.save()
        with pytest.raises(error, match=said):
            await hf.fork(**asked)
        assert {run.id for run in await hf.runs()} == {"a", "s"}

    on("memory://", program)


def test_a_damaged_row_is_not_shared(tmp_path: Any) -> None:
    import sqlite3

    path = tmp_path / "jobs.db"

    async def program(hf: Holdfast) -> None:
        await hf.run(agent(2), id="a")

    async def afterwards(hf: Holdfast) -> None:
        with pytest.raises(CodecError, match=r"run 'a', checkpoint 2 \(think\).* fork before it"):
            await hf.fork("a", at=3, new_id="b")
        assert [run.id for run in await hf.runs()] == ["a"]
        await hf.fork("a", at=1, new_id="b")
        assert await hf.run(agent(2), id="b") == "small thought 0; small thought 1"

    on(str(path), program)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE checkpoint SET result = x'01' WHERE seq = 2")
    on(str(path), afterwards)


def test_show_says_where_a_fork_comes_from_and_counts_what_it_did_itself(tmp_path: Any) -> None:
    from click.testing import CliRunner

    from holdfast.cli import commands

    path = str(tmp_path / "jobs.db")

    async def program(hf: Holdfast) -> None:
        await hf.run(agent(2), id="a")
        await hf.fork("a", at=2, new_id="b")
        await hf.run(agent(2), id="b")

    on(path, program)
    shown = CliRunner().invoke(commands, ["show", "b", "--store", path])
    assert "from a, whose first 2 checkpoints it shares" in shown.output and "tokens" not in shown.output
    plain = json.loads(CliRunner().invoke(commands, ["show", "b", "--store", path, "--json"]).output)
    assert plain["forked_from"] == ["a", 2] and [each["epoch"] for each in plain["checkpoints"]] == [0, 0, 1]


def test_a_fork_from_before_another_version_is_of_the_version_of_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(hf: Holdfast) -> None:
        newer: Any = workflow(name="agent", version="2")(agent.__wrapped__)  # type: ignore[attr-defined]
        with monkeypatch.context() as patched:
            patched.setattr("test_forks.model", "wrong")
            with pytest.raises(StepFailed):
                await hf.run(agent(2), id="a")
        with pytest.raises(StepFailed):
            await hf.run(newer(2), id="a")  # the thoughts are kept, and the report fails again
        assert (await hf.get("a")).version == "2"
        rows = await hf.history("a")
        begins = next(row.seq for row in rows if row.kind == "version")
        assert (await hf.fork("a", at=begins - 3, new_id="b")).version == "1"
        assert (await hf.fork("a", at=begins, new_id="c")).version == "2"
        did.clear()
        assert await hf.run(agent(2), id="b") == "wrong thought 0; small thought 1"
        assert did == ["think 1", "report"]

    on("memory://", program)
