"""Results that are too big for a row: kept beside it once, brought back when they are recalled, a few at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import random
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apart_programs
import apsw
import pytest
from peaks import PEAK

import holdfast
from holdfast import CodecError, Holdfast, StoreError, step, workflow
from holdfast.blobs import APART_FROM_BYTES, PART_BYTES, Blobs, reference_in
from holdfast.bringing import LAST, Bringing
from holdfast.cli import _main
from holdfast.home import MOVERS
from holdfast.planning import plan_run, unwritten
from holdfast.store import Checkpoint, open_store
from holdfast.store.memory import MemoryStore
from holdfast.testing import crash_sweep

BIG = APART_FROM_BYTES + 1

executed: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    executed.clear()
    yield


class Crash(BaseException):
    """Ends a run where it stands."""


@step
async def read(n: int, size: int = BIG) -> bytes:
    executed.append(n)
    return bytes([n % 256]) * size


@step
async def last() -> str:
    executed.append("last")
    if executed.count("last") == 1:
        raise Crash
    return "end"


@workflow(version="1")
async def job(*sizes: int) -> list[int]:
    found = [await read(n, size) for n, size in enumerate(sizes)]
    await last()
    return [len(each) for each in found]


def in_store(path: Path | str, work: Callable[[Holdfast], Any]) -> Any:
    async def main() -> Any:
        async with holdfast.open(path) as hf:
            return await work(hf)

    return asyncio.run(main())


def crashed(path: Path, *sizes: int, id: str = "a") -> None:
    with contextlib.suppress(Crash):
        in_store(path, lambda hf: hf.run(job(*sizes), id=id))
    executed[:] = [each for each in executed if each == "last"]


def resumed(path: Path, *sizes: int, id: str = "a") -> Any:
    return in_store(path, lambda hf: hf.run(job(*sizes), id=id))


def rows_of(path: Path, id: str) -> list[Checkpoint]:
    async def load(hf: Holdfast) -> list[Checkpoint]:
        row = hf._store.get(id)
        assert row is not None
        return hf._store.load(row.no)

    return in_store(path, load)


def sql(path: Path, text: str) -> list[Any]:
    db = apsw.Connection(str(path))
    try:
        return db.execute(text).fetchall()
    finally:
        db.close()


def test_only_what_is_too_big_leaves_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    small = APART_FROM_BYTES - 8  # with the header of its encoding a little less than the limit
    crashed(path, small, BIG)
    inside, outside = rows_of(path, "a")[:2]
    assert inside.result is not None and len(inside.result) > small and inside.blobs is None
    assert outside.result is not None and len(outside.result) < 64
    named = reference_in(outside.result)
    assert named is not None and outside.blobs == named.hash and named.size_bytes > BIG
    assert resumed(path, small, BIG) == [small, BIG] and executed == ["last", "last"]


def test_the_same_bytes_are_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    @workflow(version="1")
    async def twice() -> bool:
        return await read(7) == await asyncio.shield(read(7))

    assert in_store(path, lambda hf: hf.run(twice(), id="a"))
    assert in_store(path, lambda hf: hf.run(twice(), id="b"))
    assert sql(path, "SELECT count(*) FROM blob") == sql(path, "SELECT count(*) FROM blob_part") == [(1,)]
    ((stored,),) = sql(path, "SELECT length(data) FROM blob_part")
    assert stored < BIG / 100, "and compressed"


def test_history_watch_and_fork_see_the_value(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    crashed(path, BIG)

    async def look(hf: Holdfast) -> list[Any]:
        await hf.fork("a", at=1, new_id="b")
        first = (await hf.history("b"))[0].result
        watching = hf.watch("b")
        async with contextlib.aclosing(watching):
            return [first, (await anext(watching)).result]  # type: ignore[union-attr]

    assert in_store(path, look) == [bytes(BIG)] * 2
    assert resumed(path, BIG, id="b") == [BIG] and executed == ["last", "last"]


# -- a missing or damaged one ----------------------------------------------------------------------------------


DAMAGES = {
    "missing": ("DELETE FROM blob_part", "it is not there"),
    "cut short": ("DELETE FROM blob_part WHERE n = 1", "a part of it is missing"),
    "changed": ("UPDATE blob_part SET data = substr(data, 1, 20) || x'00' WHERE n = 1", "changed or damaged"),
    "another's": (
        "UPDATE blob_part SET data = (SELECT data FROM blob_part WHERE n = 0) WHERE n = 1",
        "changed or damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_one_is_named_and_the_run_stays_resumable(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.db"
    size = 2 * PART_BYTES - 5  # with the header of its encoding two whole parts
    crashed(path, size)
    sql(path, "CREATE TABLE backup AS SELECT * FROM blob_part")
    change, told = DAMAGES[damage]
    sql(path, change)
    named = reference_in(rows_of(path, "a")[0].result)
    assert named is not None
    for _ in range(2):  # it is told each time, and nothing is executed
        with pytest.raises(CodecError) as lost:
            resumed(path, size)
        for each in ("run 'a', checkpoint 1 (", f"{path}#blob={named.hash.hex()}", told, "resolve a 1", "backup"):
            assert each in str(lost.value)
        assert executed == ["last"]
    assert "CodecError" in str(in_store(path, lambda hf: hf.history("a"))[0].error)
    sql(path, "DELETE FROM blob_part")
    sql(path, "INSERT INTO blob_part SELECT * FROM backup")
    assert resumed(path, size) == [size] and executed == ["last", "last"]


@pytest.mark.parametrize("retry", [True, False])
def test_a_person_says_what_a_lost_one_was(tmp_path: Path, retry: bool) -> None:
    path = tmp_path / "a.db"
    crashed(path, BIG)
    with pytest.raises(holdfast.HoldfastError, match="not in doubt"):
        in_store(path, lambda hf: hf.resolve("a", 1, retry=True))
    sql(path, "UPDATE blob_part SET data = zeroblob(9)")
    given: dict[str, Any] = {"retry": True} if retry else {"result": b"x" * (BIG + 1)}
    in_store(path, lambda hf: hf.resolve("a", 1, **given))
    again = [0] if retry else []
    assert resumed(path, BIG) == [BIG + (not retry)] and executed == ["last", *again, "last"]
    assert all(len(row.result or b"") < 100 for row in rows_of(path, "a"))


def test_a_blob_is_not_trusted_to_say_how_much_memory_it_takes() -> None:
    import zstandard

    store = MemoryStore()
    blobs = Blobs(store)
    named = blobs.keep(b"x" * BIG)
    store.put_blob(named.hash, [zstandard.ZstdCompressor().compress(bytes(100 * PART_BYTES))], size_bytes=BIG)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="changed or damaged"):
            blobs.content(named)
        assert tracemalloc.get_traced_memory()[1] < 10 * PART_BYTES
    finally:
        tracemalloc.stop()
    blobs.keep(b"x" * BIG)
    assert blobs.content(named) == b"x" * BIG, "who keeps it again mends it"


def test_what_lies_in_the_store_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    crashed(path, BIG)
    sql(path, "UPDATE blob_part SET data = zeroblob(9)")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        _main(["show", "a", "--raw", "--store", str(path)])
    named = rows_of(path, "a")[0].blobs
    assert named is not None
    assert f"bytes in blob {named.hex()}>" in shown.getvalue() and "changed or damaged" in shown.getvalue()


# -- order, cancellation, trouble ------------------------------------------------------------------------------


def test_many_at_once_are_brought_in_their_order_and_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, count = tmp_path / "a.db", 60
    orders: list[list[int]] = []
    in_memory: list[int] = []
    content = Blobs.content

    @workflow(version="1")
    async def gathered() -> int:
        order: list[int] = []
        orders.append(order)

        async def one(n: int) -> None:
            order.append((await read(n))[0])

        await asyncio.gather(*(one(n) for n in range(count)))
        await last()
        return len(order)

    def counted(blobs: Blobs, named: Any) -> bytes:
        in_memory.append(len(in_memory) + 1 - len(orders[-1]))  # those begun that the program has not got yet
        return content(blobs, named)

    monkeypatch.setattr(Blobs, "content", counted)
    with contextlib.suppress(Crash):
        in_store(path, lambda hf: hf.run(gathered(), id="a"))
    assert in_memory == []
    assert in_store(path, lambda hf: hf.run(gathered(), id="a")) == count
    assert orders[1] == orders[0] and executed.count(0) == 1
    assert 1 < max(in_memory) <= 9


def test_what_comes_behind_waits_for_a_slow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    orders: list[list[int]] = []
    content, begun, second_asked = Blobs.content, threading.Event(), threading.Event()

    @workflow(version="1")
    async def gathered() -> None:
        order: list[int] = []
        orders.append(order)

        async def one(n: int, size: int) -> None:
            order.append((await read(n, size))[0])

        first = asyncio.ensure_future(one(1, BIG))
        while len(orders) == 1 and not order:  # so that its outcome is the first to be recorded
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(one(2, 1))
        for _ in range(100 * len(orders)):  # of the second, which is in its row, far more turns than it needs
            await asyncio.sleep(0)
        second_asked.set()
        await asyncio.gather(first, second)
        await last()

    def slow(blobs: Blobs, named: Any) -> bytes:
        begun.set()
        assert second_asked.wait(60)
        return content(blobs, named)

    with contextlib.suppress(Crash):
        in_store(path, lambda hf: hf.run(gathered(), id="a"))
    second_asked.clear()
    monkeypatch.setattr(Blobs, "content", slow)
    in_store(path, lambda hf: hf.run(gathered(), id="a"))
    assert orders == [[1, 2], [1, 2]] and begun.is_set()


def test_what_is_delivered_next_may_always_be_brought() -> None:
    seed = int(os.environ.get("HOLDFAST_SEED") or random.randrange(2**32))
    print(f"HOLDFAST_SEED={seed}")
    draw = random.Random(seed)

    async def main() -> None:
        for _ in range(50):
            turns = [*draw.sample(range(1, 100), 30), LAST, LAST]
            bringing, entered = Bringing(), list[tuple[int, asyncio.Future[None]]]()
            for turn in turns:
                entered.append((turn, bringing.enter(turn)))
                if draw.random() < 0.1:  # who waits no more leaves
                    bringing.leave(*entered.pop(draw.randrange(len(entered))))
            for turn, free in sorted(entered, key=lambda each: each[0]):
                assert free.done(), "it comes next, and all behind it wait for it"
                bringing.leave(turn, free)

    asyncio.run(main())


class Gated(MemoryStore):
    """Keeps a blob only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.comes, self.goes_on = threading.Event(), threading.Event()
        self.error: StoreError | None = None

    def put_blob(self, *args: Any, **options: Any) -> None:
        self.comes.set()
        assert self.goes_on.wait(60)
        if self.error is not None:
            raise self.error
        super().put_blob(*args, **options)


def test_a_cancellation_while_it_is_kept_finds_the_outcome_recorded() -> None:
    store = Gated()
    store.goes_on.clear()
    told: list[str] = []

    @workflow(version="1")
    async def limited() -> int:
        task = asyncio.ensure_future(read(1))
        while not store.comes.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0)
        store.goes_on.set()
        try:
            await task
        except asyncio.CancelledError:
            told.append("cancelled")
        return len(await read(2))

    async def main() -> None:
        hf = Holdfast(store)
        assert await hf.run(limited(), id="a") == BIG
        first = (await hf.history("a"))[0]
        assert (first.name, first.status, first.result) == ("read", "done", b"\x01" * BIG)
        await hf.aclose()

    asyncio.run(main())


def test_one_that_cannot_be_kept_stops_the_run_and_is_no_failure_of_the_step() -> None:
    store = Gated()
    store.goes_on.set()
    store.error = StoreError("the disk is full")

    @workflow(version="1")
    async def stubborn() -> int:
        try:
            return len(await read(1))
        except Exception:
            return -1

    async def main() -> None:
        hf = Holdfast(store)
        with pytest.raises(StoreError, match="the disk is full"):
            await hf.run(stubborn(), id="a")
        store.error = None
        assert await hf.run(stubborn(), id="a") == BIG
        assert executed == [1, 1]
        await hf.aclose()

    asyncio.run(main())


def test_what_fails_beside_what_has_stopped_the_run_is_not_told_by_asyncio(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryStore):
        all_at_once = threading.Barrier(MOVERS)

        def put_blob(self, *args: Any, **options: Any) -> None:
            self.all_at_once.wait(60)
            raise StoreError("the disk is full")

    @workflow(version="1")
    async def gathered() -> None:
        await asyncio.gather(*map(read, range(MOVERS)))

    async def main() -> None:
        async with Holdfast(Failing()) as hf:
            with pytest.raises(StoreError, match="the disk is full"):
                await hf.run(gathered(), id="a")

    asyncio.run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text


# -- whole processes -------------------------------------------------------------------------------------------


@pytest.mark.crash
def test_a_process_killed_at_any_call_of_the_store_loses_nothing() -> None:
    sweep = crash_sweep(apart_programs.reading(BIG), seed=7, limit=14, second=0)
    assert sweep.result == [BIG, 2, 1]
    assert any("blob" in point for point in sweep.points)


def test_a_resume_holds_few_of_its_results(tmp_path: Path) -> None:
    program = tmp_path / "resumes.py"
    program.write_text(
        PEAK
        + textwrap.dedent("""
        import asyncio, sys
        import holdfast
        from holdfast import step, workflow

        @step
        async def read(n: int) -> bytes:
            return n.to_bytes(4, "big") * 25_000

        @workflow(version="1")
        async def job() -> int:
            size = 0
            for n in range(600):
                size += len(await read(n))
            await holdfast.wait_for("more", bool)
            return size

        async def main():
            async with holdfast.open(sys.argv[1]) as hf:
                if sys.argv[2] == "begin":
                    await hf.start(job(), id="a")
                    while (await hf.get("a")).status != "waiting":
                        await asyncio.sleep(0.01)
                    return
                before = peak()
                await hf.send("a", "more", True)
                assert await hf.run(job(), id="a") == 60_000_000
                print(peak() - before)

        asyncio.run(main())
        """)
    )
    path = tmp_path / "a.db"
    grown = [
        subprocess.run([sys.executable, program, path, what], check=True, capture_output=True, text=True).stdout
        for what in ("begin", "resume")
    ]
    assert int(grown[1]) < 30_000, "KB; there are 60,000 KB of results"


def test_a_hash_is_that_of_the_content() -> None:
    store = MemoryStore()
    named = Blobs(store).keep(b"y" * BIG)
    assert named == (blake2b(b"y" * BIG, digest_size=32).digest(), BIG) and store.renew_blob(named.hash)


# -- wherever a result is recorded -----------------------------------------------------------------------------


@step(once=True)
async def pay(n: int) -> bytes:
    executed.append(f"pay {n}")
    return bytes([n]) * BIG


@step
async def outer(n: int) -> int:
    return len(await read(n)) + len(await read(n + 100))


@step
def plain(n: int) -> bytes:
    executed.append(f"plain {n}")
    return bytes([n]) * BIG


@workflow(version="1")
async def every(fails: bool) -> list[int]:
    found = list(map(len, await asyncio.gather(*(read(n) for n in range(12)))))
    found.append(len(await pay(1)))
    found.append(await outer(50))
    found.append(len(await asyncio.to_thread(plain, 3)))
    await last()
    return found


EXPECTED = [*[BIG] * 13, 2 * BIG, BIG]


def test_every_kind_of_step(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for _ in range(2):
        with contextlib.suppress(Crash):
            assert in_store(path, lambda hf: hf.run(every(False), id="a")) == EXPECTED
    assert len(executed) == len(set(executed)) + 1, "nothing but the last step was executed twice"
    assert all(len(row.result or b"") < 100 for row in rows_of(path, "a"))


def test_a_new_version_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.suppress(Crash):
        in_store(path, lambda hf: hf.run(every(False), id="a"))

    @workflow(name=every.__qualname__, version="2")
    async def newer(fails: bool) -> list[int]:
        found = list(map(len, await asyncio.gather(*(read(n) for n in range(12)))))
        found.append(len(await pay(1)))
        found.append(await outer(50))
        found.append(len(await asyncio.to_thread(plain, 3)))
        await last()
        return found

    assert in_store(path, lambda hf: hf.run(newer(False), id="a")) == EXPECTED
    assert len(executed) == len(set(executed)) + 1
    rows = rows_of(path, "a")
    kept = {row.blobs for row in rows if row.name == "read" and not row.scope}
    assert None not in kept and all(len(row.result or b"") < 200 for row in rows)


@workflow(version="1")
async def child() -> bytes:
    return b"c" * BIG


def test_what_stays_in_its_row_is_read_there(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    @workflow(version="1")
    async def told() -> list[int]:
        found = [len(await holdfast.current().run(child(), id="kid")), len(await holdfast.wait_for("more", bytes))]
        async for n in holdfast.each(range(4)):  # each turn tells how the loop has changed the state
            holdfast.state[f"page {n}"] = str(n) * BIG
            await read(n, 1)
        await last()
        return [*found, len(holdfast.state["page 3"])]

    async def begun(hf: Holdfast) -> Any:
        run = await hf.start(told(), id="a")
        await hf.send("a", "more", b"s" * BIG)
        return await run.wait()

    with contextlib.suppress(Crash):
        in_store(path, begun)
    assert executed == [0, 1, 2, 3, "last"]
    assert in_store(path, lambda hf: hf.run(told(), id="a")) == [BIG] * 3
    assert executed == [0, 1, 2, 3, "last", "last"]


def test_on_postgresql(postgres_url: str) -> None:
    for _ in range(2):
        with contextlib.suppress(Crash):
            assert in_store(postgres_url, lambda hf: hf.run(every(False), id="a")) == EXPECTED
    assert len(executed) == len(set(executed)) + 1


def test_a_plan_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.suppress(Crash):
        in_store(path, lambda hf: hf.run(every(False), id="a"))
    before, store = list(executed), open_store(path)
    row = store.get("a")
    assert row is not None
    home = Holdfast(unwritten(store))
    plan = plan_run(home, row, every.bind(False), timeout_s=60)
    assert [each.name for each in plan.would] == ["last"] and executed == before
    home.close()
