"""The log of a takeover, read as an operator would read it."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Scene

import holdfast
from holdfast import step, workflow

pytestmark = pytest.mark.crash


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.end_all()


def told(lines: list[str], logger: str = "holdfast") -> list[str]:
    """The lines of one logger, process ids and hosts left out."""
    return [re.sub(r"\S+ pid \d+", "PROCESS", line) for line in lines if f" {logger}: " in line]


def test_the_log_of_a_killed_owner_and_of_who_took_over(scene: Scene) -> None:
    scene.hold(2, "a")
    scene.hold(2, "b")
    killed = scene.start("a")
    scene.has("a began job 2")
    scene.start("b")
    scene.has("b waiting")
    killed.kill()
    killed.wait()
    scene.has("b began job 2")
    scene.release(2, "b")
    scene.ended(scene.started[1])
    assert told(scene.log("a")) == ["INFO [job/] holdfast: run job: started staged"]
    assert told(scene.log("b")) == [
        "WARNING [job/] holdfast: run job: PROCESS advances it now, waiting for it to end",
        "WARNING [job/] holdfast: run job: taken over from PROCESS, which is dead; 2 checkpoints",
        "INFO [job/] holdfast: run job: done; steps: 2 executed, 2 recalled",
    ]
    assert str(killed.pid) in scene.log("b")[1]
    # The program's own lines say where they come from.
    assert told(scene.log("a"), "app") == [f"INFO [job/stage] app: stage {n}" for n in range(3)]
    assert told(scene.log("b"), "app") == [f"INFO [job/stage] app: stage {n}" for n in (2, 3)]


def test_the_log_of_an_owner_that_was_only_asleep(scene: Scene) -> None:
    scene.hold(1, "a")
    scene.hold(3, "b")
    asleep = scene.start("a", lease=2)
    scene.has("a began job 1")
    asleep.send_signal(signal.SIGSTOP)
    new = scene.start("b")
    scene.has("b began job 3")
    asleep.send_signal(signal.SIGCONT)
    scene.ended(asleep, status=3)
    assert told(scene.log("a")) == [
        "INFO [job/] holdfast: run job: started staged",
        "ERROR [job/] holdfast: run job: fenced, it was taken over by PROCESS",
    ]
    assert told(scene.log("b"))[1] == (
        "WARNING [job/] holdfast: run job: taken over from PROCESS, which let its lease lapse; 1 checkpoint"
    )
    scene.release(3, "b")
    scene.ended(new)


@step
async def noisy() -> None:
    logging.getLogger("app").warning("in a step")


@workflow(version="1")
async def plan() -> None:
    logging.getLogger("app").warning("in the body")
    await noisy()


def test_the_filter_says_where_a_line_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(holdfast.LogFilter())

    async def program() -> None:
        logging.getLogger("app").warning("before")
        async with holdfast.open("memory://") as hf:
            await hf.run(plan(), id="100%")

    with caplog.at_level(logging.INFO):
        asyncio.run(program())
    seen = [(each.__dict__["run_id"], each.__dict__["step"], each.getMessage()) for each in caplog.records]
    assert [each for each in seen if each[2].split()[0] in ("before", "in", "run")] == [
        ("", "", "before"),
        ("100%", "", "run 100%: started plan"),
        ("100%", "", "in the body"),
        ("100%", "noisy", "in a step"),
        ("100%", "", "run 100%: done; steps: 1 executed, 0 recalled"),
    ]
