"""What the processes of a campaign do on a disk of the campaign's: imported by the zygote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import crash_programs as programs

from holdfast import Holdfast, StoreError
from holdfast.store import Store, sqlite_log
from holdfast.store.sqlite import SQLiteStore

from .disk import NAME, SHORT_LOG, Disk, Plan

ANSWER_S = 15.0
_disks: list[Disk] = []  # a file system that is collected is gone for SQLite too


class CopyingStore(SQLiteStore):
    """Copies its log into the file every ``log_pages``.

    SQLite goes on when that fails, in a commit as at the end. But apsw raises what a file system of Python's raised
    even where SQLite took no notice; so it is done here as SQLite does it.
    """

    log_pages = SHORT_LOG

    def _open(self, *, writing: bool) -> apsw.Connection:
        db = super()._open(writing=writing)
        db.set_wal_hook(_copied_at(self.log_pages))
        return db

    def _close(self) -> None:
        while True:
            try:
                return super()._close()
            except (apsw.IOError, apsw.FullError, apsw.CantOpenError):
                continue  # that connection is closed; the others are not yet


def _copied_at(limit: int) -> Callable[[apsw.Connection, str, int], int]:
    def copied(db: apsw.Connection, name: str, pages: int) -> int:
        if pages >= limit:
            with suppress(apsw.Error):
                db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        return apsw.SQLITE_OK

    return copied


def faulty(folder: Path) -> Store:
    plan = Plan.read(folder)
    _disks.append(Disk(folder, plan.fault))
    sqlite_log._rename = _disks[-1].rename
    store = CopyingStore(folder / "sweep.db", vfs=NAME)
    store.log_pages = plan.log_pages
    return store


async def job(hf: Holdfast) -> list[Any]:
    """Two runs that share transactions, and a session. Whoever waits has an answer in time, whatever the disk does."""
    store: Any = hf._store
    plan = Plan.read(Path(store.path).parent)
    told: BaseException = AssertionError("no attempt")
    for _ in range(plan.attempts):
        async with asyncio.timeout(ANSWER_S):
            calls = hf.run(programs.branching(), id="one"), hf.run(programs.nested(), id="two"), programs.in_session(hf)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, BaseException)]
        if not failed:
            return list(outcomes)
        for told in failed:
            if not isinstance(told, StoreError):
                raise told
    raise told
