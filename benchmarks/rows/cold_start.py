"""A new process: import, and the first durable step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from measure import Figure, Result, figure, ratios, rounded

TITLE = "Cold start"
FLOOR = (
    "The floor is a process that imports `asyncio` and `sqlite3`, starts a loop and commits one `INSERT` into a new "
    "file. holdfast's imports itself, opens a new file and runs a workflow of one step. Both run with their bytecode "
    "cached, on what a plain `pip install holdfast` brings (`-I -S`, and a folder with holdfast, msgspec, apsw and "
    "psutil). Where `typing_extensions` is installed msgspec imports it: a second figure says what that adds."
)
HELD_BY = "What holds it: the modules imported beyond asyncio's, which `benchmarks/results/cold_start.json` lists."

# Other people's packages, and what only some programs or the first opening of a store need.
FORBIDDEN = (
    "click", "rich", "pypdf", "psutil", "pydantic", "psycopg", "zstandard", "obstore", "sqlite3", "apsw", "hashlib",
    "zoneinfo", "importlib.metadata", "multiprocessing", "unittest", "holdfast.cli", "holdfast.testing",
    "holdfast.store.memory", "holdfast.store.sqlite",
)  # fmt: skip

BASE = """
import asyncio, sqlite3, sys
async def main():
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE floor (run_no INTEGER, seq INTEGER, value BLOB)")
    db.execute("CREATE UNIQUE INDEX floor_place ON floor (run_no, seq)")
    db.execute("INSERT INTO floor VALUES (?, ?, ?)", (1, 1, bytes(1024)))
    db.close()
asyncio.run(main())
"""
OURS = """
import sys
sys.path[:0] = sys.argv[2:]
import asyncio, holdfast
@holdfast.step
async def fetch(i: int) -> bytes:
    return bytes(1024)
@holdfast.workflow(version="1")
async def pipeline() -> bytes:
    return await fetch(0)
async def main():
    async with holdfast.open(sys.argv[1]) as hf:
        await hf.run(pipeline(), id="first")
asyncio.run(main())
"""
IMPORTED = """
import sys
sys.path[:0] = sys.argv[2:]
import asyncio
before = set(sys.modules)
import holdfast
print(*sorted(set(sys.modules) - before))
"""


def measure(folder: Path, quick: bool) -> Result:
    site, extras = _installed(folder / "site"), folder / "extras"
    extras.mkdir()
    spec = find_spec("typing_extensions")
    if spec is not None and spec.origin is not None:
        shutil.copy(spec.origin, extras)
    sides = {"floor": (BASE, ()), "holdfast": (OURS, (site,)), "extensions": (OURS, (site, extras))}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(4 if quick else 27):
        for name, (program, paths) in sides.items():
            took = _process_ms(program, folder / f"{name}-{turn}.db", paths)
            if turn >= 2:  # the first ones write the bytecode
                times[name].append(took)
    added = _process(IMPORTED, folder, (site,)).stdout.split()
    forbidden = [name for name in FORBIDDEN if name in added]
    figures = [
        figure("a process with a first step ÷ the floor", ratios(times["holdfast"], times["floor"]), target=1.8),
        figure("where typing_extensions is installed", ratios(times["extensions"], times["floor"])),
        figure("the process", times["holdfast"], "ms"),
        figure("the floor's", times["floor"], "ms"),
        Figure(
            f"modules imported that must not be{': ' if forbidden else ''}{', '.join(forbidden)}", len(forbidden), "", 0
        ),
        Figure("modules imported beyond asyncio's", len(added), ""),
    ]
    return Result(
        figures,
        {**{f"{name}_ms": rounded(each) for name, each in times.items()}, "forbidden": list(FORBIDDEN), "added": added},
    )


def _installed(site: Path) -> Path:
    """A folder as pip would make it for the base install, without what else this environment holds."""
    site.mkdir()
    for name in ("holdfast", "msgspec", "apsw", "psutil"):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        ignored = shutil.ignore_patterns("__pycache__", "*.pyi", "tests")
        shutil.copytree(Path(spec.origin).parent, site / name, ignore=ignored)
    return site


def _process_ms(program: str, database: Path, paths: tuple[Path, ...]) -> float:
    start = time.perf_counter()
    _process(program, database, paths)
    return (time.perf_counter() - start) * 1000


def _process(program: str, database: Path, paths: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-I", "-S", "-c", program, str(database), *map(str, paths)]
    return subprocess.run(command, env=clean, check=True, capture_output=True, text=True)
