"""A worker on the loop of the test, over any store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from holdfast import Holdfast
from holdfast.lease import Lease
from holdfast.store import RunRow, Store
from holdfast.worker import Queue, Worker

STORES = ("memory", "sqlite", "postgres")


def url_of(request: pytest.FixtureRequest, folder: Path) -> str:
    """Of the store that a test is run on: one of ``STORES``, new and empty."""
    if request.param == "postgres":
        new_schema: Callable[..., str] = request.getfixturevalue("new_schema")
        return new_schema()
    return "memory://" if request.param == "memory" else str(folder / "a.db")


@asynccontextmanager
async def serving(
    store: Store, *queues: Queue, concurrency: int = 10, lease: float = 10, grace_s: float = 10
) -> AsyncIterator[Holdfast]:
    """The ``Holdfast`` of a worker, which is drained at the end of the block."""
    async with Holdfast(store, Lease(lease)) as hf:
        worker = Worker(hf, list(queues) or [Queue("default")], concurrency=concurrency, grace_s=grace_s)
        task = asyncio.create_task(worker.serve())
        try:
            await until(lambda: worker._listening is not None or worker._free <= 0 or task.done())  # its first round
            yield hf
        except BaseException:
            worker.drain()
            worker.drain()  # at once
            await asyncio.wait({task})
            raise
        worker.drain()
        assert await task, "steps were cut off"


def row_of(store: Store, id: str) -> RunRow:
    row = store.get(id)
    assert row is not None
    return row


async def until(true: Callable[[], bool], what: Callable[[], object] = lambda: "", seconds: float = 20.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not true():
        assert asyncio.get_running_loop().time() < end, f"did not come about in {seconds} s: {what()}"
        await asyncio.sleep(0.005)


async def ended(store: Store, *ids: str) -> list[str]:
    """How these runs stand, once they are neither queued nor owned."""
    await until(
        lambda: all(row_of(store, id).status in ("done", "failed", "parked", "cancelled") for id in ids),
        lambda: [(id, row_of(store, id).status, row_of(store, id).error) for id in ids],
    )
    return [row_of(store, id).status for id in ids]
