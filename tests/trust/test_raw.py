"""``holdfast show --raw``, and the list of a store with damaged rows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import apsw
import pytest

import holdfast
from holdfast import step, workflow
from holdfast.cli import _main


@step
async def fetch(what: str) -> str:
    holdfast.state["what"] = what
    return f"text of {what}"


@workflow(version="1")
async def job(what: str) -> str:
    return await fetch(what)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    async def main() -> None:
        async with holdfast.open(tmp_path / "a.db") as hf:
            for id in ("a", "b", "c"):
                await hf.run(job(id), id=id)

    asyncio.run(main())
    return tmp_path / "a.db"


def changed(store: Path, change: str) -> None:
    db = apsw.Connection(str(store))
    db.execute(change)
    db.close()


def test_raw_shows_every_column_and_which_row_is_damaged(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(store, "UPDATE checkpoint SET result = x'A178' WHERE run_no = 2")
    assert _main(["show", "b", "--raw", "--json", "--store", str(store)]) == 0
    told = json.loads(capsys.readouterr().out)
    (checkpoint,), (run,) = told["checkpoint"], told["run"]
    assert (run["flaw"], checkpoint["flaw"]) == (None, "the row's checksum does not match its content")
    assert checkpoint["columns"]["result"] == {"hex": "a178", "reads": "x"}
    assert told["damages"] == ["checkpoint 1: the row's checksum does not match its content"]
    db = apsw.Connection(str(store))
    for table in ("run", "checkpoint", "claim"):
        names = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        assert names == set(told[table][0]["columns"]), table
    db.close()
    _main(["show", "b", "--raw", "--store", str(store)])
    out = capsys.readouterr().out
    assert "checkpoint 1  the row's checksum does not match its content" in out and "a178  x" in out


def test_the_list_names_damaged_runs_among_the_others(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(store, "UPDATE run SET status = 'dond', workflow = CAST(x'6aff62' AS TEXT) WHERE id = 'b'")
    _main(["list", "--json", "--store", str(store)])
    told = {run["id"]: (run["condition"], run["damaged"]) for run in json.loads(capsys.readouterr().out)["runs"]}
    flaw = "the checksum of the run's row does not match its content"
    assert told == {"a": ("done", None), "b": ("damaged", flaw), "c": ("done", None)}
    _main(["list", "--store", str(store)])
    assert f"b: {flaw}. It was changed or damaged" in " ".join(capsys.readouterr().out.split())


def test_the_runs_of_a_store_with_a_damaged_row(store: Path) -> None:
    changed(store, "UPDATE run SET status = 'x' WHERE no = 2")

    async def main() -> None:
        async with holdfast.open(store) as hf:
            runs = {run.id: run for run in await hf.runs()}
            assert [runs[id].result for id in "abc"] == ["text of a", None, "text of c"]
            assert runs["b"].error == (
                "CodecError: its status 'x' is none there is. It was changed or damaged since it was written; it is "
                "kept as it is. Restore the store from a backup, or start the work again under a new id."
            )

    asyncio.run(main())
