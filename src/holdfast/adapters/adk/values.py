"""What ADK's values are in a row, and back: results of tools, actions, responses of models, events."""

from __future__ import annotations

from typing import Any

from google.adk.events.event_actions import EventActions
from google.genai import types
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

_PART = "genai.Part"  # the key that stands for a part of a message, which a tool may return
_VALUE, _ACTIONS = "adk.value", "adk.actions"


def plain(value: Any) -> Any:
    """``value`` as the codec takes it. What is no JSON becomes what ADK itself would store of it."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, types.Part):
        return {_PART: value.model_dump_json(exclude_none=True)}
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {key if isinstance(key, (str, int)) else str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return to_jsonable_python(value, fallback=str)


def restored(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_PART}:
            return types.Part.model_validate_json(value[_PART])
        return {key: restored(each) for key, each in value.items()}
    if isinstance(value, list):
        return [restored(each) for each in value]
    return value


def with_actions(value: Any, actions: EventActions) -> Any:
    """A result together with what the tool or node has asked for besides: changes of state, artifacts, a transfer."""
    dumped = actions.model_dump(mode="json", exclude_defaults=True)
    asked = {name: told for name, told in dumped.items() if told is not None}
    return {_VALUE: plain(value), _ACTIONS: asked} if asked else plain(value)


def without_actions(held: Any) -> tuple[Any, EventActions]:
    if isinstance(held, dict) and held.keys() == {_VALUE, _ACTIONS}:
        return restored(held[_VALUE]), EventActions.model_validate(held[_ACTIONS])
    return restored(held), EventActions()
