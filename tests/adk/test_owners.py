"""One owner an invocation: the other one is told before anything begins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lives import Scene, race_is_wrong

pytestmark = pytest.mark.crash
Make = Callable[..., Scene]


@pytest.mark.parametrize("service", ["adk", "holdfast"])
def test_two_processes_resume_at_once(scene: Make, service: str) -> None:
    for at in ("3", "5", "8"):
        cut = scene("parallel_calls", SERVICE=service)
        assert cut.live(DIE_AT=at) == [9]
        recorded = cut.recorded()
        assert cut.live("resume", beside=2) == [0, 0], cut.errors
        assert race_is_wrong(cut, recorded) == []
