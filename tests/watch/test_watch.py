"""``hf.watch``, ``holdfast.emit`` and ``holdfast.progress``: what is seen, in which order, and what it costs whom."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import (
    Checkpoint,
    CodecError,
    Emitted,
    Event,
    Fenced,
    Holdfast,
    HoldfastError,
    NotFound,
    Progress,
    Skipped,
    StepFailed,
    step,
    workflow,
)
from holdfast.errors import StoreError
from holdfast.news import CHUNK_MAX_BYTES
from holdfast.store import News, open_store
from holdfast.testing.store_suite import create
from holdfast.watching import LOOK_EVERY_S, Watcher

PATIENCE_S = 30


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else str(tmp_path / "jobs.db")


def seen(event: Event) -> object:
    """An event in a word: the number of a checkpoint, a chunk, or how far a bar is."""
    match event:
        case Checkpoint():
            return event.seq
        case Emitted():
            return event.chunk
        case Progress():
            return f"{event.done}/{event.total}"
        case Skipped():
            return event


async def watched(hf: Holdfast, id: str, after: int = 0) -> list[Event]:
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in hf.watch(id, after=after)]


# -- what is seen --------------------------------------------------------------------------------------------


@step
async def count(to: int) -> int:
    for number in range(to):
        holdfast.emit(f"{to}:{number}")
    holdfast.progress(to, to)
    return to


@step
def count_in_thread(to: int) -> int:
    for number in range(to):
        holdfast.emit({"thread": number})
    return to


@workflow(version="1")
async def counting() -> int:
    holdfast.emit("body")
    total = await count(1) + await count(2)
    holdfast.progress(1, 2)
    return total + await asyncio.to_thread(count_in_thread, 2)


COUNTED = ["body", "1:0", "1/1", 1, "2:0", "2:1", "2/2", 2, "1/2", {"thread": 0}, {"thread": 1}, 3]


def test_checkpoints_and_news_come_in_the_order_of_happening(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.start(counting(), id="a")
            events = await watched(hf, "a")
            assert [seen(event) for event in events] == COUNTED
            assert [event for event in events if isinstance(event, Checkpoint)] == await hf.history("a")
            assert [seen(event) for event in await watched(hf, "a", after=2)] == COUNTED[8:], "kept for a while"
            assert [seen(event) for event in await watched(hf, "a", after=3)] == []

    asyncio.run(program())


def test_news_say_whose_they_are(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.run(counting(), id="a")
            body, one, bar, checkpoint, *_ = await watched(hf, "a")
            assert body == Emitted("counting", "", "body", after=0, attempt=1, epoch=1, number=1)
            assert one == Emitted("count", "count#0", "1:0", after=0, attempt=1, epoch=1, number=2)
            assert bar == Progress("count", "count#0", 1, 1, after=0, attempt=1, epoch=1, number=3)
            assert isinstance(checkpoint, Checkpoint) and checkpoint.place == "count#0"

    asyncio.run(program())


tries: list[int] = []


@step(attempts=2, backoff=0.01)
async def second_time_lucky() -> None:
    tries.append(1)
    holdfast.emit("said")
    if len(tries) == 1:
        raise ConnectionError("busy")


@workflow(version="1")
async def lucky() -> None:
    await second_time_lucky()


def test_another_attempt_tells_under_its_own_number(url: str) -> None:
    async def program() -> None:
        tries.clear()
        async with holdfast.open(url) as hf:
            await hf.run(lucky(), id="a")
            first, second, _ = await watched(hf, "a")
            assert isinstance(first, Emitted) and isinstance(second, Emitted)
            assert (first.attempt, second.attempt) == (1, 2) and first.place == second.place

    asyncio.run(program())


@step
async def wait_for_file(path: str) -> None:
    holdfast.emit("waiting")
    while not Path(path).exists():
        await asyncio.sleep(0.005)
    holdfast.emit("over")


@workflow(version="1")
async def waiting(path: str, *, fail: bool = False) -> None:
    await count(1)
    await wait_for_file(path)
    if fail:
        raise LookupError("no such account")


def test_a_watcher_goes_on_where_another_left_off(url: str, tmp_path: Path) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.start(waiting(str(tmp_path / "go")), id="a")
            before: list[object] = []
            async with asyncio.timeout(PATIENCE_S), aclosing(hf.watch("a")) as events:
                async for event in events:
                    before.append(seen(event))
                    if event == Emitted("wait_for_file", "wait_for_file#0", "waiting", 1, 1, 1, 3):
                        break
            assert before == ["1:0", "1/1", 1, "waiting"]
            (tmp_path / "go").touch()
            assert [seen(event) for event in await watched(hf, "a", after=1)] == ["waiting", "over", 2]

    asyncio.run(program())


def test_who_lost_the_run_is_not_heard(url: str, tmp_path: Path) -> None:
    async def program() -> None:
        store = open_store(url)
        async with holdfast.open(url) as hf:
            run = await hf.start(waiting(str(tmp_path / "go")), id="a")
            heard: list[object] = []
            async with asyncio.timeout(PATIENCE_S):
                async for event in hf.watch("a"):
                    heard.append(seen(event))
                    if heard[-1] == "waiting":
                        row = store.get("a")
                        assert row is not None and store.claim(row.no, 1, owner="here|1|1|1", ttl_ms=60_000, lost=None)
                        (tmp_path / "go").touch()
                        with pytest.raises(Fenced):
                            await hf.run(waiting(str(tmp_path / "go")), id="a")
                        store.cancel("a")
            assert heard == ["1:0", "1/1", 1, "waiting"]
            assert (await hf.get(run.id)).status == "cancelled"
        store.close()

    asyncio.run(program())


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_a_watch_ends_with_the_run(url: str, tmp_path: Path, end: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            run = await hf.start(waiting(str(tmp_path / "go"), fail=end == "failed"), id="a")
            watching = asyncio.create_task(watched(hf, "a"))
            await asyncio.sleep(0.01)
            if end == "cancelled":
                await hf.cancel("a")
            (tmp_path / "go").touch()
            events = await watching
            assert (await hf.get("a")).status == end
            assert [event.seq for event in events if isinstance(event, Checkpoint)] == [
                each.seq for each in await hf.history("a")
            ]
            if end == "failed":
                with pytest.raises(StepFailed):
                    await run.wait()

    asyncio.run(program())


def test_a_run_that_is_not_there(url: str) -> None:
    async def program() -> None:
        hf = holdfast.open(url)
        with pytest.raises(NotFound, match="there is no run 'nobody'"):
            await watched(hf, "nobody")
        await hf.aclose()
        with pytest.raises(HoldfastError, match="closed"):
            await watched(hf, "nobody")

    asyncio.run(program())


def test_a_broken_off_watch_leaves_nothing(url: str, tmp_path: Path) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.start(waiting(str(tmp_path / "go")), id="a")
            await anext(hf.watch("a"))
            tasks, threads = len(asyncio.all_tasks()), threading.active_count()
            for _ in range(50):
                async for _ in hf.watch("a"):
                    break
            async with asyncio.timeout(10):
                # A generator that was dropped is closed by the loop when it comes to it, a thread's question first.
                while [each for each in gc.get_objects() if isinstance(each, Watcher)]:
                    gc.collect()
                    await asyncio.sleep(0.01)
            assert len(asyncio.all_tasks()) <= tasks
            assert threading.active_count() <= threads + 1
            (tmp_path / "go").touch()
            await watched(hf, "a")

    asyncio.run(program())


# -- outside, and what cannot be told ------------------------------------------------------------------------


def test_outside_a_run_nothing_happens() -> None:
    holdfast.emit("nobody hears")
    holdfast.progress(1, 2)

    async def program() -> None:
        assert await count(3) == 3

    asyncio.run(program())
    assert count_in_thread(2) == 2


@step
async def emit_it(size: int) -> str:
    try:
        holdfast.emit("x" * size if size else object())
    except CodecError as error:
        return str(error)
    return ""


@workflow(version="1")
async def emitting(size: int) -> str:
    return await emit_it(size)


def test_a_chunk_has_a_limit_and_must_be_storable(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            assert await hf.run(emitting(CHUNK_MAX_BYTES - 5), id="fits") == ""
            told = await hf.run(emitting(CHUNK_MAX_BYTES), id="big")
            assert "takes 65541 bytes, and a chunk at most 65536: emit it in parts" in told
            assert "holdfast.emit()" in await hf.run(emitting(0), id="object")

    asyncio.run(program())


def test_progress_takes_numbers() -> None:
    for done, total in (("1", 2), (1, None), (True, 2)):
        with pytest.raises(TypeError, match="two numbers"):
            holdfast.progress(done, total)  # type: ignore[arg-type]


@step
async def count_atoms() -> None:
    holdfast.progress(10**30, 10**80)
    holdfast.progress(float("nan"), float("inf"))
    await asyncio.sleep(0.1)
    holdfast.progress(10**30, 10**80)


@workflow(version="1")
async def counting_atoms() -> None:
    await count_atoms()


def test_numbers_of_any_size(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            await hf.run(counting_atoms(), id="a")
            *_, last, checkpoint = await watched(hf, "a")
            assert isinstance(last, Progress) and (last.done, last.total) == (1e30, 1e80)
            assert isinstance(checkpoint, Checkpoint)

    asyncio.run(program())
    assert "dropped" not in caplog.text


# -- what it costs, and whom ---------------------------------------------------------------------------------


class Telling:
    """Any store, whose news go through the test's hands."""

    def __init__(self, url: str, error: Exception | None = None) -> None:
        self.store, self.error = open_store(url), error
        self.told: list[News] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def tell(self, news: list[News]) -> None:
        self.told += news
        if self.error is not None:
            raise self.error
        self.store.tell(news)


quiet_please = threading.Event()  # set: who talks falls silent after the first chunk


@step
async def chatter(chunks: int, size: int) -> int:
    for number in range(chunks):
        holdfast.emit([number, "x" * size])
        if number % 100 == 99:
            await asyncio.sleep(0.001)  # time for whoever would write each of them
        while quiet_please.is_set():
            await asyncio.sleep(0.001)
    return chunks


@workflow(version="1")
async def chattering(chunks: int, size: int) -> int:
    return await chatter(chunks, size)


def test_ten_thousand_chunks_take_few_writes_and_all_arrive(url: str) -> None:
    async def program() -> None:
        store: Any = Telling(url)
        async with Holdfast(store) as hf:
            began = asyncio.get_running_loop().time()
            await hf.start(chattering(10_000, 10), id="a")
            events = await watched(hf, "a")
            took = asyncio.get_running_loop().time() - began
            assert [event.chunk[0] for event in events if isinstance(event, Emitted)] == list(range(10_000))
            assert not any(isinstance(event, Skipped) for event in events)
            assert sum(row.count for row in store.told) == 10_000
            assert len(store.told) <= 2 + took / 0.05, "at most every 50 ms, and before the checkpoint"

    asyncio.run(program())


def test_a_watcher_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed(url: str) -> None:
    chunks, size = 1500, 16_000  # 24 MB

    async def program() -> None:
        store: Any = Telling(url)
        async with Holdfast(store) as hf:
            quiet_please.set()
            run = await hf.start(chattering(chunks, size), id="a")
            watching: AsyncIterator[Event] = hf.watch("a")
            async with asyncio.timeout(PATIENCE_S):
                first = await anext(watching)
                quiet_please.clear()
                assert await run.wait() == chunks
                kept = sum(len(row.data) for row in store.news(1))
                rest = [event async for event in watching]
            assert kept < 10 << 20
            assert isinstance(first, Emitted) and first.chunk[0] == 0
            # Nothing is doubled, nothing is out of order, and what is missing was counted.
            expected = 1
            for event in rest[:-1]:
                if isinstance(event, Skipped):
                    expected += event.count
                else:
                    assert isinstance(event, Emitted) and event.chunk[0] == expected
                    expected += 1
            assert expected == chunks and seen(rest[-1]) == 1
            assert any(isinstance(event, Skipped) for event in rest)

    asyncio.run(program())


def test_news_that_cannot_be_written_are_dropped_and_the_run_goes_on(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def program() -> None:
        store: Any = Telling(url, StoreError("the disk is full"))
        async with Holdfast(store) as hf:
            with caplog.at_level(logging.WARNING, "holdfast"):
                for id in "abc":
                    assert await hf.run(counting(), id=id) == 5
            assert [seen(event) for event in await watched(hf, "c")] == [1, 2, 3]
            assert len(store.told) > 3

    asyncio.run(program())
    assert [record.getMessage() for record in caplog.records] == [
        "news of running steps cannot be written; they are dropped, and this is said once: the disk is full"
    ]


class Counting:
    """Any store, whose calls are counted."""

    def __init__(self, url: str) -> None:
        self.store, self.calls = open_store(url), Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.store, name)


def test_watchers_with_nothing_to_see_look_together_and_read_nothing(url: str) -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        store: Any = Counting(url)
        async with Holdfast(store) as hf:
            create(store.store, "a")  # its owner is nobody that would renew the lease meanwhile
            watching = [asyncio.create_task(watched(hf, "a")) for _ in range(40)]
            while store.calls["news"] < len(watching):
                await asyncio.sleep(0.01)
            before, began = store.calls.copy(), loop.time()
            while store.calls["stamp"] < before["stamp"] + 5:
                await asyncio.sleep(0.01)
            for gone in watching[:-3]:  # the one that looks for all of them is among these, again and again
                gone.cancel()
                await asyncio.sleep(0)
            quiet = store.calls - before
            assert set(quiet) == {"stamp"} and quiet["stamp"] <= 2 + (loop.time() - began) / LOOK_EVERY_S
            store.cancel("a")
            assert await asyncio.wait_for(asyncio.gather(*watching[-3:]), 10) == [[], [], []]

    asyncio.run(program())


def test_a_run_that_tells_nothing_never_touches_the_news(url: str, tmp_path: Path) -> None:
    async def program() -> None:
        store: Any = Telling(url)
        async with Holdfast(store) as hf:
            assert await hf.run(quiet(20), id="a") == 190
            assert store.told == []

    asyncio.run(program())


@step
async def same(number: int) -> int:
    return number


@workflow(version="1")
async def quiet(to: int) -> int:
    return sum([await same(number) for number in range(to)])
