"""An invocation that was cut short is gone through again, and nothing that was finished is done again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from adk_lives import Scene, by_kind, wrong_with

pytestmark = pytest.mark.crash
SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))
Make = Callable[..., Scene]


@pytest.mark.parametrize("name", ["parallel_calls", "agent_node", "fan_out", "transfer", "as_tool"])
def test_cut_short_anywhere(scene: Make, name: str) -> None:
    """At a point drawn from the seed, over ADK's sessions or ours: what the whole does, it does once."""
    print(f"HOLDFAST_SEED={SEED} draws the same point again")
    chance = random.Random(f"{SEED} {name}")
    service = chance.choice(["adk", "holdfast"])
    whole = scene(name, SERVICE=service)
    assert whole.live() == [0], whole.errors
    points = sum(line.startswith(("begin ", "end ")) for line in whole.ledger)
    cut = scene(name, SERVICE=service)
    at = chance.randint(1, points)
    assert cut.live(DIE_AT=str(at)) == [-9], cut.errors
    recorded = cut.recorded()
    assert cut.live("resume") == [0], cut.errors
    assert wrong_with(cut, whole, recorded) == [], f"point {at}"


@pytest.mark.parametrize("name", ["progress", "progress_rerun"])
def test_what_yielded_and_died_is_not_finished(scene: Make, name: str) -> None:
    cut = scene(name)
    assert cut.live(DIE_AT="1") == [-9]  # "progress" is stored, and the work has not begun
    assert cut.live("resume") == [0]
    assert cut.begun() == {"node worker": 1, "node final with worked": 1}


def test_a_node_that_returned_nothing_is_finished(scene: Make) -> None:
    cut = scene("nothing")
    assert cut.live(DIE_AT="3") == [-9]
    assert cut.live("resume") == [0]
    assert cut.begun() == {"node silent": 1, "node final": 1}


def test_a_parallel_call_that_was_finished_is_recalled_with_its_state(scene: Make) -> None:
    cut = scene("parallel_calls")
    assert cut.live(DIE_AT="8") == [-9]  # x and y have returned, z has not
    assert cut.recorded()["tool fetch"] == 2
    assert cut.live("resume") == [0]
    assert cut.begun()["tool fetch x"] == cut.begun()["tool fetch y"] == 1 and cut.begun()["tool fetch z"] == 2
    assert cut.told("state")[-1] == "[('fetchx', 'done'), ('fetchy', 'done'), ('fetchz', 'done')]"


def test_the_history_of_an_agent_in_a_graph_is_whole(scene: Make) -> None:
    cut = scene("agent_node")
    assert cut.live(DIE_AT="11") == [-9]  # in its third tool
    assert cut.live("resume") == [0]
    assert "model inner 7 fetch,check,write" in cut.begun() and max(cut.begun().values()) <= 2


def test_the_own_code_of_an_agent_runs_again_and_state_does_not_go_back(scene: Make) -> None:
    cut = scene("custom")
    assert cut.live(DIE_AT="7") == [-9]
    assert cut.live("resume") == [0]
    assert cut.begun()["step 3"] == 1 and cut.told("state")[-1] == "[('fetch', 'done'), ('seen', 2), ('step', 3)]"
    whole = scene("custom")
    assert whole.live() == [0] and whole.told("events") == cut.told("events")


def test_a_death_between_two_resumes(scene: Make) -> None:
    cut = scene("mixed")
    lives = 0
    while cut.live("start" if not lives else "resume", DIE_AT=str(8 + lives % 3)) != [0]:
        lives += 1
        assert lives < 20, cut.errors
    assert lives > 2
    assert by_kind(cut.begun())["model turn"] <= 6 + lives


def test_streams_are_recalled_whole(scene: Make) -> None:
    cut = scene("sequence", STREAM="1")
    assert cut.live(DIE_AT="4") == [-9]
    assert cut.live("resume") == [0]
    assert cut.begun()["model a1 1 -"] == 1 and cut.told("said")[-1] == "a3: a3 is done"


def test_an_instruction_that_tells_the_time_costs_nothing_twice(scene: Make) -> None:
    cut = scene("told_the_time")
    assert cut.live(DIE_AT="7") == [-9]
    assert cut.live("resume") == [0]
    assert cut.begun()["model clock 1 -"] == cut.begun()["model clock 3 fetch"] == 1


def test_what_was_yielded_before_is_not_yielded_again(scene: Make) -> None:
    cut = scene("sequence")
    assert cut.live(DIE_AT="19") == [-9]
    assert cut.live("resume") == [0]
    assert sorted(cut.told("said")) == ["a1: a1 is done", "a2: a2 is done", "a3: a3 is done"]


def test_a_window_of_events_does_not_break_the_resume(scene: Make) -> None:
    cut = scene("sequence", WINDOW="2")
    assert cut.live(DIE_AT="13") == [-9]
    assert cut.live("resume") == [0]
    assert cut.told("said")[-1] == "a3: a3 is done" and cut.told("raised") == []
