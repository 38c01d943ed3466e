"""What strict mypy and strict basedpyright make of programs that use holdfast."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BIN = Path(sys.executable).parent
Report = dict[str, dict[int, list[str]]]  # by name of file and line

pytestmark = pytest.mark.slow


def run_mypy(files: list[Path], scratch: Path) -> Report:
    command = [BIN / "mypy", "--strict", "--config-file=", f"--cache-dir={scratch / 'mypy'}", "--python-version=3.11"]
    done = subprocess.run([*command, "--no-pretty", *files], cwd=scratch, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: Report = {}
    for name, line, message in re.findall(r"^(.+?):(\d+): error: (.+)$", done.stdout, re.MULTILINE):
        found.setdefault(Path(name).name, {}).setdefault(int(line), []).append(message)
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    return found


def run_basedpyright(files: list[Path], scratch: Path) -> Report:
    config = scratch / "pyrightconfig.json"
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "include": [str(file) for file in files]}
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [BIN / "basedpyright", "--outputjson", f"--pythonpath={sys.executable}", f"--project={config}"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["summary"]["filesAnalyzed"] == len(files), told["summary"]
    found: Report = {}
    for each in told["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            found.setdefault(Path(each["file"]).name, {}).setdefault(line, []).append(each["message"])
    return found


def readme_programs(folder: Path) -> list[Path]:
    """The README's Python, as its reader saves it: the ``gather`` line is exactly the one people copy."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert any("docs, score = await asyncio.gather(parse_documents(app_id)" in body for _, body in blocks)
    for name, body in blocks:
        if name == "loans.py":
            body = body.replace(
                "    holdfast.state[",
                "    assert_type(docs, list[str])\n    assert_type(score, int)\n    holdfast.state[",
            ).replace("import asyncio\n", "import asyncio\nfrom typing import assert_type\n", 1)
            assert body.count("assert_type(") == 2
        (folder / name).write_text(body, encoding="utf-8")
    return [folder / name for name, _ in blocks]


@pytest.mark.parametrize("check", [run_mypy, run_basedpyright])
def test_right_programs_pass_and_each_planted_mistake_is_seen(
    check: Callable[[list[Path], Path], Report], tmp_path: Path
) -> None:
    wrong = HERE / "wrong.py"
    report = check([HERE / "right.py", wrong, *readme_programs(tmp_path)], tmp_path)
    seen = report.pop("wrong.py")
    assert report == {}
    lines = wrong.read_text(encoding="utf-8").splitlines()
    planted = {number: line.strip() for number, line in enumerate(lines, 1) if "  # wrong: " in line}
    assert len(planted) >= 10
    missed = {number: line for number, line in planted.items() if number not in seen}
    assert missed == {}
    assert {number: told for number, told in seen.items() if number not in planted} == {}
