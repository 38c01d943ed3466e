"""Who owns a run when processes are killed, stopped, interrupted, forked, or just alive at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Scene, until

from holdfast import lease

pytestmark = pytest.mark.crash


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, request.getfixturevalue("postgres_url") if request.param == "postgres" else None)
    yield scene
    scene.end_all()


def test_killed_in_the_last_stage_and_resumed_by_another_process(scene: Scene) -> None:
    scene.hold(3, "a")
    first = scene.start("a")
    scene.has("a began job 3")
    first.kill()
    first.wait()
    assert scene.ended(scene.start("b")) == "result 14"
    assert [line for line in scene.ledger() if "began" in line] == [
        *(f"a began job {n}" for n in range(4)),
        "b began job 3",
    ]
    row, rows = scene.rows()
    assert (row.status, row.deaths, row.epoch, row.owner) == ("done", 1, 2, None)
    assert [(each.seq, each.epoch) for each in rows] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)][: len(rows)]
    assert scene.ended(scene.start("c")) == "result 14"
    assert not any(line.startswith("c ") for line in scene.ledger())


def test_an_owner_that_lives_is_waited_for(scene: Scene) -> None:
    scene.hold(1, "a")
    owner = scene.start("a")
    scene.has("a began job 1")
    waiting = scene.start("b")
    scene.has("b waiting")
    assert scene.ended(scene.start("c", no_wait=1), status=3).startswith("error Busy run 'job' is being advanced by")
    assert waiting.poll() is None
    scene.release(1, "a")
    assert scene.ended(owner) == scene.ended(waiting) == "result 14"
    assert not any(line.startswith(("b began", "c ")) for line in scene.ledger())
    row, _ = scene.rows()
    assert (row.deaths, row.epoch) == (0, 1)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="elsewhere start times are the wall clock's")
def test_an_owner_lives_on_when_the_wall_clock_is_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil's start times are those of the wall clock, and the time of boot with it: two looks, two answers."""
    import psutil

    owner, booted = lease.owner_name(), psutil.boot_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: booted + 3600)
    assert not lease.is_dead(owner)


def test_only_a_process_that_is_gone_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = lease.owner_name()
    child = subprocess.Popen([sys.executable, "-c", ""])
    where, _, *rest = owner.split("|")
    gone = "|".join((where, str(child.pid), *rest))
    until(lambda: lease.is_dead(gone), lambda: "a zombie passes for living")
    child.wait()
    assert lease.is_dead(gone) and not lease.is_dead(owner)

    def refused(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)  # as for another user's process where /proc does not show it
    assert lease.is_dead(gone) == (not Path("/proc/self/stat").exists())


def test_a_killed_owner_is_taken_over_at_once(scene: Scene) -> None:
    scene.hold(2, "a")
    owner = scene.start("a")
    scene.has("a began job 2")
    waiting = scene.start("b")
    scene.has("b waiting")
    owner.kill()
    owner.wait()
    # The lease lasts for 10 s: this owner is seen to be dead.
    until(lambda: "b began job 2" in scene.ledger(), scene.ledger, seconds=2)
    assert scene.ended(waiting) == "result 14"
    row, _ = scene.rows()
    assert (row.status, row.deaths) == ("done", 1)


@pytest.mark.parametrize("finishes", [False, True], ids=["step in flight", "step finished"])
def test_stopped_past_its_lease_and_continued(scene: Scene, finishes: bool) -> None:
    """The old owner's rows are refused, and the step it had in flight is cancelled."""
    scene.hold(1, "a")
    scene.hold(3, "b")
    old = scene.start("a", lease=2)  # which a busy machine may take a while to renew for the first time
    scene.has("a began job 1")
    old.send_signal(signal.SIGSTOP)
    new = scene.start("b")
    scene.has("b began job 3")
    if finishes:
        scene.release(1, "a")
    old.send_signal(signal.SIGCONT)
    assert scene.ended(old, status=3).startswith("error Fenced run 'job' was taken over by")
    # A step that has finished by then may still be cancelled first: its heartbeat wakes up in the same moment.
    assert finishes or "a cancelled job 1" in scene.ledger()
    assert not any(line in scene.ledger() for line in ("a began job 2", "a began job 3"))
    scene.release(3, "b")
    assert scene.ended(new) == "result 14"
    row, rows = scene.rows()
    assert (row.status, row.deaths, row.epoch) == ("done", 1, 2)
    assert [each.epoch for each in rows if each.kind == "step"] == [1, 2, 2, 2]
    assert [each.seq for each in rows] == list(range(1, len(rows) + 1))


def test_many_runs_in_several_processes(scene: Scene) -> None:
    processes = [scene.start(name, "run_many", runs=20, stages=3) for name in ("p", "q", "r", "s")]
    assert [scene.ended(each) for each in processes] == ["result 100"] * 4
    began = [line.partition(" ")[2] for line in scene.ledger() if " began " in line]
    assert sorted(began) == sorted(f"began job-{run} {n}" for run in range(20) for n in range(3))
    for run in range(20):
        row, rows = scene.rows(f"job-{run}")
        assert (row.status, row.deaths, row.epoch) == ("done", 0, 1)
        assert [each.seq for each in rows] == list(range(1, len(rows) + 1))


def test_forked_in_the_middle(scene: Scene) -> None:
    scene.hold(1, "a")
    process = scene.start("a", "run_and_fork")
    scene.has("a began job 1")
    (scene.folder / "fork").touch()
    assert scene.ended(process) == "child 0 result 14 14"
    for id, steps in (("job", 4), ("child", 3), ("after", 4)):
        row, rows = scene.rows(id)
        assert (row.status, row.deaths, row.epoch) == ("done", 0, 1)
        assert sum(each.kind == "step" for each in rows) == steps


def test_abandoned_without_closing(scene: Scene) -> None:
    scene.ended(scene.start("a", "run_and_vanish"), status=9)
    _, rows = scene.rows()
    assert [(each.name, each.n, each.status) for each in rows if each.kind == "step"] == [
        ("stage", 0, "done"),
        ("stage", 1, "done"),
    ]
    assert scene.ended(scene.start("b")) == "result 14"
    assert [line for line in scene.ledger() if line.startswith("b began")] == ["b began job 2", "b began job 3"]


@pytest.mark.parametrize("mode", ["run_one", "run_plain"])
def test_interrupted_by_ctrl_c(scene: Scene, mode: str) -> None:
    scene.hold(2, "a")
    process = scene.start("a", mode)
    scene.has("a began job 2")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT), (process.returncode, out, err)
    assert "KeyboardInterrupt" in err and "never awaited" not in err
    row, rows = scene.rows()
    assert (row.status, row.owner, row.error, row.deaths) == ("running", None, None, 0)
    assert [each.status for each in rows] == ["done"] * len(rows) and len([r for r in rows if r.kind == "step"]) == 2
    again = time.monotonic()
    assert scene.ended(scene.start("b", mode)) == "result 14"
    assert time.monotonic() - again < 5
    assert [line for line in scene.ledger() if line.startswith("b began")] == ["b began job 2", "b began job 3"]
    row, _ = scene.rows()
    assert (row.status, row.deaths, row.epoch) == ("done", 0, 2)
