"""``holdfast demo``: a job is killed before one's eyes, and another process carries on with it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.cli.demo_documents import documents_in
from holdfast.cli.options import opened, shared
from holdfast.cli.printing import console, print_json, seconds
from holdfast.cli.problems import DONE, FAILED, Problem
from holdfast.cli.progress import SIGNS
from holdfast.records import count
from holdfast.store import Checkpoint

FILES = Path(__file__).parent / "demo_files"
JOB = "holdfast.cli.demo_job:review_loan"
LAST = "assess_risk"
KILL_AT = 2  # lines that the last step says of itself
FAST = 0.05
STYLES = dict(SIGNS.values())
COLOURS = ("cyan", "magenta")


class Played(msgspec.Struct):
    """One process of the demo, as seen from outside."""

    pid: int
    code: int
    said: dict[str, Any]
    killed_after: float | None = None  # seconds of work on the last step that were lost


@click.command("demo")
@click.option("--docs", type=click.Path(path_type=Path), help="A folder of your own: PDF statements, CSV, JSON.")
@click.option("--fast", is_flag=True, help="Without the pauses that let one watch.")
@partial(shared, store="Where the demo's run is kept: a path or URL. [default: a new folder for temporary files]")
def demo_command(docs: Path | None, fast: bool, store: str | None, as_json: bool) -> int:
    """A job is killed with SIGKILL, and carries on in another process.

    A loan application is read from its documents (a PDF statement, a CSV of transactions, a JSON form), its credit is
    checked, its risk is simulated. The process is killed in the third step; a second one is started with the same line.
    """
    folder = docs if docs is not None else FILES
    try:
        names = [path.name for path in documents_in(folder)]
    except ValueError as error:
        raise Problem(f"{error}. The demo reads PDF statements, CSV transactions and a JSON application.") from None
    url = store or str(Path(tempfile.mkdtemp(prefix="holdfast-demo-")) / "loans.db")
    if url.startswith("memory:"):
        raise Problem("memory:// lives and dies with its process; the demo needs a file, such as --store demo.db.")
    id = f"loan-{uuid.uuid4().hex[:4]}"
    command = ["run", JOB, str(folder.resolve()), *([f"pace={FAST}"] if fast else []), "--id", id, "--store", url]
    out = console(sys.stderr if as_json else sys.stdout)
    _introduce(out, folder, names, url, id)
    first = _play(out, command, 0, kill=True)
    second = _play(out, command, 1, kill=False) if first.killed_after is not None else first
    if second.code != DONE:
        raise Problem(f"the demo's job failed: {second.said.get('error', f'exit code {second.code}')}")
    report = _report(url, id, first, second)
    _show(out, report)
    if as_json:
        print_json(report)
    return DONE if report["recalled_as_recorded"] else FAILED


def _introduce(out: Console, folder: Path, names: list[str], url: str, id: str) -> None:
    out.print(Text("holdfast demo", "bold"))
    out.print()
    out.print(
        "A loan application goes through three steps: its documents are parsed, its credit is checked, its risk is "
        "simulated. In the third its process is killed with SIGKILL. Then the same line is run again.",
        width=min(100, out.width),
    )
    out.print()
    for name, said in (("documents", f"{', '.join(names)}  in {folder}"), ("store", url), ("run", id)):
        out.print(Text.assemble((f"  {name:<11}", "dim"), said), soft_wrap=True)


# -- the two processes -------------------------------------------------------------------------------------


def _play(out: Console, command: list[str], number: int, *, kill: bool) -> Played:
    """Run the job in a process of its own and show what it says; kill it in the middle of the last step."""
    out.print()
    shown = "holdfast " + " ".join(shlex.quote(word) for word in command)
    out.print(Text.assemble(("$ ", "dim"), (shown if number == 0 else "the same line, in a new process", "bold")))
    with _started([sys.executable, "-m", "holdfast", *command, "--json"]) as process:
        played = Played(pid=process.pid, code=0, said={})
        killed = _watch(out, process, COLOURS[number], kill=kill)
        played.said = _object(process.stdout.read() if process.stdout is not None else "")
        played.code = process.wait()
    if killed is not None and not played.said:
        played.killed_after = killed
    return played


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace", env=environ
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _watch(out: Console, process: subprocess.Popen[str], colour: str, *, kill: bool) -> float | None:
    """Show the lines of a process until it ends; the seconds into the last step at which it was killed, if it was."""
    began = killed = None
    told = 0
    assert process.stderr is not None
    for line in process.stderr:
        _line(out, process.pid, colour, line.rstrip("\n"))
        if line.startswith(f"  {SIGNS['began'][0]} {LAST}"):
            began = time.monotonic()
        elif began is not None and killed is None:
            told += 1
            if kill and told == KILL_AT:
                process.kill()
                killed = time.monotonic() - began
                out.print(_gutter(process.pid, colour).append(f"✗ kill -9, {seconds(killed)} into {LAST}", "bold red"))
                break
    return killed


def _gutter(pid: int, colour: str) -> Text:
    return Text.assemble((f"  {pid:>7} │ ", colour))


def _line(out: Console, pid: int, colour: str, line: str) -> None:
    text = _gutter(pid, colour)
    sign = line.strip()[:1]
    if line.startswith("  ") and sign in STYLES:
        name, _, rest = line.strip()[2:].partition("  ")
        text.append(f"{sign} ", STYLES[sign]).append(f"{name:<16}").append(rest, "dim")
    else:
        text.append(line, "dim")
    out.print(text, no_wrap=True, overflow="ellipsis")


def _object(text: str) -> dict[str, Any]:
    try:
        held = json.loads(text)
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


# -- what came of it ---------------------------------------------------------------------------------------


def _report(url: str, id: str, first: Played, second: Played) -> dict[str, Any]:
    """Told from the store: which process made each checkpoint, and so what the second one did not do again."""
    with opened(url) as hf:
        row = hf._store.get(id)
        assert row is not None
        rows = hf._store.load(row.no)
        pids = {claim.epoch: int(claim.owner.split("|")[1]) for claim in hf._store.claims(row.no)}
    steps = [_step(each, pids, second.pid) for each in rows if each.kind == "step"]
    saved = [each for each in steps if each["recalled"]]
    return {
        "run": id,
        "store": url,
        "killed": first.killed_after is not None,
        "pids": [first.pid, second.pid],
        "steps": steps,
        "not_done_again_s": round(sum(each["duration"] for each in saved), 3),
        "lost_s": round(first.killed_after or 0.0, 3),
        "recalled_as_recorded": second.said.get("recalled") == len(saved),
        "result": second.said.get("result"),
    }


def _step(row: Checkpoint, pids: dict[int, int], second: int) -> dict[str, Any]:
    pid = pids[row.epoch]
    return {"name": row.name, "pid": pid, "duration": round(row.duration_ms / 1000, 3), "recalled": pid != second}


def _show(out: Console, report: dict[str, Any]) -> None:
    out.print()
    first, second = report["pids"]
    if not report["killed"]:
        out.print(
            "The process finished before it could be killed, so there was nothing to carry on with.", style="yellow"
        )
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("  step", "executed by", "took", f"in process {second}"):
        table.add_column(name, justify="right" if name == "took" else "left")
    for each in report["steps"]:
        how = Text("recalled", "blue") if each["recalled"] else Text("executed", "green")
        if each["name"] == LAST and report["killed"]:
            how.append(f", after {seconds(report['lost_s'])} of pid {first} were lost", "dim")
        colour = COLOURS[0 if each["pid"] == first else 1]
        table.add_row(f"  {each['name']}", Text(f"pid {each['pid']}", colour), seconds(each["duration"]), how)
    out.print(table)
    out.print()
    result = report["result"] or {}
    out.print(
        Text.assemble(
            f"  {result.get('applicant')}: {result.get('amount'):,.0f} ",
            (str(result.get("decision")), "bold"),
            f", score {result.get('score')}, {result.get('default_probability'):.1%} would not pay it back",
        )
    )
    if report["killed"]:
        kept = sum(each["recalled"] for each in report["steps"])
        out.print(
            Text.assemble(
                f"  Not done again: {count(kept, 'step')}, ",
                (seconds(report["not_done_again_s"]), "bold green"),
                f" of work. Done again: the {seconds(report['lost_s'])} in flight.",
            )
        )
    out.print()
    out.print(Text("  Look further:", "dim"))
    for what in (f"show {report['run']}", "list"):
        out.print(Text(f"    holdfast {what} --store {shlex.quote(report['store'])}"), soft_wrap=True)
