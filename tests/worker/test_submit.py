"""Runs left to the workers: what hf.submit writes down, and what the same line does again."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from inside import STORES, url_of

import holdfast
from holdfast import Holdfast, Mismatch, Run, step, workflow
from holdfast.store import RunRow

executed: list[str] = []


@step
async def work(what: str) -> str:
    executed.append(what)
    return what.upper()


@workflow(version="1")
async def job(what: str) -> str:
    return await work(what)


@workflow(version="1", queue="letters/high")
async def letter(what: str) -> str:
    return await work(what)


@pytest.fixture(autouse=True)
def _nothing_executed() -> None:
    executed.clear()


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Holdfast]:
    async with holdfast.open(url) as hf:
        yield hf


def row_of(hf: Holdfast, id: str) -> RunRow:
    row = hf._store.get(id)
    assert row is not None
    return row


def test_it_is_queued_and_nobody_begins_it(url: str) -> None:
    async def main() -> None:
        async with opened(url) as hf:
            run = await hf.submit(job("a"), id="x")
            assert isinstance(run, Run)
            assert (run.id, run.status, run.workflow, run.owner) == ("x", "queued", "job", None)
            assert (await hf.get("x")).status == "queued"
            assert [each.id for each in await hf.runs(status="queued")] == ["x"]
            row = row_of(hf, "x")
            assert (row.queue, row.priority, row.due_ms, row.deaths) == ("default", 0, 0, 0)
            assert hf._store.claims(row.no) == [] and executed == []

    asyncio.run(main())


def test_the_queue_is_the_workflows_or_the_one_named(url: str) -> None:
    async def main() -> None:
        async with opened(url) as hf:
            await hf.submit(letter("a"), id="a")
            await hf.submit(letter("b"), id="b", queue="slow", priority=-3)
            await hf.run(letter("c"), id="c")
            async with hf.session("s"):
                pass
            rows = [row_of(hf, id) for id in "abcs"]
            assert [(row.queue, row.priority) for row in rows] == [
                ("letters/high", 0),
                ("slow", -3),
                ("letters/high", 0),  # so that a worker takes it over when the process of hf.run dies
                ("", 0),
            ]

    asyncio.run(main())


def test_a_delay_is_counted_by_the_clock_of_the_store(url: str) -> None:
    async def main() -> None:
        async with opened(url) as hf:
            before = hf._store.now_ms()
            await hf.submit(job("a"), id="a", delay=1.5)
            await hf.submit(job("a"), id="b", delay=60)
            after = hf._store.now_ms()
            assert before + 1_500 <= row_of(hf, "a").due_ms <= after + 1_500
            assert before + 60_000 <= row_of(hf, "b").due_ms <= after + 60_000

    asyncio.run(main())


def test_the_same_id_is_the_same_run(url: str) -> None:
    async def main() -> None:
        async with opened(url) as hf:
            await hf.submit(job("a"), id="x", priority=2)
            again = await asyncio.gather(*(hf.submit(job("a"), id="x", priority=n, queue="other") for n in range(5)))
            assert {each.status for each in again} == {"queued"}
            assert (row_of(hf, "x").priority, row_of(hf, "x").queue) == (2, "default")
            assert await hf.run(job("a"), id="x") == "A"
            assert ((await hf.submit(job("a"), id="x")).status, executed) == ("done", ["a"])
            for other in (job("b"), letter("a")):
                with pytest.raises(Mismatch, match="Nothing was changed"):
                    await hf.submit(other, id="x")
            assert len(await hf.runs()) == 1

    asyncio.run(main())


def test_hf_run_begins_a_queued_run_also_before_its_time(url: str) -> None:
    async def main() -> None:
        async with opened(url) as hf:
            run = await hf.submit(job("a"), id="x", delay=3600)
            waiting = asyncio.create_task(run.wait())
            assert await hf.run(job("a"), id="x") == "A"
            assert await waiting == "A"
            row = row_of(hf, "x")
            assert (row.status, row.epoch, row.deaths, (await hf.get("x")).resumed) == ("done", 1, 0, 0)
            assert [claim.found for claim in hf._store.claims(row.no)] == ["queued"]

    asyncio.run(main())


def test_a_missing_id_is_new_each_time_and_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with opened(url) as hf:
            with caplog.at_level(logging.INFO, "holdfast"):
                runs = [await hf.submit(job("a")), await hf.submit(job("a"))]
            assert runs[0].id != runs[1].id
            for run in runs:
                assert f"its id is new: hf.get({run.id!r}) finds it" in caplog.text

    asyncio.run(main())


def test_a_run_that_submits_without_an_id_submits_the_same_on_a_resume(url: str) -> None:
    given: list[str] = []
    stop = True

    @workflow(version="1")
    async def parent() -> str:
        given.append((await holdfast.current().submit(job("a"))).id)
        given.append((await holdfast.current().submit(job("a"))).id)
        await work("parent")
        if stop:
            raise RuntimeError("stopped")
        return "done"

    async def main() -> None:
        nonlocal stop
        async with opened(url) as hf:
            with pytest.raises(RuntimeError):
                await hf.run(parent(), id="p")
            stop = False
            assert await hf.run(parent(), id="p") == "done"
            assert given[:2] == given[2:] and given[0] != given[1]
            assert all(uuid.UUID(id).version == 4 for id in given)
            assert len(await hf.runs()) == 3

    asyncio.run(main())


def test_a_plain_def_submits_without_an_id_too(url: str) -> None:
    """By a loop that is not its own. Of two that it awaits at once the first one has the first id."""
    given: list[list[str]] = []

    @workflow(version="1")
    def parent(stops: bool) -> str:
        hf = holdfast.current()

        two = [hf.submit(job("a")), hf.submit(job("b"))]

        async def together() -> list[str]:
            return [run.id for run in await asyncio.gather(*two)]

        given.append([*hf.wait(together()), hf.wait(hf.submit(job("c"))).id])
        if len(given) == 1:
            raise RuntimeError("stopped")
        return "done"

    with holdfast.open(url) as hf:
        with pytest.raises(RuntimeError):
            hf.wait(hf.run(parent.bind(True), id="p"))
        assert hf.wait(hf.run(parent.bind(True), id="p")) == "done"
        assert given[0] == given[1] and len(set(given[0])) == 3
        assert len(hf.wait(hf.runs())) == 4


def test_who_was_cancelled_elsewhere_submits_nothing(url: str) -> None:
    """Not even what has an id: it was cancelled before it came to that."""

    @workflow(version="1")
    async def parent() -> None:
        reached.set()
        await go_on.wait()
        try:
            await holdfast.current().submit(job("a"), id="x")
        except Exception:
            caught.append("the workflow's code")

    reached, go_on, caught = asyncio.Event(), asyncio.Event(), list[str]()

    async def main() -> None:
        async with opened(url) as hf:
            running = asyncio.create_task(hf.run(parent(), id="p"))
            await reached.wait()
            assert hf._store.cancel("p") is not None
            go_on.set()
            with pytest.raises(holdfast.Cancelled):
                await running
            assert [run.id for run in await hf.runs()] == ["p"] and not caught

    asyncio.run(main())


def test_what_a_stopped_run_submits_on_its_way_out_is_not_submitted() -> None:
    """Nor what it called before it was stopped."""

    @workflow(version="1")
    async def parent() -> None:
        home, calls = holdfast.current(), [job("a"), job("b"), job("c")]
        try:
            await asyncio.Event().wait()
        finally:
            for n, call in enumerate(calls):
                try:
                    await home.submit(call, id=f"x{n}")
                except BaseException as stopped:
                    caught.append(type(stopped).__name__)

    caught: list[str] = []

    async def main() -> None:
        async with opened("memory://") as hf:
            running = asyncio.create_task(hf.run(parent(), id="p"))
            await asyncio.sleep(0.05)
            running.cancel()  # it is unloaded
            await asyncio.wait({running})
            assert [run.id for run in await hf.runs()] == ["p"]
            assert caught == ["Stop"] * 3

    asyncio.run(main())


def test_a_run_that_submits_while_its_holdfast_closes_does_not_fail(tmp_path: Path) -> None:
    """It is unloaded after another one, which takes its time, and is still at work meanwhile."""

    @workflow(version="1")
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closing.set()
            await asyncio.sleep(0.2)

    @workflow(version="1")
    async def parent() -> str:
        if not resumed:
            await closing.wait()
        return (await holdfast.current().submit(job("a"), id="x")).id

    closing, resumed = asyncio.Event(), list[bool]()

    async def main() -> None:
        async with opened(str(tmp_path / "a.db")) as hf:
            await hf.start(slow(), id="first")
            await hf.start(parent(), id="p")
        async with opened(str(tmp_path / "a.db")) as hf:
            assert (row_of(hf, "p").status, row_of(hf, "p").error) == ("running", None)
            assert hf._store.get("x") is None
            resumed.append(True)
            assert await hf.run(parent(), id="p") == "x"

    asyncio.run(main())


def test_a_queued_run_can_be_cancelled(url: str) -> None:
    async def main() -> None:
        async with opened(url) as hf:
            await hf.submit(job("a"), id="x")
            await hf.cancel("x")
            assert (await hf.submit(job("a"), id="x")).status == "cancelled"
            with pytest.raises(holdfast.Cancelled):
                await hf.run(job("a"), id="x")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"queue": ""}, ValueError, "queue= must be a name of at most 100"),
        ({"queue": "a:3"}, ValueError, "queue= must be a name"),
        ({"queue": "a b"}, ValueError, "queue= must be a name"),
        ({"queue": "q" * 101}, ValueError, "queue= must be a name"),
        ({"queue": 3}, TypeError, "queue= must be a str"),
        ({"priority": 1.5}, TypeError, "priority= must be a whole number"),
        ({"priority": True}, TypeError, "priority= must be a whole number"),
        ({"priority": 10**10}, ValueError, "priority= must be from"),
        ({"delay": -1}, ValueError, "delay= must be from 0"),
        ({"delay": float("nan")}, ValueError, "delay= must be from 0"),
        ({"delay": "1 h"}, TypeError, "delay= must be a number of seconds"),
        ({"id": " "}, TypeError, "id= must be a non-empty str"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], error: type[Exception], says: str) -> None:
    async def main() -> None:
        async with opened("memory://") as hf:
            with pytest.raises(error, match=says):
                await hf.submit(job("a"), **{"id": "x", **options})
            assert await hf.runs() == []

    asyncio.run(main())


def test_only_a_call_of_a_workflow_can_be_submitted() -> None:
    async def main() -> None:
        async with opened("memory://") as hf:
            for wrong in (work("a"), job, work):
                with pytest.raises(TypeError, match="expected a call of a workflow"):
                    await hf.submit(wrong, id="x")  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue": "a b"}, ValueError),
        ({"queue": None}, TypeError),
        ({"max_deaths": 0}, ValueError),
        ({"max_deaths": 2.0}, ValueError),
        ({"max_deaths": True}, ValueError),
    ],
)
def test_options_of_a_workflow_are_checked_where_it_is_marked(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"@workflow .*{next(iter(options))}= must be"):

        @workflow(**options)
        async def unfit() -> None: ...
