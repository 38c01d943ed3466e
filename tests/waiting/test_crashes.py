"""Runs that wait, killed at every call of the store, and carried on by other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import waiting_programs as programs

import holdfast
from holdfast.testing import crash_sweep

pytestmark = [pytest.mark.crash, pytest.mark.slow]
SEED = int(os.environ.get("HOLDFAST_SEED", "0")) or None
LATE = "no signal 'never' came within 0.02 s"


@pytest.mark.parametrize(
    ("target", "result"),
    [
        (programs.sleeping, ["first", "last", ["beside", "first", "last"]]),
        (programs.too_late, LATE),
        (programs.conversation, ["m0", "m1", "m2", "m3"]),
        (programs.parent, [0, 1, "ValueError: two", 9, 49, "all there"]),
        (programs.plainly, "9"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wherever_it_is_killed(target: Any, result: Any) -> None:
    is_program = target is programs.conversation
    sweep = crash_sweep(target if is_program else target.bind(), limit=30, second=4, seed=SEED)
    print(sweep)
    assert sweep.result == result


WORKER = """
import asyncio, sys
import holdfast, {module} as programs

async def main():
    async with holdfast.open("jobs.db") as hf:
        print(await hf.run(programs.loan("A"), id="a"), flush=True)

asyncio.run(main())
"""
PROGRAM = """
import holdfast
from holdfast import step, workflow

@step
async def prepare(app_id: str) -> str:
    print("preparing", flush=True)
    return app_id

@workflow(version="1")
async def loan(app_id: str) -> str:
    await prepare(app_id)
    approved = await holdfast.wait_for("approval", bool, ask=f"pay {app_id}?")
    await holdfast.sleep(0.3)
    return "paid" if approved else "refused"
"""


def test_killed_while_it_waits_sent_to_by_another_process_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "loans_of_test.py").write_text(PROGRAM)
    (tmp_path / "worker.py").write_text(WORKER.format(module="loans_of_test"))
    environment = {**os.environ, "HOLDFAST_URL": "jobs.db", "NO_COLOR": "1"}
    first = subprocess.Popen([sys.executable, "worker.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    def listed() -> str:
        return command("list", "--waiting")

    def command(*args: str, code: int = 0) -> str:
        line = [sys.executable, "-m", "holdfast", *args]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    deadline = time.monotonic() + 30
    while not (tmp_path / "jobs.db").exists() or "pay A?" not in listed():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert first.stdout is not None and first.stdout.read() == "preparing\n"
    assert "pay A?" in listed()  # it is dead, and what it was asked for is not
    assert "waits for approval, a bool, and 'perhaps' is none" in command("send", "a", "approval", "perhaps", code=2)
    assert "sent approval true to run a" in command("send", "a", "approval", "yes", "--key", "ada")
    began = time.monotonic()
    second = subprocess.run([sys.executable, "worker.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert second.stdout == "paid\n", second.stderr  # and it was not prepared again
    assert time.monotonic() - began > 0.3
    assert "«pay A?»" in command("show", "a")
    assert "is done and takes no more signals" in command("send", "a", "approval", "yes", code=2)


def test_the_mailbox_over_a_fork(tmp_path: Path) -> None:
    program = """
import os, holdfast
from holdfast import workflow

@workflow(version="1")
async def two() -> list[str]:
    return [await holdfast.wait_for("x", str), await holdfast.wait_for("x", str)]

with holdfast.open("jobs.db") as hf:
    hf.wait(hf.start(two(), id="a"))
    hf.wait(hf.send("a", "x", "from the parent"))
    if (child := os.fork()) == 0:
        hf.wait(hf.send("a", "x", "from the child"))
        hf.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(hf.wait(hf.run(two(), id="a")))
"""
    (tmp_path / "forks.py").write_text(program)
    done = subprocess.run([sys.executable, "forks.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "['from the parent', 'from the child']\n", done.stderr


def test_it_is_told_where_nobody_holds_the_run_any_more(tmp_path: Path) -> None:
    """Ctrl-C, or closing: the row says that it waits, until when, and for what."""
    program = """
import holdfast, waiting_programs as programs
with holdfast.open("jobs.db") as hf:
    hf.wait(hf.start(programs.talking(), id="a"))
    while not (live := hf._live["a"]).is_waiting:
        pass
"""
    (tmp_path / "closes.py").write_text(program)
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "closes.py"], cwd=tmp_path, env=environment, check=True, timeout=60)
    with holdfast.open(tmp_path / "jobs.db") as hf:
        run = hf.wait(hf.get("a"))
        assert (run.status, run.waiting_for, run.owner) == ("waiting", "message", None)
