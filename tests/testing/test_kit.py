"""The fixtures, and what importing the kit brings along."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
import holdfast.testing
from holdfast import workflow


@workflow(version="1")
async def answer() -> int:
    return 42


@pytest.mark.parametrize("turn", [1, 2])
def test_hf_is_fresh(hf: holdfast.Holdfast, turn: int) -> None:
    async def main() -> None:
        assert await hf.runs() == []
        assert await hf.run(answer(), id="x") == 42

    asyncio.run(main())
    assert hf.url == "memory://"


def test_hf_sqlite_is_a_file(hf_sqlite: holdfast.Holdfast, tmp_path: Path) -> None:
    assert asyncio.run(hf_sqlite.run(answer(), id="x")) == 42
    assert (tmp_path / "holdfast.db").exists()


def test_hf_of_a_program_that_closed_it(hf: holdfast.Holdfast) -> None:
    hf.close()


PROJECT = """
import asyncio, holdfast
from holdfast import workflow

@workflow
async def answer() -> int:
    return 42

def test_answer(hf, hf_sqlite, fake_clock):
    assert asyncio.run(hf.run(answer(), id="x")) == asyncio.run(hf_sqlite.run(answer(), id="x")) == 42
"""


def test_the_plugin_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["holdfast.testing.pytest_plugin"]\n')
    (tmp_path / "test_mine.py").write_text(PROJECT)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_kit_needs_no_pytest() -> None:
    program = (
        "import json, sys; import holdfast.testing as kit; before = set(sys.modules); kit.crash_sweep; kit.FakeClock; "
        "print(json.dumps([sorted(before), sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    at_import, after = map(set, json.loads(done.stdout))
    assert "holdfast.testing.crash" not in at_import and "holdfast.testing.crash" in after
    assert "pytest" not in after


def test_the_names() -> None:
    for name in holdfast.testing.__all__:
        assert getattr(holdfast.testing, name).__name__ == name
    assert set(holdfast.testing.__all__) <= set(dir(holdfast.testing))
    with pytest.raises(AttributeError, match="no attribute 'crush_sweep'"):
        holdfast.testing.crush_sweep  # type: ignore[attr-defined]
