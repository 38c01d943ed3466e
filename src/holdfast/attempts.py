"""The body of a step, executed attempt by attempt until it has an outcome."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from . import clock
from .branches import Frame, StepProgress
from .errors import CodecError
from .executing import Execute, encoded, within
from .once import Once
from .run import LiveRun
from .store import Checkpoint

if TYPE_CHECKING:
    from .calls import Invocation

BACKOFF_MAX_S = 60.0
LET_GO_S = 5.0  # how long a task that is cancelled behind a failed attempt is waited for


async def attempts(
    call: Invocation, execute: Execute, row: Checkpoint, progress: StepProgress, inputs: bytes
) -> tuple[Any, BaseException | None, dict[str, Any] | None]:
    """(value, None, change of state) or (None, the final failure, None). A failed attempt leaves nothing."""
    frame, definition, run = call.frame, call.definition, call.frame.run
    scope = call.scope
    if run.records.retries(frame, definition.name, call.key, call.n):
        run.records.try_anew(scope)
    is_once = definition.once or run.records.is_irreversible(definition.name)
    once = Once(call, execute, row, progress) if is_once else None
    if once is not None and (known := await once.resumed(inputs)) is not None:
        return known.value, None, None
    alone = run.alone and (not call.in_thread or frame.task is None)
    base = frame.view.begin(alone=alone)
    for attempt in range(1, definition.attempts + 1):
        row.attempts = attempt
        view = base if definition.attempts == 1 else base.anew()
        inside = frame.inside(scope, view, progress)
        try:
            if once is None:
                value, change = await _attempt(call, execute, inside, row)
            else:
                value, change = await once.attempt(lambda inside=inside: _attempt(call, execute, inside, row))  # type: ignore[misc]
            return value, None, change
        except CodecError:
            raise  # a mistake in the program, told where it is made and not recorded as history
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if run.is_leaving or (task is not None and task.cancelling()):
                raise
            return None, error, None  # the body itself was cancelled from within: it failed
        except Exception as error:
            run.check()
            if attempt == definition.attempts or not isinstance(error, definition.retry_on):
                return None, error, None
        await clock.sleep(backoff_s(definition.backoff, attempt))
        run.check()
        await _let_go(run, scope)
        run.records.try_anew(scope)
    raise AssertionError("a step has at least one attempt")


async def _attempt(
    call: Invocation, execute: Execute, frame: Frame, row: Checkpoint
) -> tuple[Any, dict[str, Any] | None]:
    definition, run = call.definition, frame.run
    body = execute(call, frame, call.body)
    value = await body if definition.timeout is None else await within(definition.timeout, body)
    run.check()
    row.result, value = encoded(run, value, definition)
    return value, frame.view.change()


async def _let_go(run: LiveRun, scope: str) -> None:
    """End what a failed attempt has left under way, as ``gather`` does: the next one makes the same calls again. What
    is executed once is let finish: cut off, it would be in doubt."""
    await run.irreversible.landed(scope)
    left = run.tasks_inside(scope)
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=LET_GO_S)
        run.check()


def backoff_s(base: float, attempt: int) -> float:
    """Seconds before the next attempt: exponential with jitter (Brooker, "Exponential Backoff And Jitter", 2015)."""
    return random.uniform(0.5, 1.0) * min(BACKOFF_MAX_S, base * 2.0 ** min(attempt - 1, 32))
