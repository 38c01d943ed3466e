"""``holdfast`` as it is typed: real processes, killed and interrupted where that is the point."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from terminal import Done, Terminal

STORE = ("--store", "loans.db")


# -- run -----------------------------------------------------------------------------------------------------


def test_a_run_prints_its_result_and_the_same_line_prints_it_again(terminal: Terminal) -> None:
    (terminal.folder / "mended").touch()
    for expected in ("A-1 paid, 3 pages\n", "A-1 paid, 3 pages\n"):
        done = terminal.type("run", "loans:pay", "A-1", "--id", "a", *STORE)
        assert (done.code, done.out.removeprefix("paying A-1\n")) == (0, expected), done
    assert terminal.ledger() == ["parse A-1", "fail"]
    assert "✓ parse" not in done.err
    assert "done before" in done.err


def test_progress_goes_to_standard_error_and_what_is_recalled_says_so(terminal: Terminal) -> None:
    first = terminal.type("run", "loans:pay", "app_id=A-1", "--id", "a", *STORE)
    assert first.code == 1
    assert "✓ parse" in first.err
    assert "✗ fail" in first.err
    assert "holdfast: run 'a' failed: StepFailed: fail failed with LookupError: no account A-1" in first.err
    assert "holdfast show a --store loans.db" in first.err
    assert "Traceback" not in first.err
    (terminal.folder / "mended").touch()
    second = terminal.type("run", "loans:pay", "A-1", "--id", "a", *STORE)
    assert second.code == 0
    assert "↻ parse  recalled  Doc(pages=3)" in second.err
    assert terminal.ledger() == ["parse A-1", "fail", "fail"]


def test_json_is_one_object_whatever_the_workflow_prints(terminal: Terminal) -> None:
    failed = terminal.type("run", "loans:pay", "A-1", "--id", "a", *STORE, "--json")
    assert failed.code == 1
    assert failed.object["status"] == "failed"
    assert failed.object["error_type"] == "StepFailed"
    (terminal.folder / "mended").touch()
    done = terminal.type("run", "loans:pay", "A-1", "--id", "a", *STORE, "--json")
    assert done.code == 0
    assert done.object == {
        "id": "a",
        "workflow": "pay",
        "status": "done",
        "result": "A-1 paid, 3 pages",
        "error": None,
        "error_type": None,
        "executed": 1,
        "recalled": 1,
    }
    assert "paying A-1" in done.err


def test_a_plain_workflow_and_a_result_that_is_no_text(terminal: Terminal) -> None:
    done = terminal.type("run", "loans.py:plain", "A-1", "--id", "p", *STORE)
    assert (done.code, done.out) == (0, '{\n  "__type__": "Doc",\n  "pages": 1\n}\n'), done


WRONG = [
    (["run", "loans", "A", "--id", "x"], "'loans' names no workflow. Write MODULE:WORKFLOW"),
    (["run", "nowhere:review", "A", "--id", "x"], "there is no module 'nowhere' in "),
    (
        ["run", "laons:review", "A", "--id", "x"],
        "or among the installed ones. Did you mean loans.py? The Python files in ",
    ),
    (["run", "nowhere.py:review", "A", "--id", "x"], "/nowhere.py does not exist. The Python files in "),
    (["run", "./loans:review", "A", "--id", "x"], "/loans does not exist. Did you mean loans.py?"),
    (["run", "./notes.txt:review", "A", "--id", "x"], "/notes.txt is no Python file: its name does not end in .py."),
    (["run", "notes.txt:review", "A", "--id", "x"], "/notes.txt is no Python file: its name does not end in .py."),
    (
        ["run", "loans:revue", "A", "--id", "x"],
        "no 'revue' in loans. Did you mean review? Its workflows: pay, plain, rev",
    ),
    (
        ["run", "loans:parse", "A", "--id", "x"],
        "'parse' in loans is a step, which runs inside of a workflow. Its workf",
    ),
    (["run", "loans:main", "A", "--id", "x"], "'main' in loans is a function that is not marked @workflow. Its workf"),
    (["run", "loans:Doc", "A", "--id", "x"], "'Doc' in loans is a class, not a workflow. Its workflows: pay, plain"),
    (["run", "json:loads", "A", "--id", "x"], "json has no workflow at all; mark one with @workflow."),
    (["run", "loans:Office.work", "--id", "x"], "is a method"),
    (["run", "broken:review", "A", "--id", "x"], "broken cannot be imported: ZeroDivisionError: division by zero"),
    (["run", "loans:review", "A", "tags=a", "--id", "x"], "argument tags: 'a' is not a list[str] | None"),
    (["run", "loans:review", "A"], "Missing option '--id'"),
    (["run", "loans:review", "A", "--id", ""], "'' cannot name a run"),
    (["run", "loans:review", "A", "--id", "a\nb"], "cannot name a run"),
    (["resume"], "name the run to resume, or say --all"),
    (["show", "x"], "there is no run 'x'. `holdfast list --store loans.db` shows"),
    (["resume", "x"], "there is no run 'x'. `holdfast list --store loans.db` shows"),
    (["cancel", "x"], "there is no run 'x'. `holdfast list --store loans.db` shows"),
    (["cancel", "x", "--store", "empty.db"], "there is no run 'x'"),
    (["show", "x", "--store", "empty.db"], "there is no run 'x'"),
    (["run", "loans:review", "A", "--id", "x", "--store", "notes.txt"], "notes.txt is not a SQLite database"),
    (["list", "--store", "typo.db"], "there is no store at typo.db"),
    (["list", "--store", "loans.py"], "loans.py"),
    (["list", "--store", "mysql://x"], "holdfast has no store for mysql:// URLs"),
    (["lst"], "No such command 'lst'"),
]


def test_a_line_that_cannot_be_done_is_one_clear_line_and_exit_code_2(terminal: Terminal) -> None:
    (terminal.folder / "broken.py").write_text("x = 1 / 0\n")
    (terminal.folder / "notes.txt").write_text("Dear diary\n")
    (terminal.folder / "empty.db").touch()
    terminal.type("run", "loans:plain", "A", "--id", "there", *STORE)
    running = [(terminal.start(*args, *(() if "--store" in args else STORE)), said) for args, said in WRONG]
    for process, said in running:
        done = Done.of(process)
        assert done.code == 2, done
        assert said in done.err
        assert "Traceback" not in done.err
        assert "Warning" not in done.err
        assert done.out == ""
    assert (terminal.folder / "empty.db").read_bytes() == b""
    assert not (terminal.folder / "typo.db").exists()


def test_an_error_is_an_object_too(terminal: Terminal) -> None:
    done = terminal.type("show", "x", "--store", "typo.db", "--json")
    assert done.code == 2
    assert "there is no store at typo.db" in done.object["error"]
    missing = terminal.type("run", "loans:review", "--json")
    assert missing.code == 2
    assert "--id" in missing.object["error"]


def test_the_same_id_for_other_work_changes_nothing(terminal: Terminal) -> None:
    terminal.type("run", "loans:plain", "A", "--id", "x", *STORE)
    other = terminal.type("run", "loans:plain", "B", "--id", "x", *STORE)
    assert other.code == 2
    assert "was started with other arguments" in other.err


def test_a_run_of_another_version_is_not_gone_on_with(terminal: Terminal) -> None:
    terminal.type("run", "loans:pay", "A", "--id", "x", *STORE)
    program = terminal.folder / "loans.py"
    program.write_text(program.read_text().replace('version="1"', 'version="2", on_change="refuse"'))
    done = terminal.type("run", "loans:pay", "A", "--id", "x", *STORE)
    assert done.code == 3, done
    assert "version '1'" in done.err


# -- interrupted, killed, resumed ----------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_hands_its_lease_back(terminal: Terminal, sign: signal.Signals, code: int) -> None:
    process = terminal.start("run", "loans:review", "A", "--id", "x", *STORE)
    terminal.wait_for("hold", process)
    process.send_signal(sign)
    done = Done.of(process)
    assert done.code == code, done
    assert "run x: stopped from outside with 1 step recorded; the same line resumes it" in done.err
    assert "run the same line again" in done.err
    assert "Traceback" not in done.err
    assert "never retrieved" not in done.err
    listed = terminal.type("list", *STORE, "--json").object["runs"]
    assert [(run["status"], run["condition"], run["owner"]) for run in listed] == [("running", "interrupted", "nobody")]
    (terminal.folder / "go").touch()
    again = terminal.type("run", "loans:review", "A", "--id", "x", *STORE, "--json").object
    assert (again["executed"], again["recalled"]) == (1, 1)
    assert terminal.ledger() == ["parse A", "hold", "hold"]


@pytest.mark.crash
def test_a_killed_program_is_resumed_from_its_file(terminal: Terminal, tmp_path: Path) -> None:
    """Started as ``python loans.py``, so its module is ``__main__``; resumed from elsewhere, without its main block."""
    process = terminal.python("loans.py")
    terminal.wait_for("hold", process)
    process.kill()
    pid = process.pid
    Done.of(process)
    assert f"nobody (pid {pid} died)" in terminal.type("list", *STORE).out
    (terminal.folder / "go").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = terminal.type("resume", "main", "--store", str(terminal.folder / "loans.db"), cwd=elsewhere)
    assert (done.code, done.out) == (0, '{\n  "pages": 3\n}\n'), done
    assert f"pid {pid}, which is dead" in done.err
    assert terminal.ledger() == ["main", "parse M-1", "hold", "hold"]
    again = terminal.type("resume", "main", "--store", str(terminal.folder / "loans.db"), cwd=elsewhere)
    assert (again.code, again.out) == (0, '{\n  "pages": 3\n}\n')


def test_a_workflow_that_moved_is_found_through_pyproject(terminal: Terminal) -> None:
    terminal.type("run", "loans:pay", "A", "--id", "x", *STORE)
    jobs = terminal.folder / "jobs"
    jobs.mkdir()
    (terminal.folder / "loans.py").rename(jobs / "paying.py")
    lost = terminal.type("resume", "x", *STORE)
    assert lost.code == 2
    assert "one of workflow 'pay', which was not found: there is no module 'loans' in " in lost.err
    (terminal.folder / "pyproject.toml").write_text('[tool.holdfast]\nmodules = ["jobs.paying"]\n')
    (jobs / "mended").touch()
    done = terminal.type("resume", "x", *STORE)
    assert (done.code, done.out.splitlines()[-1]) == (0, "A paid, 3 pages"), done


def test_a_file_in_a_package_is_loaded_as_part_of_it(terminal: Terminal) -> None:
    package = terminal.folder / "office"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "names.py").write_text('NAME = "Ada"\n')
    imports = "from holdfast import workflow\nfrom .names import NAME\n\n"
    (package / "who.py").write_text(f"{imports}@workflow\nasync def who() -> str:\n    return NAME\n")
    done = terminal.type("run", "office/who.py:who", "--id", "who", *STORE)
    assert (done.code, done.out) == (0, "Ada\n"), done


@pytest.mark.crash
def test_resume_all_carries_on_with_what_nobody_advances(terminal: Terminal) -> None:
    processes = [terminal.start("run", "loans:review", f"A-{n}", "--id", f"a{n}", *STORE) for n in range(3)]
    for process in processes:
        terminal.wait_for("hold", process, times=3)
    failed = terminal.type("run", "loans:pay", "F", "--id", "failed", *STORE)
    assert failed.code == 1
    for process in processes[:2]:
        process.kill()
        Done.of(process)
    (terminal.folder / "go").touch()
    done = terminal.type("resume", "--all", *STORE, "--json")
    assert done.code == 0, done
    found = {run["id"]: run for run in done.object["runs"]}
    assert {"a0", "a1"} <= found.keys() <= {"a0", "a1", "a2"}
    assert all(found[id]["status"] == "done" and found[id]["recalled"] == 1 for id in ("a0", "a1"))
    assert Done.of(processes[2]).code == 0
    text = terminal.type("resume", "--all", "--failed", *STORE)
    assert text.code == 1
    assert "failed  failed  run 'failed' failed: " in text.out
    (terminal.folder / "mended").touch()
    assert terminal.type("resume", "--all", "--failed", *STORE).code == 0
    nothing = terminal.type("resume", "--all", *STORE)
    assert (nothing.code, nothing.out[:17]) == (0, "nothing to resume")


def test_busy_and_cancelled_are_exit_code_3(terminal: Terminal) -> None:
    owner = terminal.start("run", "loans:review", "A", "--id", "x", *STORE)
    terminal.wait_for("hold", owner)
    busy = terminal.type("run", "loans:review", "A", "--id", "x", "--no-wait", *STORE)
    assert busy.code == 3
    assert f"pid {owner.pid}" in busy.err
    assert "Leave out --no-wait to wait for its outcome" in busy.err
    cancelled = terminal.type("cancel", "x", *STORE)
    assert (cancelled.code, cancelled.out) == (0, "run x is cancelled\n")
    stopped = Done.of(owner)
    assert stopped.code == 3, stopped
    assert "was cancelled and does not resume" in stopped.err
    assert terminal.type("resume", "x", *STORE).code == 3
    terminal.type("run", "loans:plain", "A", "--id", "done", *STORE)
    late = terminal.type("cancel", "done", *STORE)
    assert late.code == 3
    assert "is done already" in late.err


# -- list, show ----------------------------------------------------------------------------------------------


def test_list_shows_runs_newest_first(terminal: Terminal) -> None:
    assert "there are no runs" in Done.of(terminal.start("list", "--store", "memory://")).out
    terminal.type("run", "loans:plain", "A", "--id", "first", *STORE)
    terminal.type("run", "loans:pay", "A", "--id", "second", *STORE)
    terminal.type("run", "loans:pay", "A", "--id", "second", *STORE)
    terminal.environ["HOLDFAST_URL"] = "loans.db"
    head, second, first = terminal.type("list").out.splitlines()
    assert head.split() == ["id", "workflow", "status", "steps", "resumed", "owner", "updated"]
    assert second.split()[:5] == ["second", "pay", "failed", "3", "1×"]
    assert first.split()[:4] == ["first", "plain", "done", "0"]
    assert [run["id"] for run in terminal.type("list", "--status", "done", "--json").object["runs"]] == ["first"]
    one = terminal.type("list", "--limit", "1", "--json").object
    assert ([run["id"] for run in one["runs"]], one["more"]) == (["second"], True)
    assert terminal.type("list", "--workflow", "plain").out.count("\n") == 2


@pytest.mark.crash
def test_show_tells_which_process_made_each_checkpoint(terminal: Terminal) -> None:
    first = terminal.start("run", "loans:review", "A", "--id", "x", *STORE)
    terminal.wait_for("hold", first)
    first.kill()
    Done.of(first)
    (terminal.folder / "go").touch()
    second = terminal.start("run", "loans:review", "A", "--id", "x", *STORE)
    Done.of(second)
    shown = terminal.type("show", "x", *STORE).out
    assert "x  done  review  version 1" in shown
    assert re.search(r"resumed +1×, 1 process died", shown)
    assert "app_id=A" in shown
    assert "pages=3" in shown
    timeline = [" ".join(re.sub("[━┃┏┗┊]", "", line).split()) for line in shown.partition("\n\n")[2].splitlines()]
    told = [re.sub(r"^([\d.]+ (ms|s) )?|\b[\d.]+ (ms|s)\b", "", line).strip() for line in timeline]
    # On a slow machine there was a heartbeat before the end, and it told of the step that was cut off.
    assert [line for line in told if not line.startswith("▸ hold")] == [
        f"pid {first.pid} started",
        "1 ✓ parse  app_id=A → Doc(pages=3)",
        "✗ died some time after this",
        "after its last sign of life",
        f"pid {second.pid} took over; recalled 1 step:  not spent again",
        "2 ✓ hold  doc=Doc(pages=3) → 3",
        "✓ done",
    ]
    told = terminal.type("show", "x", *STORE, "--json").object
    assert told["state"] == {"pages": 3}
    assert told["deaths"] == 1
    assert [each["process"] for each in told["checkpoints"]] == [f"pid {first.pid}", f"pid {second.pid}"]
    assert [each["result"] for each in told["checkpoints"]] == [{"__type__": "Doc", "pages": 3}, 3]
    assert [each["end"] for each in told["processes"]] == ["died", "done"]
    saved = told["not_spent_again"]
    assert (saved["steps"], saved["seconds"]) == (1, told["checkpoints"][0]["duration"])
    assert "--limit 0 shows every line" in terminal.type("show", "x", *STORE, "--limit", "1").out
    diagram = terminal.type("show", "x", *STORE, "--mermaid").out
    assert diagram.startswith("sequenceDiagram\n")
    assert f"pid {second.pid} took over (epoch 2)" in diagram
    step = terminal.type("show", "x", *STORE, "--step", "1").out
    assert f"run by pid {first.pid}: nothing was recorded of this call yet" in step
    assert f"recalled by pid {second.pid}: its outcome stood at this place" in step


def test_show_of_a_failed_run_has_the_traceback_of_the_program_only(terminal: Terminal) -> None:
    terminal.type("run", "loans:pay", "A", "--id", "x", *STORE)
    shown = terminal.type("show", "x", *STORE).out
    assert "LookupError: no account A" in shown
    assert ", in fail" in shown
    assert ", in pay" in shown
    assert "calls.py" not in shown
    step = terminal.type("show", "x", *STORE, "--step", "2")
    assert ", in fail" in step.out
    assert "inputs     app_id=A" in step.out
    (terminal.folder / "mended").touch()
    terminal.type("run", "loans:pay", "A", "--id", "x", *STORE)
    again = terminal.type("show", "x", *STORE, "--step", "2", "--json").object["why"]
    assert again[1].endswith("as checkpoint 3: a failure that ended the run is tried anew")
    assert "checkpoint 2, its failure before, ended the run" in terminal.type("show", "x", *STORE, "--step", "3").out
    missing = terminal.type("show", "x", *STORE, "--step", "9")
    assert (missing.code, "has no checkpoint 9; it has 3 checkpoints" in missing.err) == (2, True)


# -- on a terminal -------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_sees_what_is_running_and_the_result_last(terminal: Terminal) -> None:
    import pty

    command = [sys.executable, "-m", "holdfast", "run", "loans:review", "A", "--id", "x", *STORE]
    pid, end = pty.fork()
    if pid == 0:  # the child, on its terminal
        os.chdir(terminal.folder)
        os.execve(sys.executable, command, {**terminal.environ, "TERM": "xterm-256color", "COLUMNS": "100"})
    seen = b""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            seen += os.read(end, 4096)
        except OSError:  # closed: the child has ended
            break
        if b"1 running" in seen:
            (terminal.folder / "go").touch()
    _, status = os.waitpid(pid, 0)
    os.close(end)
    text = seen.decode()
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert "✓" in text
    assert "hold" in text
    assert text.rstrip().endswith('"pages": 3\r\n}')
