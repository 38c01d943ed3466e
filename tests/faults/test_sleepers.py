"""Processes that are stopped past their leases, or cut off from the store for as long, and go on as if nothing was."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.processes import Scene
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.crash


@pytest.fixture
def scene(tmp_path: Path, url: str) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    scene.db = url
    yield scene
    scene.end_all()


@pytest.mark.parametrize("finishes", [False, True], ids=["step in flight", "step finished"])
def test_a_sleeper_says_that_it_was_fenced_and_does_no_harm(scene: Scene, finishes: bool) -> None:
    scene.hold(1, "a")
    scene.hold(3, "b")
    sleeper = scene.start("a", lease=1)
    scene.has("a began job 1")
    sleeper.send_signal(signal.SIGSTOP)
    scene.start("b")
    scene.has("b began job 3")
    if finishes:
        scene.release(1, "a")
    sleeper.send_signal(signal.SIGCONT)
    assert scene.ended(sleeper, status=3).startswith("error Fenced run 'job' was taken over by")
    _done_by_b(scene)


def test_who_is_cut_off_from_the_store_begins_no_step_and_is_fenced(scene: Scene, proxy: Proxy, detour: str) -> None:
    """Its process is alive and at work all the time; only the network is gone."""
    scene.hold(1, "a")
    scene.hold(3, "b")
    scene.db, url = detour, scene.db
    lonely = scene.start("a", lease=1)
    scene.has("a began job 1")
    proxy.pause()
    scene.db = url
    scene.start("b")
    scene.has("b began job 3")
    scene.release(1, "a")
    proxy.resume()
    assert scene.ended(lonely, status=3).startswith("error Fenced run 'job' was taken over by")
    _done_by_b(scene)


def _done_by_b(scene: Scene) -> None:
    scene.release(3, "b")
    assert scene.ended(scene.started[-1]) == "result 14"
    assert not any(line in scene.ledger() for line in ("a began job 2", "a began job 3"))
    row, rows = scene.rows()
    assert (row.status, row.deaths, row.epoch) == ("done", 1, 2)
    steps = [(each.seq, each.epoch) for each in rows if each.kind == "step"]
    assert steps == [(1, 1), (2, 2), (3, 2), (4, 2)]
