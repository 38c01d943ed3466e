"""``holdfast worker``: what it is told, and what it says when that cannot be meant."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from scene import Scene

import holdfast
from holdfast import workflow

pytestmark = pytest.mark.crash
TIMEOUT_S = 60


@workflow(version="1")
async def nothing() -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a store in it."""
    (tmp_path / "empty.py").write_text("import holdfast\n")
    (tmp_path / "steps_only.py").write_text("from holdfast import step\n@step\nasync def a() -> None: ...\n")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "fine.py").write_text("from holdfast import workflow\n@workflow\nasync def job() -> None: ...\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from . import inside\n")
    (tmp_path / "package" / "inside.py").write_text((tmp_path / "fine.py").read_text())

    async def made() -> None:
        async with holdfast.open(tmp_path / "holdfast.db") as hf:
            await hf.run(nothing(), id="nothing")

    asyncio.run(made())
    return tmp_path


def refused(folder: Path, *arguments: str, code: int = 2) -> str:
    """What it writes to standard error, on one line."""
    environment = {name: value for name, value in os.environ.items() if name != "HOLDFAST_URL"}
    ended = subprocess.run(
        [sys.executable, "-m", "holdfast", "worker", *arguments],
        env={**environment, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ended.returncode == code, ended
    return " ".join((ended.stderr + ended.stdout).split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "name the modules (or files) with the workflows to serve"),
        ("nowhere", "there is no module 'nowhere'"),
        ("nowhere.py", "nowhere.py does not exist"),
        ("empty", "empty has no workflow that a worker could run. Mark a function of it with @workflow"),
        ("steps_only.py", "steps_only.py has no workflow that a worker could run"),
        ("broken", "broken cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("fine --store other.db", "there is no store at other.db"),
        ("fine --store memory://", "a store in memory has no runs but those of its own process"),
        ("fine --queue :3", "':3': queue= must be a name"),
        ("fine --queue a:0", "'a:0': a limit is a whole number from 1, as in a:10"),
        ("fine --queue a:many", "'a:many': a limit is a whole number"),
        ("fine --queue a:", "'a:': a limit is a whole number"),
        ("fine --queue a --queue a:2", "queue 'a' is named twice"),
        ("fine --concurrency 0", "0 is not in the range x>=1"),
        ("fine --lease 0.5", "0.5 is not in the range"),
        ("fine --grace -1", "-1.0 is not in the range"),
        ("fine --alive nowhere/alive", "--alive nowhere/alive cannot be written"),
    ],
)
def test_a_line_that_cannot_be_meant(folder: Path, arguments: str, says: str) -> None:
    assert says in refused(folder, *arguments.split())


def test_errors_are_json_if_asked_for(folder: Path) -> None:
    told = json.loads(refused(folder, "nowhere", "--json"))
    assert told["error_type"] == "Usage" and "there is no module" in told["error"]


@pytest.mark.parametrize("module", ["fine", "fine.py", "package", "package/inside.py", ""])
def test_modules_are_named_on_the_line_or_in_pyproject(folder: Path, module: str) -> None:
    (folder / "pyproject.toml").write_text('[tool.holdfast]\nmodules = ["fine"]\n')
    scene = Scene(folder, str(folder / "holdfast.db"))
    try:
        worker = scene.start("a", ["-m", "holdfast", "worker", *([module] if module else []), "--alive", "alive"])
        scene.logs("a", "serves default of sqlite:///holdfast.db, 10 runs at once: job")
        scene.until((folder / "alive").exists, scene.told)
        worker.terminate()
        scene.ends(worker)
    finally:
        scene.end_all()


def test_the_file_of_a_probe_is_touched_at_each_heartbeat(folder: Path) -> None:
    scene = Scene(folder, str(folder / "holdfast.db"))
    alive = folder / "alive"
    try:
        scene.start("a", ["-m", "holdfast", "worker", "fine", "--alive", "alive", "--lease", "1"])
        seen: set[int] = set()

        def touched() -> int:
            if alive.exists():
                seen.add(alive.stat().st_mtime_ns)
            return len(seen)

        scene.until(lambda: touched() >= 4, scene.told)
    finally:
        scene.end_all()


def test_log_lines_are_json_if_asked_for(scene: Scene) -> None:
    jobs = import_module("jobs")
    scene.submit(("run-0", jobs.staged("run-0", 1)))
    worker = scene.worker("a", "--json", "--queue", "default:5", "--queue", "other")
    scene.done("run-0")
    worker.terminate()
    scene.ends(worker)
    lines = [json.loads(line) for line in scene.log("a").splitlines()]
    assert {(line["level"], line["logger"]) for line in lines} == {("info", "holdfast")}
    assert "serves default (at most 5 at once), other of" in lines[0]["message"]
    assert [line["run"] for line in lines if line["message"].startswith("run run-0: done")] == ["run-0"]
    assert lines[-1]["message"] == "worker: ended"
