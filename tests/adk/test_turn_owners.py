"""One owner an invocation: the other one is told before anything begins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from adk_lives import Scene, race_is_wrong

pytestmark = pytest.mark.crash
Make = Callable[..., Scene]


@pytest.mark.parametrize(("service", "at"), [("adk", "3"), ("holdfast", "7")])
def test_two_processes_resume_at_once(scene: Make, service: str, at: str) -> None:
    whole, cut = (scene("parallel_calls", SERVICE=service) for _ in range(2))
    assert whole.live() == [0] and cut.live(DIE_AT=at) == [-9]
    recorded = cut.recorded()
    assert cut.live("resume", beside=2) == [0, 0], cut.errors
    assert race_is_wrong(cut, whole, recorded) == []


def test_one_that_slept_past_its_lease_begins_nothing_more(scene: Make) -> None:
    slept = scene("sequence", LEASE="1")
    assert slept.outlived(3, wait_s=1.5) == [0, 0], slept.errors  # about to begin its first tool
    assert [each.partition(":")[0] for each in slept.told("raised")] == ["Fenced"]
    assert slept.begun()["tool fetch one"] == 2  # its own, which it had begun, and that of the other one
    assert max(times for call, times in slept.begun().items() if call != "tool fetch one") == 1
    assert sorted(slept.told("said")) == ["a1: a1 is done", "a2: a2 is done", "a3: a3 is done"]
