"""Nodes of a graph, and agents: those that call nothing are recorded as a whole once they are through."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from google.adk.agents.context import Context
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions

from holdfast import clock, codec
from holdfast.store import Checkpoint

from .places import Place, go_through
from .values import plain

_SHOWN = 4  # bytes of a node's input that its place is told apart by, as digits


async def run_node(
    around: Place, name: str, context: Context | None, steps: AsyncGenerator[Event, None], given: Any = None
) -> AsyncGenerator[Event, None]:
    """``steps`` of the node or agent ``name``, in ``around``. One that was finished yields again what it yielded, and
    is not executed; one that yielded and was not finished is executed again."""
    around.is_passed_through()
    inputs = codec.encode(plain(given), codec.Types.none, f"the input of node {name!r}")
    digest = codec.fingerprint(inputs)
    place = around.inside(name if context is None else f"{name}[{digest[:_SHOWN].hex()}]")
    invocation = around.turn.recorded
    row = invocation.blank("step", name)
    row.scope, row.fingerprint, row.inputs = place.scope, digest, codec.preview(inputs)
    await invocation.check()
    found = invocation.results.find(row)
    if found is not None:
        invocation.recalled += 1
        await steps.aclose()
        for event in _again(found, context):
            yield event
        return
    began = clock.monotonic()
    told: list[str] = []
    invocation.flying.add(place)
    try:
        async with aclosing(go_through(place, steps)) as events:
            async for event in events:
                if not event.partial and not place.holds_others:
                    told.append(event.model_dump_json(exclude_none=True))  # before ADK says where it comes from
                yield event
        if not place.holds_others:
            invocation.executed += 1
            row.duration_ms = (clock.monotonic() - began) * 1000
            row.result = codec.encode({"events": told, **_left(context)}, codec.Types.none, f"the events of {name!r}")
            await invocation.record(row)
    finally:
        invocation.landed(place)


def _left(context: Context | None) -> dict[str, Any]:
    """What the node has set and ADK has not put on an event yet."""
    if context is None:
        return {}
    actions = context.actions.model_dump(mode="json", include={"state_delta", "artifact_delta"}, exclude_defaults=True)
    left = {"output": plain(context._output_value), "route": plain(context._route_value), "actions": actions}
    return {name: value for name, value in left.items() if value}


def _again(row: Checkpoint, context: Context | None) -> list[Event]:
    told: Any = codec.decode(row.result or b"", codec.Types.none, f"checkpoint {row.seq} ({row.name})")
    events = [Event.model_validate_json(each) for each in told["events"]]
    for event in events:
        event.id = Event.new_id()
    if context is not None:
        actions = EventActions.model_validate(told.get("actions", {}))
        context.state.update(actions.state_delta)
        context.actions.artifact_delta.update(actions.artifact_delta)
        if "route" in told:
            context.route = told["route"]
        if "output" in told and not any(event.output is not None for event in events):
            context.output = told["output"]
    return events
