"""Calls of tools: a finished one is recalled, with what it changed; one that must happen once is never repeated."""

from __future__ import annotations

import inspect
from typing import Any

from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_context import ToolContext
from msgspec.structs import replace

from holdfast import clock, codec
from holdfast.context import give_key
from holdfast.definition import Definition
from holdfast.doubt import NOT_DONE, encode_intent, idempotency_key, in_doubt, told_by
from holdfast.errors import StepFailed
from holdfast.store import Checkpoint

from .invocation import Invocation
from .places import Place, current_place, enter
from .values import plain, with_actions, without_actions


class ToolPlace(Place):
    """The place that a call of a tool opens, with the row it is recorded in. ``row`` is None once it is answered."""

    row: Checkpoint | None = None
    intent: Checkpoint | None = None
    began = 0.0


async def before(tool: BaseTool, args: dict[str, Any], context: ToolContext) -> dict[str, Any] | None:
    """What the call is answered with instead of being executed. Raises ``Stop``."""
    around = current_place()
    if around is None:
        return None
    around.is_passed_through()
    invocation = around.turn.recorded
    await invocation.check()
    row = _asked(around, tool, args, context)
    inner = around.inside(row.name if row.key is None else f"{row.name}[{row.key}]")
    place = ToolPlace(inner.turn, inner.scope, around)
    enter(place)
    if tool._defers_response:  # it only says which agent is to run
        return None
    found = invocation.results.find(row)
    if found is not None:
        invocation.recalled += 1
        return _answer(found, tool, context)
    place.row, place.began = row, clock.monotonic()
    give_key(idempotency_key(invocation.id, row))
    step = step_of(tool)
    if step is not None and step.once:
        answer = await _once(place, step, args)
        if answer is not None:
            return answer
    invocation.executed += 1
    invocation.flying.add(place)
    return None


async def after(tool: BaseTool, context: ToolContext, result: Any) -> None:
    """The tool has returned, or a callback has answered in its stead."""
    place = current_place()
    if not isinstance(place, ToolPlace) or place.row is None:
        return
    row, place.row = place.row, None
    invocation, actions = place.turn.recorded, context.actions
    try:
        if place.holds_others or actions.requested_tool_confirmations or actions.requested_auth_configs:
            return  # it is gone through again, or asked again once somebody has answered
        row.duration_ms = (clock.monotonic() - place.began) * 1000
        row.result = codec.encode(with_actions(result, actions), codec.Types.none, f"the result of tool {tool.name!r}")
        await invocation.record(row)
    finally:
        invocation.landed(place)


async def failed(tool: BaseTool, error: BaseException) -> None:
    """The tool has raised. One that must happen once may have taken effect: raises ``Stop``."""
    place = current_place()
    if not isinstance(place, ToolPlace):
        return
    invocation, step = place.turn.recorded, step_of(tool)
    invocation.landed(place)
    if place.intent is None:
        return
    cause = error.__cause__ if isinstance(error, StepFailed) and error.__cause__ is not None else error
    if step is not None and isinstance(cause, step.not_done):
        await _close(place, place.intent)
        return
    why = f"it ended with {type(cause).__name__}: {cause}"
    raise invocation.poison(in_doubt(invocation.id, place.intent, why)) from error


def step_of(tool: BaseTool) -> Definition | None:
    """What is declared of a tool whose function is marked ``@step``."""
    definition = getattr(getattr(tool, "func", None), "_definition", None)
    return definition if isinstance(definition, Definition) and definition.kind == "step" else None


def _asked(around: Place, tool: BaseTool, args: dict[str, Any], context: ToolContext) -> Checkpoint:
    step = step_of(tool)
    row = around.turn.recorded.blank("step", tool.name)
    row.scope, row.key = around.scope, context.function_call_id or None
    row.n = around.count(f"{row.name} {row.key}")
    row.version = "" if step is None else step.version
    inputs = codec.encode_inputs(plain(args), f"the arguments of tool {tool.name!r}")
    if context.tool_confirmation is not None:
        row.version += " confirmed" if context.tool_confirmation.confirmed else " refused"
    row.fingerprint, row.inputs = codec.fingerprint(inputs), codec.preview(inputs)
    return row


def _answer(found: Checkpoint, tool: BaseTool, context: ToolContext) -> dict[str, Any]:
    """What was returned, and what was asked for besides, asked for again."""
    held: Any = codec.decode(found.result or b"", codec.Types.none, f"checkpoint {found.seq} ({found.name})")
    value, actions = without_actions(held)
    context.state.update(actions.state_delta)
    for name in actions.model_fields_set - {"state_delta"}:
        setattr(context.actions, name, getattr(actions, name))
    if value is None:  # ADK takes None for no answer, and an empty one of a long-running tool for "later"
        return {} if tool.is_long_running else {"result": None}
    answer: dict[str, Any] = value
    return answer


async def _once(place: ToolPlace, step: Definition, args: dict[str, Any]) -> dict[str, Any] | None:
    """Record that the call is about to happen. What it returned, if it has happened already; raises ``Stop`` if nobody
    can tell."""
    invocation, row = place.turn.recorded, place.row
    assert row is not None
    key = idempotency_key(invocation.id, row)
    intent = invocation.results.begun(row)
    if intent is not None:
        give_key(key := told_by(intent)[0])
        answer = await _verified(invocation, intent, step, args)
        if answer is not NOT_DONE:
            invocation.results.settled(intent)
            return answer if isinstance(answer, dict) else {"result": answer}
        await _close(place, intent)
    elif (unmet := invocation.results.unmet) is not None:
        why = f"the process that began it ended before its outcome was recorded, and {row.name!r} is asked for instead"
        raise invocation.poison(in_doubt(invocation.id, unmet, why))
    place.intent = replace(row, status="intent", result=encode_intent(key, None), started_ms=clock.now_ms())
    await invocation.record(place.intent)
    return None


async def _verified(invocation: Invocation, intent: Checkpoint, step: Definition, args: dict[str, Any]) -> Any:
    """What the call that an earlier process began has returned, or ``NOT_DONE``, as ``verify=`` finds out. Raises
    ``Stop`` if that cannot tell, or there is none."""
    why = "the process that began it ended before its outcome was recorded"
    if step.verify is None:
        raise invocation.poison(in_doubt(invocation.id, intent, why))
    try:
        answer = step.verify(**args)
        return await answer if inspect.isawaitable(answer) else answer
    except Exception as unsure:
        why = f"{why}; verify= could not tell ({type(unsure).__name__}: {unsure})"
        raise invocation.poison(in_doubt(invocation.id, intent, why)) from unsure


async def _close(place: ToolPlace, intent: Checkpoint) -> None:
    """The call certainly has not happened."""
    place.turn.recorded.results.settled(intent)
    await place.turn.recorded.record(replace(intent, status="not_done", result=None, started_ms=clock.now_ms()))
    place.intent = None
