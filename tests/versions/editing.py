"""A run recorded by one version of a workflow, and gone on with by another: what was executed, and what was kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import holdfast
from holdfast import step, workflow

did: list[str] = []
stops = [True]


@step
async def a(x: int) -> str:
    did.append(f"a{x}")
    return f"a{x}"


@step
async def b(x: int) -> str:
    did.append(f"b{x}")
    return f"b{x}"


@step
async def c(x: int) -> str:
    did.append(f"c{x}")
    return f"c{x}"


@step
async def bare() -> str:
    did.append("bare")
    return "bare"


@step
async def stop() -> str:
    """Where the first version fails, and the next goes on."""
    if stops:
        raise ConnectionError("away")
    return "stop"


@dataclass
class Edited:
    """``kept`` and ``executed`` are names of steps with their inputs, in order; ``stop`` is left out."""

    result: Any = None
    error: BaseException | None = None
    executed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    run: Any = None
    log: list[str] = field(default_factory=list)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def fails(hf: holdfast.Holdfast, body: Callable[..., Any], *given: Any, **options: Any) -> None:
    """Record ``body`` as a run "x" of workflow "edited", version 1, up to its failing ``stop``."""
    stops[:] = [True]
    first = workflow(name="edited", **{"version": 1, **options})(body)
    try:
        await hf.run(first(*given), id="x")
    except holdfast.StepFailed as failure:
        assert failure.step == "stop", failure
    else:
        raise AssertionError("it came to its end")
    did.clear()


async def goes_on(hf: holdfast.Holdfast, body: Callable[..., Any], *given: Any, **options: Any) -> Edited:
    """Go on with it as ``body``, version 2, where ``stop`` succeeds."""
    stops.clear()
    did.clear()
    edited, lines, log = Edited(), _Lines(), logging.getLogger("holdfast")
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(lines)
    try:
        call = workflow(name="edited", **{"version": 2, **options})(body)(*given)
        edited.result = await hf.run(call, id="x")
    except holdfast.HoldfastError as error:
        edited.error = error
    finally:
        log.removeHandler(lines)
        log.setLevel(before)
    edited.log = lines.lines
    edited.executed, edited.rows, edited.run = list(did), await hf.history("x"), await hf.get("x")
    edited.kept = [called(row) for row in edited.rows if row.attempts == 0]
    return edited


def called(row: Any) -> str:
    return row.name + "".join(str(value) for value in (row.inputs or {}).values())


def edit(url: str, before: Callable[..., Any], after: Callable[..., Any], **options: Any) -> Edited:
    async def main() -> Edited:
        async with holdfast.open(url) as hf:
            await fails(hf, before)
            return await goes_on(hf, after, **options)

    return asyncio.run(main())
