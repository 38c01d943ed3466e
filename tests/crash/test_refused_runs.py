"""The store refuses a value of one run: that run stops without a gap in its record, and nobody else notices."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import apsw
import pytest

import holdfast
from holdfast import CodecError, Holdfast, StoreError, step, workflow
from holdfast.failure import Failure
from holdfast.journal import Journal, Standing
from holdfast.lease import Lease
from holdfast.store import Batch, Checkpoint, Committed, Finish, RunRow, Store, open_store
from holdfast.store.memory import MemoryStore
from holdfast.testing.store_suite import checkpoint, create, run_row
from holdfast.unreturned import Unreturned

TOO_MUCH = 2**63
executed: list[str] = []


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    urls = {"memory": lambda: "memory://", "sqlite": lambda: tmp_path / "a.db"}
    store = open_store(urls.get(request.param, lambda: request.getfixturevalue("postgres_url"))())
    yield store
    store.close()


class Nobody:
    def renewed(self, *_: object) -> None: ...

    def standing(self) -> Standing:
        return Standing({}, {})


async def outcomes(journal: Journal, *rows: RunRow | Checkpoint | Finish) -> list[str]:
    """What becomes of rows that are handed over together."""
    loop = asyncio.get_running_loop()
    told = await asyncio.gather(*(journal.committed(row, loop) for row in rows), return_exceptions=True)
    return ["written" if not isinstance(each, BaseException) else type(each).__name__ for each in told]


def test_behind_a_refused_row_nothing_of_its_run_is_written(store: Store) -> None:
    async def program() -> None:
        nobody = Nobody()
        journal = Journal(store, "me", Lease(), nobody.renewed, nobody.standing)
        loop = asyncio.get_running_loop()
        run, other = [await journal.committed(run_row(id), loop) for id in ("a", "b")]
        assert await outcomes(journal, checkpoint(run.no, 1), checkpoint(other.no, 1)) == ["written", "written"]
        bad = checkpoint(run.no, 2, tokens=TOO_MUCH)
        assert await outcomes(journal, bad, checkpoint(other.no, 2)) == ["CodecError", "written"]
        later = [checkpoint(run.no, 3), Finish(run_no=run.no, epoch=1, status="done"), checkpoint(other.no, 3)]
        assert await outcomes(journal, *later) == ["CodecError", "CodecError", "written"]
        assert [row.seq for row in store.load(run.no)] == [1], "no gap"
        assert [row.seq for row in store.load(other.no)] == [1, 2, 3] and not journal.failed

        back = Finish(run_no=run.no, epoch=1, status="running")
        assert await outcomes(journal, back, checkpoint(run.no, 3)) == ["written", "CodecError"]
        again = store.claim(run.no, 1, owner="me", ttl_ms=10_000, lost=None)
        assert again is not None, "it was handed back, and begins anew from what stands"
        assert await outcomes(journal, checkpoint(run.no, 2, epoch=2)) == ["written"]
        journal.close()

    asyncio.run(program())


def test_a_run_that_cannot_be_created_is_told(store: Store) -> None:
    async def program() -> None:
        nobody = Nobody()
        journal = Journal(store, "me", Lease(), nobody.renewed, nobody.standing)
        assert await outcomes(journal, run_row("a", priority=TOO_MUCH), run_row("b")) == ["CodecError", "written"]
        journal.close()
        assert store.get("a") is None and store.get("b") is not None

    asyncio.run(program())


def test_why_a_lease_was_not_renewed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A schema of a newer release stops this process, and only the store's own words say what to do."""
    newer = "it was written by a newer holdfast: upgrade holdfast."

    class Newer(MemoryStore):
        def renew(self, *_: Any, **__: Any) -> set[int]:
            raise StoreError(newer)

    async def program() -> None:
        nobody = Nobody()
        journal = Journal(Newer(), "me", Lease(), nobody.renewed, nobody.standing)
        journal.serve(asyncio.get_running_loop())
        for _ in range(3):
            journal.renew_now(lambda: None)
        await asyncio.to_thread(journal.close)

    asyncio.run(program())
    assert [record.levelname for record in caplog.records if newer in record.getMessage()] == ["WARNING"]


@step
async def fetch(name: str, size: int) -> bytes:
    executed.append(name)
    return bytes(size)


@workflow(version="1")
async def collect(name: str, size: int) -> int:
    got = 0
    for part in range(3):
        try:
            got += len(await fetch(f"{name}{part}", size if part == 1 else 1))
        except BaseException as error:
            executed.append(f"met {type(error).__name__}")
            raise
    return got


@workflow(version="1")
async def large(size: int) -> bytes:
    return bytes(size)


def small(hf: Holdfast) -> None:
    """SQLite takes 40 KB now instead of a billion bytes: less than what is kept beside its row anyway."""
    writer = hf._store._writer  # type: ignore[attr-defined]
    writer.limit(apsw.SQLITE_LIMIT_LENGTH, 40_000)


def test_only_the_run_whose_value_is_refused_stops(tmp_path: Path) -> None:
    async def program() -> None:
        executed.clear()
        async with holdfast.open(tmp_path / "a.db") as hf:
            assert await hf.run(collect("x", 1), id="x") == 3
            small(hf)
            runs = (hf.run(collect(name, 60_000 if name == "b" else 1), id=name) for name in "abc")
            a, b, c = await asyncio.gather(*runs, return_exceptions=True)
            assert (a, c) == (3, 3) and isinstance(b, CodecError) and "keep it in a file" in str(b)
            assert "b2" not in executed
            run = await hf.get("b")
            assert run.status == "parked" and run.error is not None
            assert [each.seq for each in await hf.history("b")] == [1]
            with pytest.raises(CodecError):
                await hf.run(large(60_000), id="large")
            assert (await hf.get("large")).status == "parked"
            async with hf.session("s") as session:
                session.state["big"] = bytes(60_000)
                with pytest.raises(CodecError):
                    await session.save()
            async with hf.session("s") as session:
                assert session.state == {}, "it was handed back"
        async with holdfast.open(tmp_path / "a.db") as hf:
            executed.clear()
            assert await hf.run(collect("b", 60_000), id="b") == 60_002, "here it is taken"
            assert executed == ["b1", "b2"]

    asyncio.run(program())


def test_a_hand_back_that_is_refused_for_now_is_tried_again() -> None:
    """Or the heartbeat would prolong for ever what nobody advances."""
    store = MemoryStore()
    (run,) = create(store, "a")
    refusals = 2

    def commit(batch: Batch) -> Committed:
        nonlocal refusals
        refusals -= 1
        return (
            Committed(refused={run.no: StoreError("too slow")}) if refusals >= 0 else MemoryStore.commit(store, batch)
        )

    store.commit = commit  # type: ignore[method-assign]
    unreturned = Unreturned(store)
    unreturned.add(Finish(run_no=run.no, epoch=1, status="waiting", due_ms=5))
    for _ in range(3):
        row = store.get("a")
        assert row is not None and row.owner == "me"
        unreturned.renewed({run.no})
    row = store.get("a")
    assert row is not None and (row.owner, row.status, row.due_ms) == (None, "waiting", 5)
    unreturned.renewed({run.no})
    assert refusals == -1, "and that is all"


def test_a_hand_back_that_is_refused_for_good_is_cut_down_to_that(store: Store) -> None:
    runs = create(store, "parked", "asleep", "fine")
    unreturned = Unreturned(store)
    for run, status, error in zip(runs, ("parked", "waiting", "running"), (b"x", None, None), strict=True):
        due_ms = 0 if run is runs[2] else TOO_MUCH
        unreturned.add(Finish(run_no=run.no, epoch=1, status=status, due_ms=due_ms, error=error))
    for _ in range(2):
        unreturned.renewed({run.no for run in runs})
    rows = [store.get(run.id) for run in runs]
    assert [row and (row.owner, row.status) for row in rows] == [(None, "parked"), (None, "waiting"), (None, "running")]
    assert rows[0] is not None and "CodecError" in str(Failure.decode(rows[0].error or b"", ""))


def test_what_ended_a_run_may_hold_a_name_that_is_no_text(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to keep the run, and the doubt in it, to oneself."""
    monkeypatch.setattr(logging.getLogger("holdfast"), "disabled", True)  # pytest-xdist cannot tell of it

    @step(once=True)
    async def pay() -> None:
        raise OSError("no such file: 'caf\udce9'")

    @workflow(version="1")
    async def paying() -> None:
        await pay()

    async def main() -> None:
        async with Holdfast(store) as hf:
            with pytest.raises(holdfast.InDoubt):
                await hf.run(paying(), id="a")
            run, row = await hf.get("a"), store.get("a")
        assert run.status == "in_doubt" and run.error is not None and r"'caf\udce9'" in run.error
        assert row is not None and row.owner is None

    asyncio.run(main())
