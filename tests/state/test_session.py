"""The explicit style: ``hf.session``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
import warnings
from pathlib import Path

import apsw
import pytest

import holdfast
from holdfast import Busy, CodecError, Fenced, HoldfastError, Mismatch, NotRecorded, workflow


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4()}" if request.param == "memory" else str(tmp_path / "jobs.db")


def test_save_and_reopen(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            given = {"docs": [], "n": 1}
            async with hf.session("s", given) as session:
                assert session.state == given and session.id == "s"
                await session.save()  # nothing changed
                session.state["docs"].append({"pages": [1]})
                await session.save()
                session.state["docs"][0]["pages"].append(2)  # changes inside are seen
                del session.state["n"]
                await session.save()
            assert given == {"docs": [], "n": 1}
            async with hf.session("s", {"ignored": True}) as session:
                assert session.state == {"docs": [{"pages": [1, 2]}]}
                session.state = {"replaced": {"a": 1}}
                await session.save()
        async with holdfast.open(url) as hf:
            async with hf.session("s") as session:
                assert session.state == {"replaced": {"a": 1}}
            rows = await hf.history("s")
            assert [(row.seq, row.kind) for row in rows] == [(1, "save"), (2, "save"), (3, "save")]
            run = await hf.get("s")
            assert (run.status, run.workflow, run.owner) == ("waiting", "", None)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(program())


def test_nothing_is_saved_without_save(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            with pytest.warns(NotRecorded, match=r"'s' was closed with changes.*await session\.save\(\) first"):
                async with hf.session("s") as session:
                    session.state["docs"] = [1]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(ZeroDivisionError):  # who leaves by an error has other worries
                    async with hf.session("s") as session:
                        assert session.state == {}
                        session.state["docs"] = [1]
                        raise ZeroDivisionError
            assert await hf.history("s") == []

    asyncio.run(program())


def test_two_sessions_of_one_id(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            async with hf.session("s") as session:
                with pytest.raises(Busy, match="'s' is open already in this process"):
                    async with hf.session("s"):
                        pass
                with pytest.raises(HoldfastError, match="open already"):
                    await session.__aenter__()
                async with hf.session("other"):
                    pass
                session.state["n"] = 1
                await session.save()

            opened: list[int] = []

            async def one(number: int) -> None:
                try:
                    async with hf.session("s") as session:
                        opened.append(number)
                        session.state["n"] += 1
                        await asyncio.sleep(0.02)
                        await session.save()
                except Busy:
                    pass

            await asyncio.gather(*(one(number) for number in range(5)))
            assert len(opened) == 1
            async with hf.session("s") as session:
                assert session.state == {"n": 2}

    asyncio.run(program())


def test_another_owner_waits_until_it_is_closed(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf, holdfast.open(url) as remote:
            order: list[str] = []

            async def second() -> None:
                async with remote.session("s") as session:
                    order.append("second")
                    assert session.state == {"n": 1}

            async with hf.session("s") as session:
                waiting = asyncio.create_task(second())
                await asyncio.sleep(0.15)
                session.state["n"] = 1
                await session.save()
                order.append("first")
            await asyncio.wait_for(waiting, 5)
            assert order == ["first", "second"]

    asyncio.run(program())


def test_a_save_after_a_takeover_is_fenced(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf, holdfast.open(url) as remote:
            async with hf.session("s") as session:
                session.state["n"] = 1
                await session.save()
                row = hf._store.get("s")
                assert row is not None
                assert hf._store.claim(row.no, row.epoch, owner=remote.owner, ttl_ms=10_000, lost="died") is not None
                session.state["n"] = 2
                for _ in range(2):
                    with pytest.raises(Fenced, match="'s' was taken over"):
                        await session.save()
            async with remote.session("s") as session:
                assert session.state == {"n": 1}

    asyncio.run(program())


def test_a_value_that_cannot_be_saved_leaves_the_session_usable(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            async with hf.session("s") as session:
                session.state["docs"] = [1, object()]
                with pytest.raises(CodecError) as told:
                    await session.save()
                assert "docs" in told.value.path and "[1]" in told.value.path
                session.state["docs"].pop()
                await session.save()
                session.state["loop"] = session.state["docs"]
                session.state["docs"].append(session.state["docs"])
                with pytest.raises(CodecError):
                    await session.save()
                session.state["docs"].pop()
                await session.save()
            async with hf.session("s") as session:
                assert session.state == {"docs": [1], "loop": [1]}
            with pytest.warns(NotRecorded):
                async with hf.session("s") as session:
                    session.state["bad"] = object()
            async with hf.session("s") as session:  # it was handed back all the same
                assert session.state == {"docs": [1], "loop": [1]}
            with pytest.raises(CodecError):
                async with hf.session("t", {"bad": object()}):
                    pass

    asyncio.run(program())


def test_overlapping_and_interrupted_saves_save_once(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf:
            async with hf.session("s", {"docs": []}) as session:

                async def add(number: int) -> None:
                    session.state["docs"].append(number)
                    await session.save()

                await asyncio.gather(*(add(number) for number in range(5)))
                session.state["docs"].append("interrupted")
                saving = asyncio.create_task(session.save())
                await asyncio.sleep(0)
                saving.cancel()
                await asyncio.wait([saving])
                session.state["docs"].append("last")
                await session.save()
            async with hf.session("s") as session:
                assert session.state == {"docs": [0, 1, 2, 3, 4, "interrupted", "last"]}

    asyncio.run(program())


def test_opening_that_is_given_up_holds_nothing(url: str) -> None:
    async def program() -> None:
        async with holdfast.open(url) as hf, holdfast.open(url) as remote:

            async def use(owner: holdfast.Holdfast, id: str) -> None:
                async with owner.session(id):
                    pass

            await use(hf, "known")
            for turns in range(1, 12):
                for id in ("known", f"new {turns}"):
                    opening = asyncio.create_task(use(hf, id))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    opening.cancel()
                    await asyncio.wait([opening])
                    await asyncio.wait_for(use(remote, id), 5)
                    await use(hf, id)

    asyncio.run(program())


def test_closing_the_holdfast_first(url: str) -> None:
    async def program() -> None:
        hf = holdfast.open(url)
        async with hf.session("s") as session:
            session.state["n"] = 1
            await session.save()
            await hf.aclose()
            session.state["n"] = 2
            with pytest.raises(HoldfastError, match="closed"):
                await asyncio.wait_for(session.save(), 5)
        async with holdfast.open(url) as again, asyncio.timeout(5), again.session("s") as session:
            assert session.state == {"n": 1}

    asyncio.run(asyncio.wait_for(program(), 10))


def test_what_is_refused(url: str) -> None:
    @workflow
    async def plan() -> None: ...

    async def program() -> None:
        async with holdfast.open(url) as hf:
            for id in ("", " ", 3):
                with pytest.raises(TypeError, match="a session's id"):
                    hf.session(id)  # type: ignore[arg-type]
            with pytest.raises(HoldfastError, match="not open"):
                await hf.session("s").save()
            await hf.run(plan(), id="a")
            with pytest.raises(Mismatch, match="'a' is a run of workflow"):
                async with hf.session("a"):
                    pass
            async with hf.session("s"):
                pass
            with pytest.raises(Mismatch, match="belongs to a session"):
                await hf.run(plan(), id="s")

    asyncio.run(program())


@pytest.mark.crash
def test_a_crash_between_saves(tmp_path: Path) -> None:
    program = """
import asyncio, os, sys, holdfast

async def main():
    async with holdfast.open("jobs.db") as hf, hf.session("s", {"done": []}) as session:
        for stage in ("parse", "assess", "report"):
            if stage not in session.state["done"]:
                print(stage, flush=True)
                session.state["done"].append(stage)
                if stage == sys.argv[1]:
                    os.kill(os.getpid(), 9)
                await session.save()
                if "after " + stage == sys.argv[1]:
                    os.kill(os.getpid(), 9)
        print(session.state["done"])

asyncio.run(main())
"""

    def run(kill_at: str) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", program, kill_at]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, env=dict(os.environ))
        return done.returncode, done.stdout.splitlines()

    assert run("assess") == (-9, ["parse", "assess"])
    assert run("after assess") == (-9, ["assess"])
    assert run("report") == (-9, ["report"])
    assert run("never") == (0, ["report", "['parse', 'assess', 'report']"])


def test_a_damaged_row_is_named_and_not_read(tmp_path: Path) -> None:
    async def program() -> None:
        async with holdfast.open(tmp_path / "jobs.db") as hf, hf.session("s") as session:
            session.state["amount"] = "1000"
            await session.save()
        db = apsw.Connection(str(tmp_path / "jobs.db"))
        db.execute("UPDATE checkpoint SET delta = CAST(replace(delta, '1000', '9000') AS BLOB)")
        assert db.changes() == 1
        db.close()
        async with holdfast.open(tmp_path / "jobs.db") as hf:
            for _ in range(2):  # and it is not held meanwhile
                with pytest.raises(CodecError, match=r"session 's', checkpoint 1: .*checksum"):
                    async with hf.session("s"):
                        pass

    asyncio.run(program())
