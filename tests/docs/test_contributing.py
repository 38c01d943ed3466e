"""CONTRIBUTING.md names every room there is, in the layer that import-linter holds it to."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "holdfast"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_table_is_what_import_linter_checks() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (each["layers"] for each in linter["contracts"] if each["id"] == "layers")
    checked = [set(re.findall(r"\w+", layer)) for layer in layers]
    rows = re.findall(r"^\| \d \w+ \| (.+?) \|", PAGE, re.MULTILINE)
    assert [set(re.findall(r"`(\w+)(?:\.py|/)`", row)) for row in rows] == checked


def test_each_file_of_a_folder_is_named() -> None:
    bullets = dict(re.findall(r"^\* `(\w+)/`(.+?)(?=^\* |^$)", PAGE, re.MULTILINE | re.DOTALL))
    folders = {path.parent.name for path in SOURCES.glob("*/__init__.py")}
    assert set(bullets) == folders
    for folder, text in bullets.items():
        named = re.findall(r"`([\w*]+(?:\.\w+|/))`", text)
        there = {f"{path.name}/" if path.is_dir() else path.name for path in (SOURCES / folder).iterdir()}
        there -= {"__init__.py", "__pycache__/", "demo_files/"}
        lost = {each for each in there if not any(fnmatch(each, name) for name in named)}
        gone = {name for name in named if not any(fnmatch(each, name) for each in there)}
        assert (lost, gone) == (set(), set()), folder
