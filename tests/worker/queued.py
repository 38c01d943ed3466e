"""What the tests of a worker leave to it: jobs that tell what was executed, and wait at gates."""

from __future__ import annotations

import asyncio
from typing import Any

from inside import row_of
from msgspec.structs import replace

from holdfast import Holdfast, lease, step, workflow
from holdfast.admission import new_row
from holdfast.store import Batch, Store

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
