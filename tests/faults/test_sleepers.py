"""Processes that are stopped past their leases, or cut off from the store for as long, and go on as if nothing was."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.processes import Scene
from tests.servers.proxy import Proxy

import holdfast
from holdfast import Fenced, step, workflow
from holdfast.lease import owner_name
from holdfast.store import open_store

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


begun: list[str] = []


@step
async def noted(what: str, seconds: float) -> str:
    begun.append(what)
    await asyncio.sleep(seconds)
    return what


@workflow(version="1")
async def early_and_late() -> list[str]:
    async def later() -> str:
        await asyncio.sleep(1.5)
        return await noted("late", 0)

    return await asyncio.gather(noted("early", 60), later())


def test_who_is_cut_off_begins_no_step_when_its_lease_is_over(proxy: Proxy, detour: str, url: str) -> None:
    """Whether it was taken over or not: it cannot know."""

    def take_over() -> None:
        store = open_store(url)
        row = store.get("job")
        assert row is not None and row.lease_until_ms < store.now_ms()
        assert store.claim(row.no, row.epoch, owner=owner_name(), ttl_ms=60_000, lost="lapsed") is not None
        store.close()

    async def cut_off() -> None:
        async with holdfast.open(detour, lease=1) as hf:
            run = asyncio.ensure_future(hf.run(early_and_late(), id="job"))
            while not begun:
                await asyncio.sleep(0.01)
            proxy.pause()
            await asyncio.sleep(2.5)
            assert begun == ["early"]
            await asyncio.to_thread(take_over)
            proxy.resume()
            with pytest.raises(Fenced):
                await run

    begun.clear()
    asyncio.run(cut_off())
    assert begun == ["early"]


def _done_by_b(scene: Scene) -> None:
    scene.release(3, "b")
    assert scene.ended(scene.started[-1]) == "result 14"
    assert not any(line in scene.ledger() for line in ("a began job 2", "a began job 3"))
    row, rows = scene.rows()
    assert (row.status, row.deaths, row.epoch) == ("done", 1, 2)
    steps = [(each.seq, each.epoch) for each in rows if each.kind == "step"]
    assert steps == [(1, 1), (2, 2), (3, 2), (4, 2)]
