"""What the command line says is meant for people: it is true, reads well, and does nothing to their terminal."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace
from terminal import Done, Terminal

from holdfast.cli.printing import escaped, lines
from holdfast.cli.problems import EXIT_CODES
from holdfast.records import count

STORE = ("--store", "odd.db")

# Programs that end in every way there is.
ODD = """
import asyncio
import sys

import holdfast
from holdfast import step, workflow


class Thing:
    pass


@step
async def fine() -> int:
    return 1


@step
async def unfit():
    return Thing()


@step
async def unfit_inside():
    return {"things": [Thing()]}


@step(name="red \\x1b[31m step")
async def red(text: str) -> str:
    raise ValueError("first\\nsecond \\x1b[31mred \\x9b31m \\u202e")


@step
async def told(text: str) -> str:
    return text


@workflow(version="1")
async def stores_nothing() -> None:
    await fine()
    await unfit()


@workflow(version="1")
async def stores_less() -> None:
    await unfit_inside()


@workflow(version="1")
async def swears(text: str) -> None:
    await told(text)
    await red(text)


@workflow(version="1")
async def leaves() -> None:
    await fine()
    sys.exit(7)


@workflow(version="1")
def leaves_plainly() -> None:
    sys.exit("enough")


@workflow(version="1")
async def wanders(way: str = "") -> str:
    return await told(open("way").read())


@step
async def loses_the_store() -> int:
    import apsw

    db = apsw.Connection("odd.db")
    db.execute("DROP TABLE checkpoint")
    db.close()
    return 1


@workflow(version="1")
async def homeless() -> None:
    await fine()
    await loses_the_store()
    await fine()


@step
async def is_robbed(id: str) -> int:
    from holdfast.store import open_store

    store = open_store("odd.db")
    row = store.get(id)
    store.claim(row.no, row.epoch, owner="elsewhere/boot/ns|7|1.00|serial", ttl_ms=60_000, lost="died")
    store.close()
    return 1


@workflow(version="1")
async def robbed(id: str) -> None:
    await is_robbed(id)
    await fine()


@workflow
async def unversioned() -> int:
    await fine()
    raise LookupError("not yet")


async def sessions() -> None:
    async with holdfast.open("odd.db") as hf:
        async with hf.session("closed") as session:
            session.state["a"] = 1
            await session.save()
        async with hf.session("open") as session:
            for k in range(2):
                session.state["a"] = k
                await session.save()
            print("saved", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(sessions())
"""


@pytest.fixture
def odd(terminal: Terminal) -> Terminal:
    (terminal.folder / "odd.py").write_text(ODD, encoding="utf-8")
    return terminal


# -- exit codes ----------------------------------------------------------------------------------------------


def test_the_exit_codes_are_told_the_same_in_help_and_in_the_docs(terminal: Terminal) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)) == {
        str(code): meaning for code, meaning in EXIT_CODES.items()
    }
    told = " ".join(terminal.type("--help").out.partition("Exit codes:")[2].split())
    assert told == " ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())


def test_a_run_that_diverged_and_one_of_another_version_are_exit_code_3(odd: Terminal) -> None:
    (odd.folder / "way").write_text("north")
    program = odd.folder / "odd.py"
    stops = program.read_text().replace('await told(open("way").read())', 'await told(open("way").read()) + gone')
    program.write_text(stops)
    assert odd.type("run", "odd:wanders", "--id", "w", *STORE).code == 1
    (odd.folder / "way").write_text("south")
    diverged = odd.type("run", "odd:wanders", "--id", "w", *STORE)
    assert (diverged.code, "text: recorded 'north', now 'south'" in diverged.err) == (3, True), diverged
    program.write_text(stops.replace('version="1"', 'version="2", on_change="refuse"'))
    other = odd.type("resume", "w", *STORE)
    assert other.code == 3
    assert "run 'w' was recorded by version '1' of 'wanders', and this is version '2'. This code" in other.err
    assert "Python" not in other.err
    assert "version=" not in other.err


def test_a_run_that_was_taken_over_and_one_whose_store_is_lost_are_exit_code_3(odd: Terminal) -> None:
    robbed = odd.type("run", "odd:robbed", "r", "--id", "r", *STORE)
    assert (robbed.code, "was taken over by elsewhere pid 7" in robbed.err) == (3, True), robbed
    lost = odd.type("run", "odd:homeless", "--id", "h", *STORE)
    assert (lost.code, "odd.db does not have the tables holdfast made" in lost.err) == (3, True), lost


def test_a_record_that_is_damaged_is_exit_code_3(odd: Terminal) -> None:
    assert odd.type("run", "odd:swears", "a", "--id", "x", *STORE).code == 1
    db = apsw.Connection(str(odd.folder / "odd.db"))
    db.execute("UPDATE checkpoint SET result = x'07' WHERE seq = 1")
    db.close()
    damaged = odd.type("resume", "x", *STORE)
    assert (damaged.code, "the row's checksum does not match its content" in damaged.err) == (3, True), damaged


def test_a_version_nobody_chose_comes_with_the_advice_to_choose_one(odd: Terminal) -> None:
    assert odd.type("run", "odd:unversioned", "--id", "u", *STORE).code == 1
    program = odd.folder / "odd.py"
    changed = program.read_text().replace('LookupError("not yet")', 'LookupError("never")')
    program.write_text(
        changed.replace("@workflow\nasync def unversioned", '@workflow(on_change="refuse")\nasync def unversioned')
    )
    other = odd.type("run", "odd:unversioned", "--id", "u", *STORE)
    assert other.code == 3
    assert "(A version= of your own on @workflow says which changes matter.)" in other.err


@pytest.mark.parametrize(
    ("workflow", "exit"), [("leaves", "SystemExit(7)"), ("leaves_plainly", "SystemExit('enough')")]
)
def test_a_workflow_that_exits_is_named_as_that(odd: Terminal, workflow: str, exit: str) -> None:
    done = odd.type("run", f"odd:{workflow}", "--id", "x", *STORE)
    assert done.code == 3, done
    steps = "1 step" if workflow == "leaves" else "0 steps"
    assert f"run x: stopped by {exit} in its own code with {steps} recorded; the same line resumes it" in done.err
    assert "Traceback" not in done.err
    told = odd.type("run", f"odd:{workflow}", "--id", "x", *STORE, "--json")
    assert (told.code, told.object["error_type"]) == (3, "SystemExit")
    assert odd.type("list", *STORE, "--json").object["runs"][0]["condition"] == "interrupted"


# -- what a value or an error holds --------------------------------------------------------------------------


def test_a_result_that_cannot_be_stored_is_named_and_logged(odd: Terminal) -> None:
    whole = odd.type("run", "odd:stores_nothing", "--id", "a", *STORE)
    said = "the result of step 'unfit' cannot be stored: it is of type odd.Thing; return plain data"
    assert whole.code == 1
    assert f"run a: {said}" in whole.err
    assert f"failed: CodecError: {said}" in whole.err
    part = odd.type("run", "odd:stores_less", "--id", "b", *STORE)
    assert "run b: the result of step 'unfit_inside' cannot be stored: unfit_inside['things'][0] is of type" in part.err


def test_no_text_of_a_program_reaches_the_terminal_as_a_command_to_it(odd: Terminal) -> None:
    bad = "a\x1b[2Jb\x07\x7f"
    shown = [
        odd.type("run", "odd:swears", bad, "--id", "x", *STORE),
        odd.type("show", "x", *STORE),
        odd.type("list", *STORE),
        odd.type("run", "odd:swears", "\x1b[31m", "--id", "x", *STORE),  # Mismatch
        odd.type("run", "odd:\x1b[31m", "--id", "x", *STORE),
        odd.type("show", "\x1b[31m", *STORE),
    ]
    for done in shown:
        assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.out + done.err) == [], done
    assert r"a\x1b[2Jb\x07\x7f" in shown[1].out
    assert r"red \x1b[31m step failed with ValueError: first second \x1b[31mred \x9b31m \u202e" in shown[1].out
    assert "\n  second " in shown[0].err


def test_escaping() -> None:
    assert escaped("a\tb\r\n") == r"a\tb\r\n"
    assert escaped("größer – ✓ 中") == "größer – ✓ 中"
    assert lines("a\nb\x1b") == "a\n  b\\x1b"


def test_one_is_one() -> None:
    assert [count(n, "step") for n in (0, 1, 2, 1234)] == ["0 steps", "1 step", "2 steps", "1,234 steps"]
    assert [count(n, "process") for n in (1, 2)] == ["1 process", "2 processes"]


# -- how runs stand ------------------------------------------------------------------------------------------


@pytest.mark.crash
def test_list_tells_what_a_session_is_and_who_is_gone(odd: Terminal) -> None:
    program = odd.python("odd.py")
    assert program.stdout is not None
    program.stdout.readline()
    open_, closed = odd.type("list", *STORE, "--json").object["runs"]
    assert (open_["kind"], open_["condition"], open_["saves"], open_["steps"]) == ("session", "open", 2, 0)
    assert (closed["condition"], closed["saves"], closed["status"]) == ("closed", 1, "waiting")
    _, second, third = odd.type("list", *STORE).out.splitlines()
    assert second.split()[:5] == ["open", "session", "open", "2", "saves"]
    assert third.split()[:5] == ["closed", "session", "closed", "1", "save"]
    program.kill()
    Done.of(program)
    assert odd.type("list", *STORE, "--json").object["runs"][0]["condition"] == "interrupted"


def test_a_lapsed_lease_of_another_machine_is_stalled(odd: Terminal) -> None:
    from holdfast.store import Batch, open_store
    from holdfast.testing.store_suite import run_row

    store = open_store(odd.folder / "odd.db")
    store.commit(Batch(creates=[run_row("a", owner="elsewhere/x/y|7|1.0|z", ttl_ms=-1)]))
    store.commit(Batch(creates=[run_row("b", owner="elsewhere/x/y|7|1.0|z", ttl_ms=3_600_000)]))
    store.close()
    runs = odd.type("list", *STORE, "--json").object["runs"]
    assert [(run["id"], run["condition"], run["owner"]) for run in runs] == [
        ("b", "running", "elsewhere pid 7"),
        ("a", "stalled", "elsewhere pid 7 (stalled)"),
    ]
    for status, expected in (("running", ["b"]), ("stalled", ["a"]), ("interrupted", []), ("waiting", [])):
        listed = odd.type("list", "--status", status, *STORE, "--json").object["runs"]
        assert [run["id"] for run in listed] == expected, status


def test_a_status_is_looked_for_as_it_is_shown(odd: Terminal) -> None:
    """Newest first, whatever was stored, and page after page."""
    from holdfast.store import Batch, open_store
    from holdfast.testing.store_suite import run_row

    store, lapsed = open_store(odd.folder / "odd.db"), "elsewhere/x/y|7|1.0|z"
    for n in range(12):
        row = run_row(f"r{n}", owner=lapsed, ttl_ms=3_600_000 if n % 3 == 0 else -1)
        store.commit(Batch(creates=[replace(row, status="waiting" if n % 2 else "running")]))
    store.close()
    found = odd.type("list", "--status", "stalled", "--limit", "5", *STORE, "--json").object
    assert ([run["id"] for run in found["runs"]], found["more"]) == (["r11", "r10", "r8", "r7", "r5"], True)
    assert [run["status"] for run in found["runs"][:2]] == ["waiting", "running"]
    found = odd.type("list", "--status", "waiting", *STORE, "--json").object
    assert [run["id"] for run in found["runs"]] == ["r9", "r3"]
    assert odd.type("list", "--status", "vanished", *STORE).code == 2


def test_an_invocation_of_google_adk_is_said_to_be_one(odd: Terminal) -> None:
    from holdfast.store import Batch, open_store
    from holdfast.testing.store_suite import run_row

    store = open_store(odd.folder / "odd.db")
    row = replace(run_row("adk:app:u:s:i"), workflow="adk:app", module="holdfast.adapters.adk.plugin", owner=None)
    store.commit(Batch(creates=[replace(row, status="running", lease_until_ms=0)]))
    store.close()
    for command in (["resume", "adk:app:u:s:i"], ["list", "--stranded"]):
        told = odd.type(*command, *STORE)
        assert "holdfast worker --adk MODULE:APP" in " ".join(f"{told.out} {told.err}".split()), told
        assert "holdfast run FILE.py" not in told.out + told.err


# What root may not do either, so that a folder is as read-only to it as to anybody else.
AS_ANYBODY = """
import ctypes, os, sys
if os.geteuid() == 0:
    ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
os.execv(sys.executable, [sys.executable, "-m", "holdfast", *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="drops a right of root's by its Linux name")
def test_an_archived_store_is_listed_and_shown(odd: Terminal) -> None:
    odd.type("run", "odd:stores_nothing", "--id", "a", *STORE)
    archive = odd.folder / "archive"
    archive.mkdir()
    (odd.folder / "odd.db").rename(archive / "odd.db")
    (archive / "odd.db").chmod(0o444)
    archive.chmod(0o555)
    for command in (["list"], ["show", "a"]):
        done = Done.of(odd.python("-c", AS_ANYBODY, *command, "--store", "archive/odd.db"))
        assert (done.code, "stores_nothing" in done.out) == (0, True), done
    refused = Done.of(odd.python("-c", AS_ANYBODY, "cancel", "a", "--store", "archive/odd.db"))
    assert (refused.code, "cannot be opened for writing" in refused.err) == (2, True), refused
    archive.chmod(0o755)
    assert [path.name for path in archive.iterdir()] == ["odd.db"]


def test_an_empty_file_lists_no_runs_and_stays_empty(terminal: Terminal) -> None:
    (terminal.folder / "odd.db").touch()
    done = terminal.type("list", *STORE)
    assert (done.code, done.out) == (0, "there are no runs in sqlite:///odd.db\n")
    assert (terminal.folder / "odd.db").read_bytes() == b""


def test_a_file_that_runs_its_own_program_is_not_run_by_the_way(terminal: Terminal) -> None:
    source = (terminal.folder / "loans.py").read_text(encoding="utf-8")
    (terminal.folder / "unguarded.py").write_text(source.replace('if __name__ == "__main__":', "if True:"))
    done = terminal.type("run", "unguarded:review", "A-1", "--id", "a", "--store", "other.db")
    assert done.code == 2
    assert "unguarded starts work of its own while it is imported" in done.err
    assert 'put what it does as a program under `if __name__ == "__main__":`' in done.err
    assert not (terminal.folder / "loans.db").exists() and not (terminal.folder / "other.db").exists()
