"""What a worker takes, in which order, what it leaves alone, and what it does not go on with."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inside import STORES, ended, row_of, serving, until, url_of
from msgspec.structs import replace

import holdfast
from holdfast import Holdfast, codec, known, lease, step, workflow
from holdfast import worker as worker_module
from holdfast.admission import new_row
from holdfast.definition import PYTHON
from holdfast.failure import Failure
from holdfast.recall import blank_row
from holdfast.served import deaths_in_a_row
from holdfast.store import Batch, Checkpoint, Claim, Code, RunRow, Store, Taken, open_store
from holdfast.store.memory import MemoryStore
from holdfast.worker import Queue

executed: list[str] = []
gates: dict[str, asyncio.Event] = {}
DEAD = f"{lease.host()}|999999999|1.00|x"  # no process can have this pid


@step
async def work(what: str) -> str:
    executed.append(what)
    if what in gates:
        await gates[what].wait()
    return what.upper()


@workflow(version="1")
async def job(what: str) -> str:
    return await work(what)


@workflow(version="1", on_change="refuse")
async def strict(what: str) -> str:
    return await work(what)


@workflow(version="1", schema_version=2)
async def stateful(what: str) -> str:
    return await work(what)


@workflow(version="1", queue="slow")
async def slow(what: str) -> str:
    return await work(what)


@workflow(version="1", max_deaths=3)
async def twice(what: str) -> str:
    return await work(what) + await work(what + what)


@workflow(version="1")
async def fails() -> None:
    await work("fails")
    raise RuntimeError("by itself")


class Agent:
    @workflow(version="1")
    async def think(self) -> None: ...

    @staticmethod
    @workflow(version="1")
    async def add() -> None: ...


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    executed.clear()
    gates.clear()
    yield
    gates.clear()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = open_store(url_of(request, tmp_path))
    yield made
    made.close()


async def submitted(store: Store, *calls: Any, **options: Any) -> list[str]:
    async with Holdfast(store) as hf:
        return [(await hf.submit(call, id=f"run-{n}", **options)).id for n, call in enumerate(calls)]


def owned(store: Store, ids: list[str]) -> int:
    return sum(row_of(store, id).owner is not None for id in ids)


def planted(store: Store, call: Any, **fields: Any) -> str:
    """A queued run ``x`` of this call, with a row that differs in these fields."""
    call.take()
    row = replace(new_row(call, call.inputs(), "x"), status="queued", epoch=0, **fields)
    store.commit(Batch(creates=[row]))
    return "x"


# -- what it takes -------------------------------------------------------------------------------------------


def test_submitted_runs_are_executed_and_can_be_waited_for(store: Store) -> None:
    async def main() -> None:
        async with serving(store), Holdfast(store) as hf:
            runs = [await hf.submit(job(str(n)), id=f"run-{n}") for n in range(30)]
            assert await asyncio.gather(*(run.wait() for run in runs)) == [str(n) for n in range(30)]
            assert sorted(executed, key=int) == [str(n) for n in range(30)]
            assert {(run.status, run.resumed, run.deaths) for run in await hf.runs()} == {("done", 0, 0)}

    asyncio.run(main())


def test_no_more_runs_at_once_than_there_are_slots(store: Store) -> None:
    async def main() -> None:
        gates.update({str(n): asyncio.Event() for n in range(7)})
        ids = await submitted(store, *(job(str(n)) for n in range(7)))
        async with serving(store, concurrency=3):
            for n in range(7):
                await until(lambda n=n: len(executed) >= min(7, n + 3))
                assert sorted(executed) == [str(k) for k in range(min(7, n + 3))]  # the oldest first
                await until(lambda n=n: owned(store, ids) == min(3, 7 - n))
                gates[str(n)].set()
            assert set(await ended(store, *ids)) == {"done"}

    asyncio.run(main())


def test_higher_priority_first_then_older(store: Store) -> None:
    async def main() -> None:
        async with Holdfast(store) as hf:
            for n, priority in enumerate([0, 5, -1, 5, 0]):
                await hf.submit(job(str(n)), id=f"run-{n}", priority=priority)
        async with serving(store, concurrency=1):
            await ended(store, *(f"run-{n}" for n in range(5)))
        assert executed == ["1", "3", "0", "4", "2"]

    asyncio.run(main())


def test_queues_are_served_in_the_order_given_and_others_not_at_all(store: Store) -> None:
    async def main() -> None:
        async with Holdfast(store) as hf:
            for id, queue in (("a", "third"), ("b", "second"), ("c", "first"), ("d", "second"), ("e", "other")):
                await hf.submit(job(id), id=id, queue=queue)
        async with serving(store, Queue("first"), Queue("second"), Queue("third"), concurrency=1):
            await ended(store, *"abcd")
        assert executed == ["c", "b", "d", "a"]
        assert row_of(store, "e").status == "queued"

    asyncio.run(main())


def test_a_delayed_run_is_begun_when_its_time_has_come() -> None:
    async def main() -> None:
        now = 1_000_000
        store = MemoryStore(clock=lambda: now)
        await submitted(store, job("later"), delay=60)
        async with Holdfast(store) as hf, serving(store):
            await hf.submit(job("now"), id="now")
            await ended(store, "now")
            now += 59_999
            await hf.submit(job("then"), id="then")
            await ended(store, "then")
            assert executed == ["now", "then"]
            now += 1
            assert await ended(store, "run-0") == ["done"]

    asyncio.run(main())


def test_the_limit_of_a_queue_holds_over_two_workers(store: Store) -> None:
    async def main() -> None:
        gates.update({str(n): asyncio.Event() for n in range(6)})
        ids = await submitted(store, *(slow(str(n)) for n in range(6)))
        queue = Queue("slow", 2)
        async with serving(store, queue), serving(store, queue):
            for n in range(6):
                await until(lambda n=n: len(executed) >= min(6, n + 2))
                await until(lambda n=n: owned(store, ids) == min(2, 6 - n))
                assert len(executed) == min(6, n + 2)
                gates[executed[n]].set()
            assert set(await ended(store, *ids)) == {"done"}
        assert len(executed) == 6

    asyncio.run(main())


def test_a_run_whose_owner_is_dead_is_taken_over_at_once(store: Store) -> None:
    """Its lease lasts for another hour; its process does not live."""

    async def main() -> None:
        (id,) = await submitted(store, job("a"))
        row = row_of(store, id)
        claimed = store.claim(row.no, row.epoch, owner=DEAD, ttl_ms=3_600_000, lost=None)
        assert claimed is not None
        async with serving(store):
            assert await ended(store, id) == ["done"]
        assert [claim.found for claim in store.claims(row.no)] == ["queued", "died"]

    asyncio.run(main())


def test_a_run_whose_lease_lapsed_is_taken_over_and_no_sooner() -> None:
    async def main() -> None:
        now = 1_000_000
        store = MemoryStore(clock=lambda: now)
        (id,) = await submitted(store, job("a"))
        row = row_of(store, id)
        store.claim(row.no, row.epoch, owner="elsewhere|1|1.0|x", ttl_ms=10_000, lost=None)
        async with Holdfast(store) as hf, serving(store):
            now += 9_999
            await hf.submit(job("b"), id="b")
            await ended(store, "b")
            assert executed == ["b"]
            now += 1
            assert await ended(store, id) == ["done"]
        assert [claim.found for claim in store.claims(row.no)] == ["queued", "lapsed"]

    asyncio.run(main())


def test_a_run_that_failed_is_recorded_as_failed_and_not_tried_again(store: Store) -> None:
    async def main() -> None:
        (id,) = await submitted(store, fails())
        async with Holdfast(store) as hf, serving(store):
            assert await ended(store, id) == ["failed"]
            await hf.submit(job("b"), id="b")
            await ended(store, "b")
            run = await hf.get(id)
            assert (run.status, run.error) == ("failed", "RuntimeError: by itself")
            with pytest.raises(holdfast.StepFailed, match="by itself"):
                await run.wait()
        assert executed == ["fails", "b"]

    asyncio.run(main())


def test_a_cancelled_run_stops_in_the_worker(store: Store) -> None:
    async def main() -> None:
        gates["a"] = asyncio.Event()
        (id,) = await submitted(store, twice("a"))
        async with serving(store, lease=1), Holdfast(store) as hf:
            await until(lambda: executed == ["a"])
            await hf.cancel(id)
            await hf.submit(job("b"), id="b")
            assert await ended(store, id, "b") == ["cancelled", "done"]
        assert executed == ["a", "b"]

    asyncio.run(main())


# -- what it leaves alone ------------------------------------------------------------------------------------


def test_a_run_of_a_workflow_nobody_here_knows_is_left_alone_and_told_of_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        @workflow(version="1", name="of_another_service")
        async def unknown(n: int) -> None: ...

        ids = await submitted(store, unknown(1), unknown(2), unknown(3))
        del unknown
        gc.collect()
        assert "of_another_service" not in known.names()
        async with Holdfast(store) as hf, serving(store):
            await hf.submit(job("b"), id="b")
            await ended(store, "b")
            await until(lambda: "of_another_service" in caplog.text)
        assert {row_of(store, id).status for id in ids} == {"queued"}
        assert [store.claims(row_of(store, id).no) for id in ids] == [[], [], []]
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        told = [record for record in warnings if "of_another_service" in record.getMessage()]
        assert len(told) == 1 and "left alone" in told[0].getMessage()

    caplog.set_level(logging.INFO, "holdfast")
    worker_module.UNKNOWN_EVERY_S, before = 0.0, worker_module.UNKNOWN_EVERY_S
    try:
        asyncio.run(main())
    finally:
        worker_module.UNKNOWN_EVERY_S = before


def test_a_run_that_its_version_refuses_is_left_to_workers_of_the_old_one(store: Store) -> None:
    """While a deploy is rolled out both are there: were it claimed, it would be parked under the old ones' eyes."""

    def rolled(version: str) -> Any:
        @workflow(version=version, name="rolled", on_change="refuse")
        async def plan() -> str:
            return version

        return plan

    async def main() -> None:
        old = rolled("1")
        await submitted(store, old())
        del old
        gc.collect()
        new = rolled("2")
        assert known.accepted()["rolled"] == Code("2", PYTHON) and known.accepted()["job"] is None
        async with Holdfast(store) as hf, serving(store):
            await hf.submit(new(), id="new")
            await ended(store, "new")
        assert [row_of(store, id).status for id in ("run-0", "new")] == ["queued", "done"]
        assert store.claims(row_of(store, "run-0").no) == []

    asyncio.run(main())


def test_methods_are_no_workflows_of_a_worker() -> None:
    assert {"job", "slow", "Agent.add"} <= known.names()
    assert "Agent.think" not in known.names()


def test_where_two_have_one_name_the_one_of_the_runs_module_is_meant() -> None:
    def made(module: str, file: str) -> Any:
        space: dict[str, Any] = {"__name__": module}
        exec(compile("async def shared() -> None: ...", file, "exec"), space)
        return workflow(version="1")(space["shared"])

    first, second = made("first", "/a/first.py"), made("second", "/b/second.py")
    third = made("__main__", "/c/third.py")
    row = RunRow(
        id="x", workflow="shared", version="1", python="3", module="first", file="/elsewhere.py",
        inputs=b"", fingerprint=b"", state=None, seed=b"",
    )  # fmt: skip
    assert known.workflow_of(row) is first
    assert known.workflow_of(replace(row, module="second")) is second
    assert known.workflow_of(replace(row, module="__main__", file="/c/third.py")) is third
    assert known.workflow_of(replace(row, module="holdfast_main_third", file="/c/third.py")) is third
    with pytest.raises(holdfast.Mismatch, match=r"there are workflows named 'shared' in __main__.*first.*second"):
        known.workflow_of(replace(row, module="fourth", file="/d.py"))


# -- what it does not go on with -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"inputs": b"\xc1"}, "CodecError: "),
        ({"inputs": codec.encode({"wha": "a"}, codec.Types.none, "")}, "Mismatch: run 'x': strict does not take"),
        ({"fingerprint": bytes(16)}, "Mismatch: run 'x' was started with other arguments"),
    ],
)
def test_what_no_worker_may_guess_is_parked_once(store: Store, fields: dict[str, Any], error: str) -> None:
    async def main() -> None:
        id = planted(store, strict("a"), **fields)
        async with Holdfast(store) as hf, serving(store):
            assert await ended(store, id) == ["parked"]
            await hf.submit(job("b"), id="b")
            assert await ended(store, "b") == ["done"]
            told = (await hf.get(id)).error
        row = row_of(store, id)
        assert told is not None and told.startswith(error), told
        assert len(store.claims(row.no)) == 1 and row.owner is None
        assert executed == ["b"]

    asyncio.run(main())


def test_a_damaged_row_is_parked(store: Store) -> None:
    class Damaging:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def claim_due(self, owner: str, **options: Any) -> list[Taken]:
            taken = store.claim_due(owner, **options)
            return [each._replace(row=replace(each.row, seed=b"another")) for each in taken]

    async def main() -> None:
        id = planted(store, job("a"))
        damaging: Any = Damaging()
        async with serving(damaging):
            assert await ended(store, id) == ["parked"]
        assert "changed or damaged" in str(Failure.decode(row_of(store, id).error or b"", ""))
        assert executed == []

    asyncio.run(main())


def test_a_run_parked_for_its_version_goes_on_with_hf_run(store: Store) -> None:
    async def main() -> None:
        id = planted(store, stateful("a"), state=b"\x80", schema_version=1)
        async with serving(store):
            assert await ended(store, id) == ["parked"]
        with pytest.raises(holdfast.VersionMismatch, match="is of schema version 1"):
            async with Holdfast(store) as hf:
                await (await hf.get(id)).wait()

        @workflow(version="2", name="stateful", schema_version=1)
        async def newer(what: str) -> str:
            return await work(what)

        async with Holdfast(store) as hf:
            assert await hf.run(newer("a"), id=id) == "A"

    asyncio.run(main())


def test_a_parked_run_keeps_the_failures_that_are_to_be_tried_anew(store: Store) -> None:
    """It had failed, was being tried anew, and then met a worker that cannot go on with it."""

    async def main() -> None:
        before = Failure("RuntimeError", "before", seqs=[3, 4]).encode()
        id = planted(store, job("a"), fingerprint=bytes(16), error=before)
        async with serving(store):
            await ended(store, id)
        failure = Failure.decode(row_of(store, id).error or b"", "")
        assert (failure.type, failure.seqs) == ("Mismatch", [3, 4])

    asyncio.run(main())


# -- runs that end their workers -----------------------------------------------------------------------------


def died(epoch: int, found: str = "died", doing: bytes | None = None) -> Claim:
    return Claim(run_no=1, epoch=epoch, owner="x", claimed_ms=0, found=found, doing=doing)


def recorded(epoch: int) -> Checkpoint:
    return blank_row(1, epoch, kind="step")


@pytest.mark.parametrize(
    ("checkpoint", "found", "deaths"),
    [
        (None, ["queued", "died", "lapsed", "died"], 3),
        (None, ["", "died", "died"], 2),
        (2, ["", "died", "died", "died"], 2),  # epoch 2 made progress, and died
        (4, ["", "died", "died", "died"], 0),  # the owner now has, too
        (None, ["", "died", "running", "died"], 1),  # handed back in between
        (None, ["", "died", "died", "parked"], 0),  # a person resumed it
        (None, ["", "died", "died", "parked", "died"], 1),
    ],
)
def test_deaths_in_a_row(checkpoint: int | None, found: list[str], deaths: int) -> None:
    claims = [died(epoch, how) for epoch, how in enumerate(found, 1)]
    rows = [recorded(checkpoint)] if checkpoint else []
    assert len(deaths_in_a_row(rows, reversed(claims))) == deaths


def killed_over(store: Store, id: str, times: int) -> None:
    """So many owners of this run died, the last one only just."""
    doing = codec.encode([1, [["work", "", 1, 1]]], codec.Types.none, "")
    for n in range(times):
        row = row_of(store, id)
        owner = DEAD + str(n)
        claimed = store.claim(row.no, row.epoch, owner=owner, ttl_ms=3_600_000, lost="died" if row.owner else None)
        assert claimed is not None
        store.renew(owner, ttl_ms=3_600_000, doing={row.no: doing})


def test_a_run_that_ends_one_worker_after_another_is_parked(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ids = await submitted(store, twice("a"), twice("b"))
        killed_over(store, ids[0], 3)
        killed_over(store, ids[1], 2)
        async with serving(store), Holdfast(store) as hf:
            assert await ended(store, *ids) == ["parked", "done"]
            run = await hf.get(ids[0])
            assert run.error is not None and run.deaths == 3
            assert run.error.startswith("TooManyDeaths: 3 processes in a row died (or let the lease lapse) over run")
            assert "In flight then: work (3 of 3)" in run.error and "holdfast resume run-0" in run.error
            assert executed == ["b", "bb"]
            with pytest.raises(holdfast.HoldfastError, match="3 processes in a row"):
                await run.wait()
            assert await hf.run(twice("a"), id=ids[0]) == "AAA"
        assert any("parked: TooManyDeaths" in record.getMessage() for record in caplog.records)

    asyncio.run(main())


def test_a_persons_resume_counts_anew(store: Store) -> None:
    async def main() -> None:
        (id,) = await submitted(store, twice("a"))
        killed_over(store, id, 3)
        async with serving(store):
            assert await ended(store, id) == ["parked"]
        killed_over(store, id, 2)  # who resumed it died, and so did the worker after that
        async with serving(store):
            assert await ended(store, id) == ["done"]
        assert row_of(store, id).deaths == 5

    asyncio.run(main())


def test_a_long_run_is_not_blamed_for_many_deploys(store: Store) -> None:
    """As many owners died over it as over the one that is parked, but there is a checkpoint between."""

    async def main() -> None:
        (id,) = await submitted(store, twice("a"))
        killed_over(store, id, 2)
        gates["aa"] = asyncio.Event()
        async with Holdfast(store) as hf:
            running = asyncio.create_task(hf.run(twice("a"), id=id))
            await until(lambda: executed == ["a", "aa"])
            running.cancel()
            await asyncio.wait({running})
        killed_over(store, id, 2)
        del gates["aa"]
        async with serving(store):
            assert await ended(store, id) == ["done"]
        assert executed == ["a", "aa", "aa"] and row_of(store, id).deaths >= 3

    asyncio.run(main())
