"""Records that a finished run never asked for are told: in the log, and durably, to ``holdfast show``."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import holdfast
from holdfast import StepFailed, step, workflow
from holdfast.cli import commands
from holdfast.records import unclaimed_in

then = False  # whether the program runs for the second time, and is another one


@step
async def draw(what: str) -> str:
    return what


@step
async def fails() -> None:
    if not then:
        raise OSError("for now")


@step
async def outer() -> None:
    await draw("one")
    if not then:
        await draw("two")
    await fails()


@workflow(version="1")
async def lottery() -> str:
    if not then:
        await draw("first")
    await draw("second")
    holdfast.state["seen"] = True
    await fails()
    return "done"


@workflow(version="1")
async def nested() -> None:
    await outer()


@workflow(version="1")
async def steady() -> None:
    try:
        await fails()
    finally:
        if not then:
            await draw("clean up")


def lived(program: Any, url: Path | str) -> None:
    """Run it until it fails, and again as another program."""
    global then

    async def main() -> None:
        async with holdfast.open(url) as hf:
            try:
                await hf.run(program(), id="a")
            except StepFailed:
                if then:
                    raise

    then = False
    asyncio.run(main())
    then = True
    asyncio.run(main())


def test_they_are_told_in_the_log_and_in_show(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = tmp_path / "jobs.db"
    with caplog.at_level(logging.WARNING, "holdfast"):
        lived(lottery, url)
    said = "the code takes another way now, never asked for again: 1 checkpoint: 1 (draw)"
    assert any(said in record.getMessage() for record in caplog.records)
    plain = json.loads(CliRunner().invoke(commands, ["show", "a", "--store", str(url), "--json"]).output)
    assert plain["unclaimed"] == [1] and plain["status"] == "done" and plain["state"] == {"seen": True}
    shown = CliRunner().invoke(commands, ["show", "a", "--store", str(url)], env={"COLUMNS": "200"}).output
    assert "1 checkpoint the code did not ask for again when it came to its end: 1 draw" in shown
    line = ["show", "a", "--step", "1", "--store", str(url)]
    assert "the code takes another way now" in CliRunner().invoke(commands, line, env={"COLUMNS": "200"}).output


@pytest.mark.parametrize(("program", "unclaimed"), [(nested, [2]), (steady, [2]), (lottery, [1])])
def test_which_they_are(program: Any, unclaimed: list[int], tmp_path: Path) -> None:
    lived(program, tmp_path / "jobs.db")
    found = holdfast.open(tmp_path / "jobs.db")
    assert unclaimed_in(found._store.load(1)) == (unclaimed, len(unclaimed))
    found.close()


def test_a_run_that_asked_for_all_of_them_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    @workflow(version="1")
    async def same() -> None:
        await draw("x")
        await fails()

    with caplog.at_level(logging.WARNING, "holdfast"):
        lived(same, tmp_path / "jobs.db")
    assert "never asked for" not in caplog.text
    found = holdfast.open(tmp_path / "jobs.db")
    rows = found._store.load(1)
    assert unclaimed_in(rows) == ([], 0) and [row.kind for row in rows] == ["step"] * 3
    found.close()
