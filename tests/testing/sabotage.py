"""Stores and programs with one thing wrong each, for the crash sweep to find. Imported by its processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from holdfast import step, workflow
from holdfast.store import Batch, Checkpoint, Committed, RunRow
from holdfast.store.sqlite import SQLiteStore


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow(version="1")
async def summed(n: int, *more: int, start: int = 0) -> int:
    total = start
    for each in (*range(n), *more):
        total = await add(total, each)
    return total


@workflow(version="1")
async def where_it_ran() -> list[int]:
    return [await add(1, 2), os.getpid()]


@workflow(version="1")
async def broken() -> int:
    return await add(1, 2) // 0


def sound(folder: Path) -> SQLiteStore:
    return SQLiteStore(folder / "mine.db")


class Forgetful(SQLiteStore):
    """Says that the second row is written, and does not write it."""

    def commit(self, batch: Batch) -> Committed:
        kept = [row for row in batch.appends if row.seq != 2]
        return super().commit(Batch(creates=batch.creates, appends=kept, finishes=batch.finishes))


def forgetful(folder: Path) -> SQLiteStore:
    return Forgetful(folder / "mine.db")


class Amnesiac(SQLiteStore):
    """Gives a resuming run its first row only."""

    def load(self, run_no: int, **given: Any) -> list[Checkpoint]:
        if "HOLDFAST_ZYGOTE" in os.environ:
            return super().load(run_no)[:1]
        return super().load(run_no, **given)


def amnesiac(folder: Path) -> SQLiteStore:
    return Amnesiac(folder / "mine.db")


class Undying(SQLiteStore):
    """Counts no deaths."""

    def claim(self, run_no: int, epoch: int, *, owner: str, ttl_ms: int, lost: str | None) -> RunRow | None:
        return super().claim(run_no, epoch, owner=owner, ttl_ms=ttl_ms, lost=None)


def undying(folder: Path) -> SQLiteStore:
    return Undying(folder / "mine.db")
