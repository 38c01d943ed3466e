"""A planted bug, and whether the tests that should notice it do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0
FAILED = 1  # pytest's exit status for tests that ran and failed; 2 and more is a test that could not run


@dataclass(frozen=True)
class Plant:
    """``file`` (below the repository) says ``old`` exactly once; with ``new`` instead, one of ``tests`` has to fail."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]


def copy_house(folder: Path) -> Path:
    """The sources and tests as they stand, to be changed at will."""
    folder.mkdir(parents=True)
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.db", "*.db-*"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def outdated(plant: Plant, house: Path) -> str | None:
    """Why it cannot be planted, None if it can."""
    path = house / plant.file
    found = path.read_text().count(plant.old) if path.exists() else 0
    if found == 1:
        return None
    return f"plant {plant.name!r}: its text occurs {found} times in {plant.file}, not once: bring it up to date"


def run_tests(house: Path, tests: list[str], *more: str, timeout: float = TIMEOUT_S) -> tuple[int, str]:
    """pytest's exit status, and what it printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *more, *tests]
    environment = {**os.environ, "PYTHONPATH": str(house / "src")}
    process = subprocess.Popen(
        command,
        cwd=house,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # and what it started
        out, _ = process.communicate()
        return FAILED, f"{out}\nstopped after {timeout:.0f} s: it hangs"
    return process.returncode, out


def verdict(plant: Plant, folder: Path) -> str | None:
    """Plant it in a house of its own and run its tests; what is wrong, or None if they noticed."""
    house = copy_house(folder)
    try:
        if (wrong := outdated(plant, house)) is not None:
            return wrong
        path = house / plant.file
        path.write_text(path.read_text().replace(plant.old, plant.new))
        status, out = run_tests(house, plant.tests, "-x")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if status == FAILED:
        return None
    if status == 0:
        return f"plant {plant.name!r} in {plant.file}: no test noticed it.\n{out}"
    return f"plant {plant.name!r} in {plant.file}: its tests could not run (pytest's status {status}).\n{out}"
