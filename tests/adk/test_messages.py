"""Which invocation a message belongs to, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from adk_lives import Scene

pytestmark = pytest.mark.crash
Make = Callable[..., Scene]


def test_the_same_message_again_goes_on(scene: Make) -> None:
    cut = scene("sequence")
    assert cut.live(DIE_AT="5") == [-9]
    assert cut.live("start") == [0]
    assert cut.begun()["model a1 1 -"] == cut.begun()["tool fetch one"] == 1
    assert cut.live("start") == [0]  # it is done: now it is asked for once more
    assert cut.begun()["model a1 1 -"] == 2


def test_another_message_begins_anew(scene: Make) -> None:
    cut = scene("sequence")
    assert cut.live(DIE_AT="5") == [-9]
    assert cut.live("start", SAID="something else") == [0]
    assert cut.begun()["model a1 1 -"] == 2


def test_another_message_for_an_unfinished_invocation_is_refused(scene: Make) -> None:
    cut = scene("sequence")
    assert cut.live(DIE_AT="5") == [-9]
    before = cut.begun()
    assert cut.live("id", SAID="something else") == [0]
    assert cut.told("raised")[0].startswith("Mismatch: invocation ") and cut.begun() == before
    assert cut.live("id") == [0]  # the same message
    assert cut.told("said")[-1] == "a3: a3 is done" and cut.begun()["model a1 1 -"] == 1


def test_nothing_is_unfinished(scene: Make) -> None:
    done = scene("parallel_calls")
    assert done.live() == [0]
    before = done.begun()
    assert done.live("resume") == [0]
    assert done.told("raised")[0].startswith("NotFound: session 's' of user 'u' in app 'app' has no unfinished")
    assert done.live("id") == [0] and done.told("raised")[1].startswith("Mismatch: ")
    assert done.begun() == before


def test_a_confirmation_is_asked_for_and_answered(scene: Make) -> None:
    """The run waits for it. What is behind the answer is gone through again by itself, with the answer."""
    asked = scene("confirmed")
    assert asked.live() == [0]
    assert "tool pay A" not in asked.begun() and asked.told("raised") == []
    before = asked.begun()
    assert asked.live("resume") == [0] and asked.told("raised")[0].startswith("NotFound: ")
    assert asked.live("answer", DIE_AT="3") == [-9]  # it is paid, and the model is asked
    assert asked.recorded()["tool pay"] == 1
    assert asked.live("resume") == [0]
    assert asked.begun()["tool pay A"] == 1 and asked.begun()["tool write three"] == 1, asked.ledger
    assert {call: times for call, times in asked.begun().items() if call in before} == before
    assert asked.told("said")[-1] == "careful: careful is done"


def test_a_confirmation_is_asked_for_by_a_turn_that_was_cut_short(scene: Make) -> None:
    asked = scene("confirmed")
    assert asked.live(DIE_AT="5") == [-9]
    assert asked.live("resume") == [0] and "tool pay A" not in asked.begun()
    assert asked.live("answer") == [0]
    assert asked.begun()["tool pay A"] == 1 and asked.told("said")[-1] == "careful: careful is done"
