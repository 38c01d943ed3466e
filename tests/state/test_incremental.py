"""A checkpoint writes what changed; what nobody touches costs nothing; reading is bounded by what is live."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import CodecError, Holdfast, codec, delta, step, weights, workflow
from holdfast.state import decode_change, encode_change, replay
from holdfast.store import Checkpoint
from holdfast.views import View

KB = 1024
BIG = [{"role": "user", "content": "m" * KB} for _ in range(1000)]


def rows_of(hf: Holdfast, id: str) -> list[Checkpoint]:
    row = hf._store.get(id)
    assert row is not None
    return hf._store.load(row.no)


def live(hf: Holdfast, id: str) -> dict[str, Any]:
    row = hf._store.get(id)
    assert row is not None
    return replay(row, rows_of(hf, id)).state


def written(rows: list[Checkpoint]) -> list[int]:
    return [len(row.delta or b"") for row in rows]


@step
async def append(n: int) -> None:
    holdfast.state["messages"].append({"n": n, "content": "c" * KB})


@step
async def rewrite(n: int) -> None:
    holdfast.state["messages"][n % 20]["content"] = f"{n} " * 20


@step
async def count(n: int) -> None:
    holdfast.state["count"] = n


@workflow(version="1")
async def turns(name: str, number: int, looks: bool = False) -> None:
    if looks:
        assert holdfast.state["messages"] is not None
    for n in range(number):
        await {"append": append, "rewrite": rewrite, "count": count}[name](n)


@pytest.mark.parametrize("looks", [False, True])
def test_a_list_that_grows_is_written_less_than_twice(looks: bool) -> None:
    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            await hf.run(turns("append", 600, looks), id="a", state={"messages": []})
            final = len(codec.encode(live(hf, "a"), codec.Types.none, "it"))
            assert final > 600 * KB
            assert sum(written(rows_of(hf, "a"))) < 1.2 * final

    asyncio.run(program())


def test_what_is_written_of_a_small_key_beside_a_big_one_is_small() -> None:
    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            await hf.run(turns("count", 50, True), id="a", state={"messages": BIG, "count": 0})
            assert max(written(rows_of(hf, "a"))) < 100

    asyncio.run(program())


@pytest.mark.parametrize("looks", [False, True])
def test_a_value_is_written_whole_again_when_its_changes_outweigh_it(looks: bool) -> None:
    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            messages = [{"content": "c" * 100} for _ in range(20)]
            await hf.run(turns("rewrite", 500, looks), id="a", state={"messages": messages})
            rows = rows_of(hf, "a")
            size = delta.weight(live(hf, "a"))
            since, longest, fulls = 0, 0, 0
            for row in rows:
                change = decode_change(row)
                since += delta.weight(change.step or {}) + delta.weight(change.body or {})
                if change.full:
                    fulls, since = fulls + 1, 0
                longest = max(longest, since)
            assert fulls > 5
            assert longest < 1.5 * weights.SLACK * size
            assert sum(written(rows)) < 3 * sum(delta.weight(decode_change(row).step) for row in rows)

    asyncio.run(program())


def test_a_session_is_written_whole_though_it_is_opened_for_each_save() -> None:
    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            for n in range(120):
                async with hf.session("s", {"messages": [{"content": "c" * 100} for _ in range(20)]}) as session:
                    session.state["messages"][n % 20]["content"] = f"{n} " * 20
                    await session.save()
            fulls = [row.seq for row in rows_of(hf, "s") if decode_change(row).full]
            assert 2 < len(fulls) < 30
            assert live(hf, "s")["messages"][7]["content"] == "107 " * 20

    asyncio.run(program())


def test_a_resumed_run_knows_how_much_was_written_of_a_value() -> None:
    """A row that is recalled counts as it did when it was written."""

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            stop_at = [0]

            @workflow(version="1")
            async def plan() -> None:
                for n in range(60):
                    await rewrite(n)
                    if n == stop_at[0]:
                        raise asyncio.CancelledError

            for at in range(0, 70, 2):
                stop_at[0] = at
                with suppress(asyncio.CancelledError, holdfast.HoldfastError):
                    await hf.run(plan(), id="a", state={"messages": [{"content": "c" * 100} for _ in range(20)]})
            fulls = [row.seq for row in rows_of(hf, "a") if decode_change(row).full]
            assert 1 <= len(fulls) < 10, fulls

    asyncio.run(program())


def test_a_value_that_is_not_what_it_was_is_named_by_run_key_and_seq(tmp_path: Path) -> None:
    async def program() -> None:
        async with holdfast.open(str(tmp_path / "jobs.db")) as hf:
            async with hf.session("the session", {"messages": [{"content": "c" * 100}] * 20}) as session:
                for n in range(100):
                    session.state["messages"][n % 20]["content"] = f"{n} " * 20
                    await session.save()
            rows = rows_of(hf, "the session")
            row = hf._store.get("the session")
            assert row is not None
            assert replay(row, rows).state == live(hf, "the session")
            spoilt = next(each for each in reversed(rows) if decode_change(each).full)
            change = decode_change(spoilt)
            assert change.full is not None
            change.full["messages"][1][3]["content"] = "not what it was"
            spoilt.delta = encode_change(change, "it")
            with pytest.raises(CodecError, match=rf"'the session', checkpoint {spoilt.seq}: the value of 'messages'"):
                replay(row, rows)

    asyncio.run(program())


@pytest.mark.parametrize("alone", [False, True])
def test_what_nobody_touches_is_neither_copied_nor_compared(alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"big": BIG, "other": {"deep": [1]}, "n": 1}
    view = View(base).begin(alone=alone)
    touched: list[Any] = []
    for name in ("copy", "same", "digest"):
        original = getattr(delta.values, name)
        monkeypatch.setattr(delta.values, name, lambda v, *a, _=original: (touched.append(v), _(v, *a))[1])
    assert "big" in view.current and len(view.current) == 3
    view.put("n", 2)
    view.hand_out("other")["deep"].append(2)
    assert view.change() == {"n": ["set", [1], 2], "other": ["merge", {"deep": ["add", [2]]}]}
    assert view.current["big"] is BIG and base["other"] == {"deep": [1]}
    assert not any(value is BIG for value in touched)


def test_a_step_sees_what_the_body_has_done_to_what_it_holds() -> None:
    """Also if it begins beside others, and the body goes on changing it."""
    seen: list[Any] = []

    @step
    async def look() -> None:
        await asyncio.sleep(0)
        seen.append(list(holdfast.state["items"]))

    @workflow(version="1")
    async def plan() -> None:
        items = holdfast.state["items"]
        items.append("before")
        both = [asyncio.create_task(look()) for _ in range(2)]
        await asyncio.sleep(0)
        items.append("after")
        await asyncio.gather(*both)
        await look()

    async def program() -> None:
        async with holdfast.open("memory://") as hf:
            await hf.run(plan(), id="a", state={"items": []})
            assert seen == [["before"], ["before"], ["before", "after"]]
            assert live(hf, "a") == {"items": ["before", "after"]}

    asyncio.run(program())
