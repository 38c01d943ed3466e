"""The body of a step called where code of its kind runs, for at most so long, and its result as it is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import codec
from .branches import Frame, entered, frame_of
from .definition import Definition
from .errors import CodecError
from .run import LiveRun

if TYPE_CHECKING:
    from .calls import Invocation

RESULT_MAX_BYTES = 256 * 1024 * 1024
_told_of: set[str] = set()  # of which steps it was told in this process that their results come near that

_IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes})

Execute = Callable[["Invocation", Frame, Callable[[], Any]], Awaitable[Any]]
"""Calls a body in a frame, where code of its kind runs: on the loop, or in the thread that waits."""


async def in_task(call: Invocation, frame: Frame, body: Callable[[], Any]) -> Any:
    """``Execute`` for what is async: on the task that asks now, which need not be the one that made the call."""
    task = asyncio.current_task()
    assert task is not None
    frame.task = task
    if (driving := frame_of(task)) is not None:
        frame.depth = driving.depth
    with entered(frame, task):
        return await body()


async def within(seconds: float, body: Awaitable[Any]) -> Any:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await body
    except TimeoutError as error:
        if limit.expired() and not str(error):
            error = TimeoutError(f"an attempt took longer than timeout={seconds:g} s")
        error.__dict__["is_late"] = limit.expired()
        raise error from None


def is_late(error: BaseException) -> bool:
    """Whether an attempt ended because its time was over, whatever the body would say of a ``TimeoutError``."""
    return bool(error.__dict__.get("is_late"))


def _refuse_too_big(run: LiveRun, size_bytes: int, where: str) -> None:
    """A result passes through memory whole, when it is recorded and each time it is recalled."""
    instead = "Write it to a file and return a holdfast.Blob of that, which is read piece by piece."
    if size_bytes > RESULT_MAX_BYTES:
        raise CodecError(f"{where} has {size_bytes:,} bytes, and at most {RESULT_MAX_BYTES:,} are recorded. {instead}")
    if size_bytes > RESULT_MAX_BYTES // 2 and where not in _told_of:
        _told_of.add(where)
        run.log.warning("%s has %s bytes, at most %s are recorded. %s", where, size_bytes, RESULT_MAX_BYTES, instead)


def encoded(run: LiveRun, value: Any, definition: Definition) -> tuple[bytes, Any]:
    """The bytes of a result, and the result as every recall will give it: a value of its own, whatever else still
    holds the step's."""
    where = f"the result of step {definition.name!r}"
    try:
        data = codec.encode(value, definition.result_types, where, root=definition.name)
        _refuse_too_big(run, len(data), where)
        if type(value) in _IMMUTABLE:
            return data, value
        return data, codec.decode(data, definition.result_types, where, root=definition.name)
    except CodecError as unfit:  # no checkpoint tells of it, so a line does
        run.log.warning("%s", unfit)
        raise
