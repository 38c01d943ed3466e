"""Each kind of edit, under each ``on_change``: what is executed, what is kept, what is refused. Nothing is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from editing import a, b, bare, c, did, edit, stop

import holdfast
from holdfast import CodecError, Diverged, VersionMismatch, step
from holdfast.store.damage import flaw_of_run


@step(name="b, renamed")
async def renamed(x: int) -> str:
    did.append(f"renamed{x}")
    return f"b{x}"


async def plain() -> list[str]:
    return [await a(1), await b(2), await c(3), await stop()]


async def inserted() -> list[str]:
    return [await a(1), await b(0), await b(2), await c(3), await stop()]


async def removed() -> list[str]:
    return [await a(1), await c(3), await stop()]


async def a_step_renamed() -> list[str]:
    return [await a(1), await renamed(2), await c(3), await stop()]


async def reordered() -> list[str]:
    return [await c(3), await b(2), await a(1), await stop()]


async def other_inputs() -> list[str]:
    return [await a(1), await b(7), await c(3), await stop()]


async def without_inputs() -> list[str]:
    return [await bare(), await bare(), await stop()]


async def without_inputs_in_a_task() -> list[str]:
    return [await bare(), await asyncio.create_task(inner()), await stop()]


async def inner() -> str:
    return await bare()


async def at_once() -> list[str]:
    return [*await asyncio.gather(branch(1), branch(2)), await stop()]


async def swapped() -> list[str]:
    return [*await asyncio.gather(branch(2), branch(1)), await stop()]


async def branch(x: int) -> str:
    return await a(x) + await b(x)


def loop(bound: int) -> Callable[[], Any]:
    async def looping() -> list[str]:
        return [*[await a(x) for x in range(bound)], await stop()]

    return looping


def flipped(flag: bool) -> Callable[[], Any]:
    async def choosing() -> list[str]:
        return [await a(1) if flag else await b(1), await stop()]

    return choosing


def helped(by: Callable[[int], int]) -> Callable[[], Any]:
    async def asking() -> list[str]:
        return [await a(by(1)), await b(2), await stop()]

    return asking


class Edit(NamedTuple):
    """What a salvage executes and keeps; a restart executes both."""

    name: str
    before: Callable[[], Any]
    after: Callable[[], Any]
    executed: list[str]
    kept: list[str]
    left: int = 0  # results that nobody asks for any more


EDITS = [
    Edit("unchanged", plain, plain, [], ["a1", "b2", "c3"]),
    Edit("inserted", plain, inserted, ["b0"], ["a1", "b2", "c3"]),
    Edit("removed", plain, removed, [], ["a1", "c3"], left=1),
    Edit("renamed", plain, a_step_renamed, ["renamed2"], ["a1", "c3"], left=1),
    Edit("reordered", plain, reordered, [], ["c3", "b2", "a1"]),
    Edit("inputs changed", plain, other_inputs, ["b7"], ["a1", "c3"], left=1),
    Edit("loop longer", loop(3), loop(5), ["a3", "a4"], ["a0", "a1", "a2"]),
    Edit("loop shorter", loop(3), loop(2), [], ["a0", "a1"], left=1),
    Edit("branch flipped", flipped(True), flipped(False), ["b1"], [], left=1),
    Edit("helper changed", helped(lambda x: x), helped(lambda x: x + 1), ["a2"], ["b2"], left=1),
    Edit("tasks swapped", at_once, swapped, [], ["a1", "a2", "b1", "b2"]),
    Edit("moved to a task, with arguments", at_once, loop(2), ["a0"], ["a1"], left=3),
    Edit("moved to a task, without arguments", without_inputs, without_inputs_in_a_task, ["bare"], ["bare"], left=1),
]
each_edit = pytest.mark.parametrize("edit_", EDITS, ids=[each.name for each in EDITS])


@each_edit
def test_a_salvage_keeps_what_still_holds(url: str, edit_: Edit) -> None:
    edited = edit(url, edit_.before, edit_.after)
    assert edited.error is None, edited.error
    assert sorted(edited.executed) == sorted(edit_.executed)
    assert sorted(edited.kept) == sorted(edit_.kept)
    assert edited.result[-1] == "stop" and edited.run.status == "done" and edited.run.version == "2"
    began = [line for line in edited.log if "salvage" in line]
    assert len(began) == 1 and "version '1' of 'edited', and this is version '2'" in began[0]
    told = f"steps: {len(edit_.executed) + 1} executed, 0 recalled, {len(edit_.kept)} kept from other versions"
    ended = next(line for line in edited.log if "done; " in line)
    assert told in ended and ("never asked for" in ended) == bool(edit_.left)
    if edit_.left:
        assert f"never asked for: {edit_.left} result" in ended


@each_edit
def test_a_restart_executes_everything_anew(url: str, edit_: Edit) -> None:
    edited = edit(url, edit_.before, edit_.after, on_change="restart")
    assert edited.error is None, edited.error
    assert edited.kept == []
    assert len(edited.executed) == len(edited.result) - 1 or edit_.before is at_once
    assert [row.status for row in edited.rows if row.kind == "version"] == ["restart"]
    assert any("restart; from the top, 0 results of once steps" in line for line in edited.log)


@each_edit
def test_a_refusal_changes_nothing(url: str, edit_: Edit) -> None:
    edited = edit(url, edit_.before, edit_.after, on_change="refuse")
    assert isinstance(edited.error, VersionMismatch) and "version '1'" in str(edited.error)
    assert edited.executed == edited.kept == []
    assert edited.run.version == "1" and edited.run.status == "failed"
    assert "version" not in {row.kind for row in edited.rows}


@pytest.mark.parametrize("on_change", ["salvage", "restart", "refuse"])
def test_a_change_that_the_version_does_not_tell_of_diverges(url: str, on_change: str) -> None:
    """A helper is no part of the workflow's version, so this is the same version to all three."""
    edited = edit(url, helped(lambda x: x), helped(lambda x: x + 1), on_change=on_change, version=1)
    assert isinstance(edited.error, Diverged) and "recorded 1, now 2" in str(edited.error)
    assert edited.executed == [] and edited.run.status == "parked"


# -- a result whose type has grown ---------------------------------------------------------------------------


@dataclass
class Report:
    pages: int


Report.__qualname__ = "Report"
before_it_grew = Report


@step(name="report")
async def report() -> before_it_grew:
    did.append("report")
    return before_it_grew(3)


async def reporting() -> Any:
    return [(await report()).__dict__, await stop()]


@dataclass
class Grown:
    pages: int
    words: int


Grown.__qualname__ = "Report"


def grown(**options: Any) -> Callable[[], Any]:
    @step(name="report", **options)
    async def report() -> Grown:
        did.append("report")
        return Grown(3, 1000)

    async def reporting() -> Any:
        return [(await report()).__dict__, await stop()]

    return reporting


def from_plain(old: Any) -> Grown:
    return Grown(old["pages"], 7)


def test_a_grown_result_is_never_taken_for_what_it_was(url: str) -> None:
    edited = edit(url, reporting, grown())
    assert isinstance(edited.error, CodecError) and "fields new ['words']" in str(edited.error)
    assert edited.executed == [] and edited.run.status == "parked"


def test_a_grown_result_of_another_step_version_is_made_anew(url: str) -> None:
    edited = edit(url, reporting, grown(version=2))
    assert (edited.executed, edited.kept) == (["report"], [])
    assert edited.result[0] == {"pages": 3, "words": 1000}


@pytest.mark.parametrize(("on_change", "executed", "words"), [("salvage", [], 7), ("restart", ["report"], 1000)])
def test_a_grown_result_is_upgraded(url: str, on_change: str, executed: list[str], words: int) -> None:
    edited = edit(url, reporting, grown(version=2, upgrade={"": from_plain}), on_change=on_change)
    assert edited.error is None, edited.error
    assert (edited.executed, edited.result[0]) == (executed, {"pages": 3, "words": words})


# -- on PostgreSQL -------------------------------------------------------------------------------------------


@pytest.fixture
def shared(postgres_url: str) -> Iterator[str]:
    yield postgres_url


def test_a_salvage_and_a_restart_on_postgresql(shared: str) -> None:
    edited = edit(shared, plain, inserted)
    assert (edited.executed, sorted(edited.kept), edited.run.version) == (["b0"], ["a1", "b2", "c3"], "2")
    with holdfast.open(shared) as hf:
        row = hf._store.get("x")
        assert row is not None and flaw_of_run(row) is None
