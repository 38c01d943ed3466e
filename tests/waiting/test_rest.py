"""When a run only waits, and that it is then unloaded and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from test_waits import begun, note, until

import holdfast
from holdfast import Holdfast, branches, step, workflow
from holdfast.store import NEVER_MS
from holdfast.store.memory import MemoryStore
from holdfast.testing import FakeClock

TURNS = 400  # of the loop: a multiple of what rest takes

word = lambda: holdfast.wait_for("word", str)  # noqa: E731 - the wait that all these programs hang on
programs: dict[str, tuple[bool, Any]] = {}


def program(waits: bool) -> Callable[[Any], Any]:
    """``waits``: whether the program, left alone, only waits."""

    def add(body: Any) -> Any:
        made = workflow(version="1")(body)
        programs[body.__name__] = waits, made
        return made

    return add


async def turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@program(True)
async def alone() -> None:
    await word()


@program(True)
async def gathered() -> None:
    await asyncio.gather(word(), holdfast.sleep(9999), note("x"))


@program(True)
async def gathered_deep() -> None:
    async def one() -> None:
        await asyncio.gather(word(), holdfast.sleep(9999))

    await asyncio.gather(asyncio.gather(one(), one()), word())


@program(True)
async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(word())
        group.create_task(holdfast.sleep(9999))


@program(True)
async def queued() -> None:
    queue: asyncio.Queue[str] = asyncio.Queue(1)
    full: asyncio.Queue[int] = asyncio.Queue(1)

    async def taking() -> None:
        await queue.get()

    async def putting() -> None:
        full.put_nowait(1)
        await full.put(2)

    takers = [asyncio.create_task(taking()) for _ in range(3)]
    others = [asyncio.create_task(putting()), asyncio.create_task(full.join())]
    await queue.put(await word())
    await asyncio.gather(*takers, *others)


@program(True)
async def locked() -> None:
    lock, event, some, condition = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(1), asyncio.Condition()

    async def holding() -> None:
        async with lock, some:
            await word()
            event.set()

    async def wanting() -> None:
        async with lock:
            pass

    async def one_of_some() -> None:
        async with some:
            pass

    async def told() -> None:
        async with condition:
            await condition.wait()

    await asyncio.gather(holding(), wanting(), one_of_some(), event.wait(), told())


@program(True)
async def first_of_two() -> None:
    tasks = [asyncio.create_task(word()), asyncio.create_task(holdfast.sleep(9999))]  # type: ignore[arg-type]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


@program(True)
async def without_limit() -> None:
    await asyncio.wait_for(word(), None)


@program(True)
async def one_by_one() -> None:
    async def words() -> Any:
        for _ in range(3):
            yield await word()

    async for _ in words():
        pass


@workflow(version="1")
async def inner() -> str:
    return await word()


@program(True)
async def nested() -> None:
    await asyncio.gather(inner(), inner())


@program(True)
def plain() -> None:
    holdfast.current().wait(word())


@program(True)
async def in_a_thread() -> None:
    await asyncio.to_thread(plain_part)


def plain_part() -> None:
    holdfast.current().wait(word())


@program(False)
async def timed() -> None:
    async with asyncio.timeout(9999):
        await word()


@program(False)
async def timed_outside() -> None:
    async def inside() -> None:
        async with asyncio.timeout(9999):
            async with asyncio.TaskGroup() as group:
                group.create_task(word())

    await inside()


@program(False)
async def limited() -> None:
    await asyncio.wait_for(word(), 9999)


@program(False)
async def limited_wait() -> None:
    await asyncio.wait([asyncio.create_task(word())], timeout=9999)  # type: ignore[arg-type]


@program(False)
async def limited_completion() -> None:
    for each in asyncio.as_completed([word()], timeout=9999):
        await each


@program(False)
async def beside_a_sleep() -> None:
    await asyncio.gather(word(), asyncio.sleep(9999))


@program(False)
async def beside_a_future() -> None:
    outside: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await asyncio.gather(word(), outside)


@program(False)
async def waiting_for_outside() -> None:
    outside: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await asyncio.wait([outside, asyncio.create_task(word())])  # type: ignore[list-item, arg-type]


@step
async def for_ever() -> None:
    await asyncio.Event().wait()


@program(False)
async def beside_a_step() -> None:
    await asyncio.gather(word(), for_ever())


busy = threading.Event()


@program(False)
async def beside_a_thread() -> None:
    await asyncio.gather(word(), asyncio.to_thread(busy.wait))


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", sorted(programs))
def test_which_programs_only_wait(name: str, kind: str) -> None:
    waits, made = programs[name]
    busy.clear()

    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            await hf.start(made.bind(), id="a")
            await begun(hf, "a")
            execution = hf._live["a"]
            if waits:
                flips: list[bool] = []
                execution.waiting_changed = lambda each: flips.append(each.is_waiting)

                async def is_waiting() -> bool:
                    return execution.is_waiting

                await until(is_waiting)
                assert await execution.suspend()
                row = hf._store.get("a")
                assert row is not None and (row.status, row.owner) == ("waiting", None)
            else:
                await asyncio.sleep(0.05)  # for threads
                await turns()
                assert not execution.is_waiting and not await execution.suspend()
            busy.set()

    _on(kind, main)


def _on(kind: str, main: Callable[[], Any]) -> None:
    factory: Any = None
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_a_library_s_timer_in_the_body_keeps_it_in_memory() -> None:
    """anyio's fail_after, say: a timer of the loop that nothing awaits."""

    @workflow(version="1")
    async def timed_by_hand() -> None:
        timer = asyncio.get_running_loop().call_later(9999, print)
        try:
            await word()
        finally:
            timer.cancel()

    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            await hf.start(timed_by_hand(), id="a")
            await begun(hf, "a")
            await turns()
            assert not hf._live["a"].is_waiting

    asyncio.run(main())


def test_it_is_told_when_a_run_begins_and_ends_to_wait() -> None:
    @workflow(version="1")
    async def two() -> None:
        await word()
        await note("x")
        await word()

    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            await hf.start(two(), id="a")
            await begun(hf, "a")
            execution, flips = hf._live["a"], list[bool]()
            execution.waiting_changed = lambda each: flips.append(each.is_waiting)
            if execution.is_waiting:
                flips.append(True)
            for expected in ([True], [True, False, True]):
                await until(lambda: _is(flips, expected))  # noqa: B023 - awaited here
                await hf.send("a", "word", "x")
            await execution.outcome.over()
            assert flips == [True, False, True, False]

    async def _is(flips: list[bool], expected: list[bool]) -> bool:
        return flips == expected

    asyncio.run(main())


@workflow(version="1")
async def crowd() -> str:
    async def one(n: int) -> str:
        return await holdfast.wait_for(f"w{n}", str)

    queue: asyncio.Queue[str] = asyncio.Queue()

    async def consuming() -> None:
        while True:
            await queue.get()

    consumer = asyncio.create_task(consuming())
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(n)) for n in range(3)]
        return "".join(task.result() for task in tasks)
    finally:
        consumer.cancel()


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_nothing_of_it_stays_in_memory(kind: str) -> None:
    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            for id in ("a", "b", "p"):
                await hf.start(crowd() if id != "p" else plain.bind(), id=id)
                await begun(hf, id, 3 if id != "p" else 1)
            kept: list[weakref.ref[Any]] = []
            for id in ("a", "b", "p"):
                kept += await unloaded(hf, id)
            await turns(50)
            for thread in threading.enumerate():
                if thread.name == "holdfast-p":  # it is being unwound
                    await asyncio.to_thread(thread.join, 10)
                    assert not thread.is_alive()
            gc.collect()
            assert [each() for each in kept if each() is not None] == []
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert {task.get_name() for task in others} <= {"holdfast lookout"}
            for n in range(3):
                await hf.send("a", f"w{n}", str(n))
            assert await hf.run(crowd(), id="a") == "012"
            assert not branches.live_runs

    async def unloaded(hf: Holdfast, id: str) -> list[weakref.ref[Any]]:
        execution = hf._live[id]
        await until(lambda: _rests(execution))
        assert execution.run is not None
        refs = [weakref.ref(each) for each in (execution, execution.run, *execution.run.members)]
        assert await execution.suspend()
        return refs

    _on(kind, main)


async def _rests(execution: Any) -> bool:
    return bool(execution.is_waiting)


def test_what_it_does_while_it_is_unloaded_is_ignored() -> None:
    @workflow(version="1")
    async def stubborn() -> str:
        try:
            return await word()
        except Exception:
            return "swallowed"
        finally:
            await note("in finally")

    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            await hf.start(stubborn(), id="a")
            await begun(hf, "a")
            await until(lambda: _rests(hf._live["a"]))
            assert await hf._live["a"].suspend()
            assert [row.status for row in await hf.history("a")] == ["waiting"]
            assert (await hf.get("a")).status == "waiting"

    asyncio.run(main())


def test_its_row_says_what_it_waits_for_and_until_when(fake_clock: FakeClock) -> None:
    @workflow(version="1")
    async def both() -> None:
        await asyncio.gather(
            holdfast.wait_for("approval", bool, ask="pay?"), holdfast.sleep(60), holdfast.current().run(inner(), id="c")
        )

    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            await hf.start(both(), id="a")
            await begun(hf, "a", 3)
            await begun(hf, "c")
            await until(lambda: _rests(hf._live["c"]))  # it is let go of with its parent
            await until(lambda: _rests(hf._live["a"]))
            assert await hf._live["a"].suspend()
            run = await hf.get("a")
            assert run.waiting_for is not None
            approval, sleep, child = run.waits
            assert (approval.kind, approval.name, approval.ask) == ("signal", "approval", "pay?")
            assert sleep.until is not None and (sleep.until - sleep.since).total_seconds() == 60
            assert (child.kind, child.name) == ("run", "c")
            assert run.waiting_for.startswith("approval, sleep until 2027-01-15 08:01:00 UTC, run c")
            row = hf._store.get("a")
            assert row is not None and row.due_ms == int(sleep.until.timestamp() * 1000)
            assert due(hf) == []
            await fake_clock.advance(61)
            assert due(hf) == ["a"]
            await hf.start(inner(), id="b")
            await begun(hf, "b")
            await until(lambda: _rests(hf._live["b"]))
            assert await hf._live["b"].suspend()
            waiting = hf._store.get("b")
            assert waiting is not None and waiting.due_ms == NEVER_MS

    asyncio.run(main())


def due(hf: Holdfast) -> list[str]:
    """Which runs a worker would take now."""
    given: dict[str, Any] = {"ttl_ms": 1, "queue": "default", "dead": (), "limit": 9, "at_once": None}
    names = {row.workflow: None for row in hf._store.runs(status=None, workflow=None, limit=9, after=None)}
    return [taken.row.id for taken in hf._store.claim_due("w|1|1|1", workflows=names, **given)]


@pytest.mark.parametrize("moment", ["before", "while", "after"])
def test_a_signal_sent_while_it_goes_to_sleep_wakes_it(moment: str) -> None:
    """Between the last look and the row that says that it sleeps, nobody is there to hear of it."""

    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            store = hf._store
            await hf.start(inner(), id="a")
            await begun(hf, "a")
            execution = hf._live["a"]
            await until(lambda: _rests(execution))
            assert execution.run is not None
            execution.run.waits.looked = lambda *_: None  # type: ignore[method-assign] # it has looked for the last time
            commit = store.commit

            def committing(batch: Any) -> Any:
                if batch.finishes and moment == "while":
                    store.send("a", "word", b"\xa1x", key=None)
                return commit(batch)

            store.commit = committing  # type: ignore[method-assign]
            if moment == "before":
                store.send("a", "word", b"\xa1x", key=None)
            assert await execution.suspend()
            if moment == "after":
                assert due(hf) == []
                store.send("a", "word", b"\xa1x", key=None)
            row = store.get("a")
            assert row is not None and (row.status, row.due_ms) == ("waiting", 0)
            assert await hf.run(inner(), id="a") == "x"

    asyncio.run(main())


def test_who_waits_for_it_here_keeps_it_in_memory() -> None:
    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            waiting = asyncio.create_task(hf.run(inner(), id="a"))
            await begun(hf, "a")
            await until(lambda: _rests(hf._live["a"]))
            assert not await hf._live["a"].suspend()
            await hf.send("a", "word", "x")
            assert await waiting == "x"

    asyncio.run(main())


def test_run_wait_waits_on_when_the_run_is_unloaded() -> None:
    async def main() -> None:
        async with Holdfast(MemoryStore()) as hf:
            run = await hf.start(inner(), id="a")
            await begun(hf, "a")
            waiting = asyncio.create_task(run.wait())
            await until(lambda: _rests(hf._live["a"]))
            assert await hf._live["a"].suspend()
            await turns(50)
            await hf.send("a", "word", "x")
            await hf.start(inner(), id="a")
            assert await waiting == "x"

    asyncio.run(main())
