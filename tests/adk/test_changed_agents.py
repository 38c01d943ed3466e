"""Agents that were renamed or inserted, another version, other inputs of dynamic nodes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from adk_lives import Scene, by_kind

pytestmark = pytest.mark.crash
Make = Callable[..., Scene]


def _cut(scene: Make, **env: str) -> Scene:
    """a1 is finished, and a2 has asked its model."""
    cut = scene("renamed", **env)
    assert cut.live(DIE_AT="9") == [-9]
    assert cut.recorded()["model a2"] == 1
    return cut


@pytest.mark.parametrize("names", ["a1,b2", "a0,a1,a2"])
def test_other_agents_begin_anew(scene: Make, names: str) -> None:
    cut = _cut(scene)
    assert cut.live("resume", NAMES=names) == [0]
    assert cut.begun()["model a1 1 -"] == 2 and cut.told("raised") == []
    assert {f"tool fetch {name}" for name in names.split(",")} <= set(cut.begun())


@pytest.mark.parametrize(("names", "asked"), [("a1,b2", 2), ("a0,a1,a2", 4)])
def test_other_agents_keep_what_still_fits(scene: Make, names: str, asked: int) -> None:
    """With one before it, a1's model is asked something else; its tool is not."""
    cut = _cut(scene)
    assert cut.live("resume", NAMES=names, ON_CHANGE="salvage") == [0]
    assert by_kind(cut.begun())["model a1"] == asked and cut.begun()["tool fetch a1"] == 1
    assert {f"tool fetch {name}" for name in names.split(",")} <= set(cut.begun())


def test_other_agents_are_refused(scene: Make) -> None:
    cut = _cut(scene)
    before = cut.begun()
    assert cut.live("resume", NAMES="a1,b2", ON_CHANGE="refuse") == [0]
    assert cut.told("raised")[0].startswith("VersionMismatch: ") and cut.begun() == before
    assert cut.live("resume") == [0]
    assert cut.begun()["model a1 1 -"] == 1 and cut.told("said")[-1] == "a2: a2 is done"


def test_another_version_begins_anew_and_the_same_does_not(scene: Make) -> None:
    cut = _cut(scene, VERSION="1")
    assert cut.live("resume", DIE_AT="1") == [-9] and cut.begun()["model a1 1 -"] == 1
    assert cut.live("resume", VERSION="2") == [0] and cut.begun()["model a1 1 -"] == 2


@pytest.mark.parametrize(
    ("items", "again"), [("a,x,b,c", {"a": 1, "b": 1, "c": 2, "x": 1}), ("c,a", {"a": 1, "b": 1, "c": 2})]
)
def test_dynamic_nodes_are_matched_by_what_they_are_given(scene: Make, items: str, again: dict[str, int]) -> None:
    cut = scene("dynamic")
    assert cut.live(DIE_AT="6") == [-9]  # a and b are through, c has begun
    assert cut.live("resume", ITEMS=items) == [0]
    assert {name: cut.begun()[f"node item {name}"] for name in again} == again
    assert f"node final with {''.join(f'<{name}>' for name in items.split(','))}" in cut.begun()
