"""Tools whose function is a step of holdfast's that must happen once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from adk_lives import Scene

import holdfast
from holdfast import Checkpoint

pytestmark = pytest.mark.crash
Make = Callable[..., Scene]


async def _doubt(scene: Scene, **resolution: object) -> Checkpoint:
    async with holdfast.open(scene.env["HOLDFAST_DB"]) as hf:
        (run,) = await hf.runs(status="in_doubt")
        (doubt,) = [row for row in await hf.history(run.id) if row.status == "intent"]
        await hf.resolve(run.id, doubt.seq, **resolution)  # type: ignore[arg-type]
        return doubt


@pytest.mark.parametrize("at", ["3", "4"])
def test_a_payment_in_flight_is_in_doubt(scene: Make, at: str) -> None:
    cut = scene("once")
    assert cut.live(DIE_AT=at) == [-9]
    before = cut.begun()
    for _ in range(2):
        assert cut.live("resume") == [0]
    assert [each[:9] for each in cut.told("raised")] == ["InDoubt: "] * 2 and cut.begun() == before
    assert asyncio.run(_doubt(cut, result={"paid": "A"})).name == "pay"
    assert cut.live("resume") == [0]
    assert cut.begun()["tool pay A"] == before["tool pay A"] and cut.begun()["tool pay B"] == 1
    assert cut.told("said")[-1] == "payer: payer is done"


def test_a_payment_that_did_not_happen_is_made_again(scene: Make) -> None:
    cut = scene("once")
    assert cut.live(DIE_AT="4") == [-9] and cut.live("resume") == [0]
    asyncio.run(_doubt(cut, retry=True))
    assert cut.live("resume") == [0]
    assert cut.begun()["tool pay A"] == 2 and cut.begun()["tool pay B"] == 1
    first, again, other = cut.told("key")
    assert first == again and other.removeprefix("B ") != first.removeprefix("A ")


def test_a_refused_payment_is_no_doubt(scene: Make) -> None:
    cut = scene("once")
    assert cut.live(NO_ACCOUNT="1") == [0]
    assert cut.told("raised")[0].startswith("LookupError: ")
    assert cut.live("resume") == [0] and cut.told("raised")[1:] == []
    assert cut.begun()["tool pay A"] == 2 and cut.told("said")[-1] == "payer: payer is done"


def test_a_restart_keeps_what_must_happen_once(scene: Make) -> None:
    cut = scene("once", VERSION="1")
    assert cut.live(DIE_AT="6") == [-9]
    assert cut.live("resume", VERSION="2") == [0]
    assert cut.begun()["tool pay A"] == 1 and cut.begun()["model payer 1 -"] == 2


def test_a_restart_does_not_go_past_a_doubt(scene: Make) -> None:
    cut = scene("once", VERSION="1")
    assert cut.live(DIE_AT="4") == [-9]
    assert cut.live("resume", VERSION="2") == [0] and cut.told("raised")[0].startswith("InDoubt: ")
    assert cut.begun()["tool pay A"] == 1
    asyncio.run(_doubt(cut, result={"paid": "A"}))
    assert cut.live("resume", VERSION="2") == [0]
    assert cut.begun()["tool pay A"] == 1 and cut.begun()["tool pay B"] == 1
    assert cut.told("said")[-1] == "payer: payer is done"
