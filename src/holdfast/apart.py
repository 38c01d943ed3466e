"""Results that are too big for their row: kept beside it before it is recorded, brought back when it is recalled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .blobs import APART_FROM_BYTES, Reference, hashes_in
from .bringing import LAST
from .delivery import pass_on_cancellation
from .errors import CodecError, HoldfastError, StoreError
from .repairs import lost
from .run import LiveRun
from .store import Checkpoint

if TYPE_CHECKING:
    from .home import Home


async def set_apart(run: LiveRun, row: Checkpoint) -> None:
    """Let a row that is to be recorded name a result that is too big for it. Raises ``Stop`` if that cannot be kept."""
    if row.result is None or len(row.result) <= APART_FROM_BYTES or row.status != "done":
        return
    keeping = _moved(run.home, row)
    await _outlasted(run, keeping)
    try:
        name_apart(row, keeping.result())
    except HoldfastError as error:
        raise run.poison(error) from None


def _moved(home: Home, row: Checkpoint) -> asyncio.Future[Reference]:
    assert row.result is not None
    return home._move(home._blobs.keep, row.result)


async def set_apart_of(home: Home, row: Checkpoint) -> None:
    """The same for a row of a run that nobody advances. Raises ``StoreError``."""
    if row.result is not None and len(row.result) > APART_FROM_BYTES:
        name_apart(row, await _moved(home, row))


def name_apart(row: Checkpoint, named: Reference) -> None:
    row.result, row.blobs = named.encode(), hashes_in(named.encode(), row.result)


@asynccontextmanager
async def brought(run: LiveRun, row: Checkpoint, named: Reference, *, in_turn: bool) -> AsyncIterator[Checkpoint]:
    """The recorded row with its result in it, to be delivered inside: at its turn, or when it is recorded anew. Raises
    ``Stop``."""
    task = asyncio.current_task()
    assert task is not None
    turn = row.seq if in_turn else LAST
    entered = run.bringing.enter(turn)
    run.under_way[id(row)] = row, task
    if in_turn:
        run.delivery.hold(row.seq)  # what comes behind it waits
    try:
        await _outlasted(run, entered)
        bringing = run.home._move(run.home._blobs.content, named)
        await _outlasted(run, bringing)
        try:
            content: bytes = bringing.result()
        except CodecError as error:
            raise run.cannot_read(row, lost(run.id, row, error)) from error
        except StoreError as error:
            raise run.poison(error) from None
        yield replace(row, result=content)
    finally:
        run.bringing.leave(turn, entered)
        if in_turn:
            run.delivery.release(row.seq)
        run.call_ended(row)


async def _outlasted(run: LiveRun, awaited: asyncio.Future[Any]) -> None:
    """Wait for what takes its time only because of where values are kept: a cancellation that comes meanwhile, were
    they in the row, would find the outcome recorded. It reaches the task at its next pause."""
    interrupted = False
    while not awaited.done():
        try:
            await asyncio.wait({awaited})
        except asyncio.CancelledError:
            if run.is_leaving:
                raise
            interrupted = True
    run.check()
    if interrupted:
        task = asyncio.current_task()
        assert task is not None
        run.loop.call_soon(pass_on_cancellation, task)
