"""What a worker does not go on with, and the runs that end one worker after another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from inside import ended, row_of, serving, until
from msgspec.structs import replace
from queued import DEAD, executed, gates, job, planted, stateful, strict, submitted, twice, work

import holdfast
from holdfast import Holdfast, codec, workflow
from holdfast.failure import Failure
from holdfast.flying import encode_doing
from holdfast.recall import blank_row
from holdfast.served import deaths_in_a_row
from holdfast.store import Checkpoint, Claim, Store, Taken


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
    doing = encode_doing(1, [["work", "", 1, 1]])
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
