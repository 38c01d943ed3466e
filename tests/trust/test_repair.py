"""Damaged steps that a person gives an outcome, or has executed again."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import holdfast
from holdfast import CodecError, StepFailed, step, workflow
from holdfast.cli import _main

executed: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    executed.clear()
    yield


class Crash(BaseException):
    """Ends a run where it stands."""


@step
async def fetch(what: str) -> int:
    executed.append(what)
    return len(what)


@step
async def note(what: str) -> int:
    executed.append(what)
    holdfast.state.setdefault("notes", []).append(what)
    return len(what)


@step(once=True)
async def pay(what: str) -> str:
    executed.append(what)
    return f"paid {what}"


@step
async def last() -> None:
    executed.append("last")
    if executed.count("last") == 1 and "crash" in executed:
        raise Crash


@workflow(version="1")
async def job() -> list[Any]:
    holdfast.state["begun"] = True
    found: list[Any] = [await fetch("one"), await note("three")]
    holdfast.state["said"] = [found[0]]
    found += [await pay("rent"), await note("four")]
    holdfast.state["said"].append(found[1])
    await last()
    return [*found, dict(holdfast.state)]


WHOLE = [3, 5, "paid rent", 4, {"begun": True, "notes": ["three", "four"], "said": [3, 5]}]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A run that has died in its last step."""
    executed.append("crash")

    async def main() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            with suppress(Crash):
                await hf.run(job(), id="a")

    with suppress(Crash):
        asyncio.run(main())
    executed.clear()
    return tmp_path / "a.db"


def changed(store: Path, name: str, change: str, status: str = "done") -> int:
    """Change the row of this step; its number."""
    db = apsw.Connection(str(store))
    seq: int = db.execute(
        "SELECT seq FROM checkpoint WHERE name = ? AND status = ? ORDER BY seq", (name, status)
    ).fetchall()[0][0]
    db.execute(f"UPDATE checkpoint SET {change} WHERE seq = ?", (seq,))
    db.close()
    return seq


def resumed(store: Path) -> Any:
    async def main() -> Any:
        async with holdfast.open(store) as hf:
            return await hf.run(job(), id="a")

    executed.clear()
    return asyncio.run(main())


def told(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = _main(list(args))
    captured = capsys.readouterr()
    return code, " ".join((captured.out + captured.err).split())


def test_the_scene_is_whole_when_nothing_is_changed(store: Path) -> None:
    assert (resumed(store), executed) == (WHOLE, ["last"])


@pytest.mark.parametrize("change", ["result = x'04'", "usd = 7", "epoch = 9", "checksum = checksum + 1"])
@pytest.mark.parametrize("way", ["result", "retry"])
def test_a_damaged_step_is_given_an_outcome_or_executed_again(
    store: Path, capsys: pytest.CaptureFixture[str], change: str, way: str
) -> None:
    seq = changed(store, "fetch", change)
    with pytest.raises(CodecError, match=f"checkpoint {seq} .*holdfast resolve a {seq} --result JSON"):
        resumed(store)
    assert executed == []
    given = ["--retry"] if way == "retry" else ["--result", "3"]
    code, said = told(capsys, "resolve", "a", str(seq), *given, "--store", str(store))
    assert code == 0, said
    assert (resumed(store), executed) == (WHOLE, ["one", "last"] if way == "retry" else ["last"])
    told_now = json.loads(_json(capsys, "show", "a", "--json", "--store", str(store)))
    assert told_now["damages"] == [] and told_now["state"] == WHOLE[-1]


def _json(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert _main(list(args)) == 0
    return capsys.readouterr().out


def test_a_result_alone_is_refused_where_state_was_changed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seq = changed(store, "note", "result = x'09'")
    code, said = told(capsys, "resolve", "a", str(seq), "--result", "5", "--store", str(store))
    assert code != 0 and "the step changed the state" in said, said
    assert told(capsys, "resolve", "a", str(seq), "--retry", "--store", str(store))[0] == 0
    assert (resumed(store), executed) == (WHOLE, ["three", "last"])


def test_a_change_that_cannot_be_read_may_be_the_steps(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seq = changed(store, "note", "delta = CAST(replace(delta, 'step', 's4ep') AS BLOB)")
    assert told(capsys, "resolve", "a", str(seq), "--result", "5", "--store", str(store))[0] != 0


def test_a_step_executed_once_is_paid_once_whichever_of_its_rows_is_damaged(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for status in ("intent", "done"):
        seq = changed(store, "pay", "attempts = 77", status)
        with pytest.raises(CodecError, match=f"checkpoint {seq} "):
            resumed(store)
        assert executed == []
        code, said = told(capsys, "resolve", "a", str(seq), "--result", '"paid rent"', "--store", str(store))
        assert code == 0, said
    assert (resumed(store), executed) == (WHOLE, ["last"])


@pytest.mark.parametrize("change", ["name = 'fetsh'", "n = 4", "seq = 40", "branch = 'x'"])
def test_a_place_that_cannot_be_believed_is_not_written_to(
    store: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    changed(store, "fetch", change)
    seq = 40 if "seq" in change else 1
    for way in (["--retry"], ["--result", "3"]):
        code, said = told(capsys, "resolve", "a", str(seq), *way, "--store", str(store))
        assert code == 3 and re.search(r"fork it before that \(hf.fork\('a', at=\d+, new_id=…\)\)", said), said
    with pytest.raises(CodecError, match="Restore the store from a backup, or fork it before that"):
        resumed(store)


def test_a_row_that_is_whole_is_not_replaced(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, "resolve", "a", "1", "--retry", "--store", str(store))
    assert code != 0 and "is not in doubt" in said


def test_half_a_repair_is_none(store: Path) -> None:
    """The process dies between the outcome and the note that the damaged row counts no longer."""
    seq = changed(store, "fetch", "usd = 7")

    async def half() -> None:
        async with holdfast.open(store) as hf:
            with suppress(CodecError):
                await hf.run(job(), id="a")
            with suppress(CodecError):
                await hf.resolve("a", seq, retry=True)
        db = apsw.Connection(str(store))
        db.execute("DELETE FROM checkpoint WHERE status = 'repair'")
        db.close()

    asyncio.run(half())
    with pytest.raises(CodecError, match=f"checkpoint {seq} "):
        resumed(store)
    assert executed == []


site_is_up = False


@step
async def publish(what: int) -> str:
    if not site_is_up:
        raise ConnectionError("the site does not answer")
    return f"published {what}"


@workflow(version="1")
async def publication() -> str:
    return await publish(await fetch("one"))


def test_a_failed_run_that_was_damaged_tries_its_failure_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record was parked as damaged in between."""

    async def main() -> str:
        async with holdfast.open(tmp_path / "a.db") as hf:
            return await hf.run(publication(), id="a")

    with pytest.raises(StepFailed):
        asyncio.run(main())
    seq = changed(tmp_path / "a.db", "fetch", "usd = 7")
    monkeypatch.setitem(globals(), "site_is_up", True)
    with pytest.raises(CodecError):
        asyncio.run(main())
    code, said = told(capsys, "resolve", "a", str(seq), "--result", "3", "--store", str(tmp_path / "a.db"))
    assert code == 0, said
    assert asyncio.run(main()) == "published 3"
