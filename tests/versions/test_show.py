"""Old attempts apart in what is shown, and runs that the code at hand cannot go on with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cli"))

from terminal import Terminal

PROGRAM = """
import holdfast
from holdfast import step, workflow

@step
async def pack(item: str) -> str:
    holdfast.state["OLD" if VERSION == 1 else "NEW"] = item
    return f"a box with {item}"

@step
async def send(box: str) -> str:
    if VERSION == 1:
        raise ConnectionError("no courier")
    return f"sent {box}"

@workflow(version=VERSION, on_change="CHANGE")
async def ship(item: str) -> str:
    if VERSION == 2:
        await pack("a card")
    return await send(await pack(item))

@workflow(version=VERSION)
async def other(WHAT: str) -> str:
    return await send(await pack(WHAT))
"""


def write(folder: Path, version: int, *, change: str = "salvage", what: str = "item", less: str = "") -> None:
    text = PROGRAM.replace("VERSION", str(version)).replace("CHANGE", change).replace("WHAT", what)
    (folder / "ship.py").write_text(text.replace(less, "gone") if less else text)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    write(tmp_path, 1)
    return Terminal(tmp_path)


def test_the_timeline_and_one_checkpoint_tell_the_attempts_apart(terminal: Terminal) -> None:
    store = ("--store", "s.db")
    assert terminal.type("run", "ship:ship", "lamp", "--id", "s", *store).code == 1
    write(terminal.folder, 2)
    done = terminal.type("resume", "s", *store)
    assert done.code == 0 and "kept from another version" in done.err
    assert "steps: 2 executed, 0 recalled, 1 kept from other versions" in done.err
    shown = terminal.type("show", "s", *store).out
    assert "ship  version 2" in shown and "recalled   1 step" in shown
    assert "checkpoint 3, new code: version 1 → 2; salvage: from the top, with what still holds" in shown
    assert "kept (" in shown
    assert "NEW=a card" in shown and "OLD=lamp" in shown  # what was kept changed the state of the new attempt
    told = {seq: terminal.type("show", "s", "--step", str(seq), *store).out for seq in (1, 3, 4, 5)}
    assert "of an earlier attempt, which ended with checkpoint 3" in told[1]
    assert "new code: version 1 → 2" in told[3]
    assert "run by" in told[4]
    assert "not run: kept from checkpoint 1" in told[5]
    assert "new code: version 1 → 2" in terminal.type("show", "s", "--mermaid", *store).out
    watched = terminal.type("watch", "s", *store)
    assert "salvage: new code goes on with it, from the top (version 1 before)" in watched.out + watched.err


def test_a_restart_leaves_the_state_of_the_attempt_before_behind(terminal: Terminal) -> None:
    store = ("--store", "s.db")
    assert terminal.type("run", "ship:ship", "lamp", "--id", "s", *store).code == 1
    write(terminal.folder, 2, change="restart")
    assert terminal.type("resume", "s", *store).code == 0
    assert json.loads(terminal.type("show", "s", "--json", *store).out)["state"] == {"NEW": "lamp"}


def test_stranded_runs_are_listed_with_the_reason(terminal: Terminal) -> None:
    store = ("--store", "s.db")
    for target, id in (("ship:ship", "refused"), ("ship:other", "moved")):
        assert terminal.type("run", target, "lamp", "--id", id, *store).code == 1
    # A run that failed has ended; these were handed back before.
    import apsw

    db = apsw.Connection(str(terminal.folder / "s.db"))
    db.execute("UPDATE run SET status = 'running'")
    db.close()
    everything = terminal.type("list", "--stranded", *store)
    assert everything.code == 0 and "can go on with every unfinished run" in everything.out
    write(terminal.folder, 2, change="refuse", what="thing")
    listed = json.loads(terminal.type("list", "--stranded", "--json", *store).out)
    assert [(run["id"], run["error_type"]) for run in listed["runs"]] == [
        ("moved", "Mismatch"),
        ("refused", "VersionMismatch"),
    ]
    assert "by version '1' of 'ship', and this is version '2'" in listed["runs"][1]["why"]
    assert listed["runs"][0]["arguments"] == {"item": "lamp"} and listed["more"] is False
    shown = terminal.type("list", "--stranded", "--limit", "1", *store).out
    assert "moved" in shown and "does not take the arguments" in " ".join(shown.split()) and "older ones" in shown
    (terminal.folder / "ship.py").unlink()
    listed = json.loads(terminal.type("list", "--stranded", "--json", "--workflow", "ship", *store).out)
    assert [(run["id"], run["error_type"]) for run in listed["runs"]] == [("refused", "NotFound")]
    assert terminal.type("list", "--stranded", "--status", "done", *store).code == 2
