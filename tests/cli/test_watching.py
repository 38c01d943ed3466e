"""``holdfast watch`` and the bars of ``holdfast run``, as they are typed: pipes, and a real terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import Done, Terminal

STORE = ("--store", "loans.db")

TALKS = """
import asyncio
from pathlib import Path

import holdfast
from holdfast import step, workflow

HERE = Path(__file__).parent


def ledger(line):
    with (HERE / "ledger").open("a") as file:
        file.write(line + "\\n")


@step
async def write(lines: int) -> str:
    for number in range(1, lines + 1):
        holdfast.emit(f"line {number}")
        holdfast.emit(f" of {lines}\\nand ")
    holdfast.progress(lines, 2 * lines)
    holdfast.emit({"lines": lines})
    ledger("wrote")
    while not (HERE / "go").exists():
        await asyncio.sleep(0.01)
    holdfast.emit("the end")
    return "written"


@step
async def fail() -> None:
    raise LookupError("no such account")


@workflow(version="1")
async def essay(lines: int, failing: bool = False) -> str:
    text = await write(lines)
    if failing:
        await fail()
    return text
"""


@pytest.fixture
def talks(terminal: Terminal) -> Terminal:
    (terminal.folder / "talks.py").write_text(TALKS, encoding="utf-8")
    return terminal


def objects(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_watcher_in_another_process_sees_the_run_end(talks: Terminal) -> None:
    run = talks.start("run", "talks:essay", "2", "--id", "a", *STORE)
    talks.wait_for("wrote", run)
    plain, machine = (talks.start("watch", "a", *STORE, *more) for more in ((), ("--json",)))
    assert machine.stdout is not None
    first = json.loads(machine.stdout.readline())
    assert (first["event"], first["chunk"]) == ("emitted", "line 1"), "told while the run goes on"
    (talks.folder / "go").touch()
    done = Done.of(plain)
    assert done.code == 0, done
    assert re.sub(r"[\d.]+ m?s\b", "…", done.out).splitlines() == [
        "    write: line 1 of 2",
        "    write: and line 2 of 2",
        "  … write: 2 of 4",
        "    write: and ",
        '    write: {"lines": 2}',
        "    write: the end",
        "  ✓ write  …  written",
        "✓ a  done  written",
    ]
    told = objects(Done.of(machine))
    assert [each["event"] for each in told].count("checkpoint") == 1
    assert told[-1] == {"event": "end", "id": "a", "status": "done", "result": "written", "error": None}
    assert Done.of(run).code == 0
    again = talks.type("watch", "a", "--after", "1", *STORE, "--json")
    assert [each["event"] for each in objects(again)] == ["end"]


@pytest.mark.crash
def test_a_watcher_waits_while_the_run_has_nobody(talks: Terminal) -> None:
    run = talks.start("run", "talks:essay", "2", "--id", "a", *STORE)
    talks.wait_for("wrote", run)
    watching = talks.start("watch", "a", *STORE)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert watching.stdout is not None
    said = []
    while "carries on" not in (line := watching.stdout.readline()):  # it says so, rather than seem to go on
        assert line, said
        said.append(line)
    assert f"interrupted: nobody (pid {run.pid} died); `holdfast resume a` carries on" in line
    with pytest.raises(subprocess.TimeoutExpired):
        watching.wait(0.5)
    (talks.folder / "go").touch()
    assert talks.type("resume", "a", *STORE).code == 0
    done = Done(watching.wait(60), "".join([*said, *watching.stdout]), "")
    assert done.code == 0 and "another process goes on with the run" in done.out, done
    assert "write begins again" in done.out
    assert done.out.count("✓ write") == 1


def test_exit_codes(talks: Terminal) -> None:
    (talks.folder / "go").touch()
    assert talks.type("run", "talks:essay", "1", "failing=true", "--id", "a", *STORE).code == 1
    failed = talks.type("watch", "a", *STORE)
    assert failed.code == 1 and "✗ fail" in failed.out and "✗ a  failed  StepFailed" in failed.out, failed
    talks.type("cancel", "a", *STORE)
    assert talks.type("watch", "a", *STORE).code == 3
    nobody = talks.type("watch", "b", *STORE)
    assert nobody.code == 2 and "there is no run 'b'" in nobody.err


# -- a terminal ----------------------------------------------------------------------------------------------


class Screen:
    """A command on a terminal of its own, and all that it wrote there."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", *args],
            cwd=folder,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.written = ""

    def shows(self, text: str) -> None:
        data = b""
        while text not in self.written:
            data = os.read(self.master, 4096)
            assert data, self.written
            self.written += data.decode("utf-8", "replace")

    def ended(self) -> int:
        with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
            while data := os.read(self.master, 4096):
                self.written += data.decode("utf-8", "replace")
        os.close(self.master)
        return self.process.wait(60)


def test_bars_on_a_terminal(talks: Terminal) -> None:
    run = Screen(talks.folder, "run", "talks:essay", "3", "--id", "a", *STORE)
    run.shows("3 of 6")
    watching = Screen(talks.folder, "watch", "a", *STORE)
    watching.shows("3 of 6")
    assert "━" in run.written and "━" in watching.written
    (talks.folder / "go").touch()
    assert (run.ended(), watching.ended()) == (0, 0)
    assert "the end" in watching.written
