"""Measure holdfast against a raw floor, both in one run, and write docs/benchmarks.md and its pictures.

    make bench
    python benchmarks/run.py [--only NAME …] [--quick]

Each module of ``rows`` is one row: it alternates holdfast and its floor, and says what the floor is and what holds a
missed target. ``--only`` measures some rows and keeps what is known of the others. ``--quick`` takes a few rounds, to
see that everything runs: its figures are not written down, and its pictures are left in benchmarks/out."""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path

from measure import Result, machine
from report import document, table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
PICTURES = HERE.parent / "docs" / "benchmarks"
ROWS = (
    "one_step", "once_step", "many_runs", "short_workflows", "busy_loop", "resume", "recall", "memory", "blob_file",
    "disk_bytes", "state", "state_sizes", "many_items", "loop_resume", "cold_start", "postgres_step", "postgres_runs",
    "takeover", "waiting_memory", "adk_append", "adk_append_postgres", "adk_read", "adk_many",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=ROWS, metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="few rounds; nothing is written down")
    options = parser.parse_args()
    modules = {name: importlib.import_module(f"rows.{name}") for name in ROWS}
    scratch = HERE / "out"  # beside the repository, so that both sides write to one real file system
    scratch.mkdir(exist_ok=True)
    fresh: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        facts = machine(Path(folder))
        for fact in facts.values():
            print(fact)
        for name in options.only or ROWS:
            began = time.monotonic()
            here = Path(folder) / name
            here.mkdir()
            fresh[name] = modules[name].measure(here, options.quick)
            print(f"\n{modules[name].TITLE} ({time.monotonic() - began:.0f} s)")
            print(table(fresh[name].plain()["figures"]))
    from plots import SHOWN, draw  # only now: what matplotlib brings along would be in the way of what is measured

    titles = {name: module.TITLE for name, module in modules.items()}
    if options.quick:
        known = {name: {"machine": facts, **result.plain()} for name, result in fresh.items()}
        pictures = draw(titles, known, scratch)
        document(modules, known, {})
        print("\ndrawn:", *pictures)
        return
    RESULTS.mkdir(exist_ok=True)
    for name, result in fresh.items():
        text = json.dumps({"machine": facts, **result.plain()}, indent=1, ensure_ascii=False)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    known = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in ROWS
        if (path := RESULTS / f"{name}.json").exists()
    }
    pictures = draw(titles, known, PICTURES)
    shown = {str(path.relative_to(DOCUMENT.parent)): text for path, text in zip(pictures, SHOWN, strict=True)}
    DOCUMENT.write_text(document(modules, known, shown), encoding="utf-8")
    print("\nwritten:", *(path.relative_to(HERE.parent) for path in (DOCUMENT, *pictures)))


if __name__ == "__main__":
    main()
