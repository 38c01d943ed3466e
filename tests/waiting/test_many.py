"""A run that waits for thousands of things pays for each of them once, told in numbers of looks and not in seconds."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import uvloop
from test_waits import begun

import holdfast
from holdfast import Holdfast, lookout, resting, workflow
from holdfast.mailbox import Mailbox
from holdfast.resting import Looks, Rest
from holdfast.store.memory import MemoryStore

sys.path.append(str(Path(__file__).parents[1] / "worker"))

from inside import serving

MANY = 200


@workflow(version="1")
async def kid(n: int) -> int:
    return n


@workflow(version="1")
async def parent() -> int:
    hf = holdfast.current()
    return sum(await asyncio.gather(*(hf.run(kid(n), id=f"kid-{n}") for n in range(MANY))))


@workflow(version="1")
async def asking() -> list[int]:
    return list(await asyncio.gather(*(holdfast.wait_for(f"s{n}", int) for n in range(MANY))))


def test_who_waits_for_many_children_reads_those_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0.001)
    read: Counter[str] = Counter()

    class Counting(MemoryStore):
        def get(self, id: str) -> Any:
            read[id] += 1
            return super().get(id)

    store = Counting()

    async def main() -> None:
        async with serving(store, concurrency=3) as hf:
            await hf.submit(parent(), id="p")
            while (row := MemoryStore.get(store, "p")) is None or row.status != "done":
                await asyncio.sleep(0.01)
            assert row.result is not None and (await hf.get("p")).result == sum(range(MANY))

    asyncio.run(main())
    assert sum(read[f"kid-{n}"] for n in range(MANY)) <= 5 * MANY


def test_a_signal_among_many_that_are_waited_for_asks_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, first = 0, Mailbox.first

    def counted(mailbox: Mailbox, name: str) -> Any:
        nonlocal asked
        asked += 1
        return first(mailbox, name)

    monkeypatch.setattr(Mailbox, "first", counted)

    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            await hf.start(asking(), id="a")
            await begun(hf, "a")
            for n in reversed(range(MANY)):
                await hf.send("a", f"s{n}", n)
            assert await hf.run(asking(), id="a") == list(range(MANY))

    asyncio.run(main())
    assert asked <= 10 * MANY


def test_what_is_sent_to_many_is_theirs_also_after_a_resume() -> None:
    """Waits of one name, begun in an order that the resume makes them in again."""
    store = MemoryStore()

    @workflow(version="1")
    async def lines() -> list[int]:
        return list(await asyncio.gather(*(holdfast.wait_for(f"s{n % 3}", int) for n in range(30))))

    async def main() -> None:
        async with Holdfast(store) as hf:
            await hf.start(lines(), id="a")
            await begun(hf, "a")
            for n in range(10):
                await hf.send("a", f"s{n % 3}", n)
        async with Holdfast(store) as hf:
            for n in range(10, 30):
                await hf.send("a", f"s{n % 3}", n)
            assert await hf.run(lines(), id="a") == list(range(30))

    asyncio.run(main())


class _Clock:
    """A loop, as far as it is asked for its time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, then: Any, context: Any) -> Any:
        self.timers.append((self.now + seconds, then))
        return _Timer()


class _Timer:
    def cancel(self) -> None: ...


def test_a_costly_look_is_not_taken_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of 30 ms, asked for every millisecond of a second, takes a tenth of the time; a cheap one is always
    taken."""

    class Run:
        loop, stop, finished = _Clock(), None, False

        class waits:
            live = (1,)

        class delivery:
            @staticmethod
            def when_at_rest(look: Any) -> None:
                look()

    took, looked = 0.030, 0

    def rest_of(_: object) -> Rest:
        nonlocal looked
        looked += 1
        Run.loop.now += took
        return Rest.WAITS

    monkeypatch.setattr(resting, "rest_of", rest_of)
    looks: Any = Looks(Run())  # type: ignore[arg-type]
    end = Run.loop.now + 1
    while Run.loop.now < end:
        looks.ask()
        Run.loop.now += 0.001
    assert 3 <= looked <= 4 and min(at for at, _ in Run.loop.timers) <= 100.031 + 0.3
    took, looked, Run.loop.now = 0.0, 0, Run.loop.now + 1
    for _ in range(50):
        looks.ask()
    assert looked == 50


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_look_in_no_time_is_asked_for_twice(factory: Any) -> None:
    """uvloop's handle of what is due at once is no timer. What it lacked was recorded as a failure of the program's."""
    looked: list[object] = []

    async def main() -> None:
        class Run:
            loop, stop, finished = asyncio.get_running_loop(), None, False

            class waits:
                live = (1,)

            class delivery:
                when_at_rest = staticmethod(looked.append)

        looks: Any = Looks(Run())  # type: ignore[arg-type]
        looks._not_before = Run.loop.time() + 0.0004
        looks.ask()
        looks._not_before = Run.loop.time() + 0.0004
        looks.ask()
        while not looked:
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert looked
