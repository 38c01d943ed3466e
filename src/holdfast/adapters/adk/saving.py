"""``checkpoints``: the explicit style inside an agent, whose own code asks what is done, and saves after it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

from google.adk.agents.invocation_context import InvocationContext
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.state import State
from pydantic import PrivateAttr
from pydantic_core import from_json, to_json

from holdfast import codec
from holdfast.errors import CodecError, HoldfastError
from holdfast.store import Checkpoint

from .places import current_place

_PLAIN = (str, int, float, bool, type(None))


class CheckpointedContext(InvocationContext):
    """An ``InvocationContext`` that can save the state of its session."""

    _saves: Saves = PrivateAttr()

    async def save_state(self) -> None:
        """Make durable what has changed in ``session.state`` since the last time, also inside of lists and dicts; it
        is on return. ``temp:`` keys are left out, as everywhere in ADK.

        Raises ``CodecError`` if a value is no JSON, ``HoldfastError`` if a key was deleted, and then nothing was saved;
        ``StaleSessionError`` if somebody else has appended to the session."""
        await self._saves.save()


@asynccontextmanager
async def checkpoints(context: InvocationContext) -> AsyncGenerator[CheckpointedContext, None]:
    """``async with checkpoints(context) as context:`` in ``_run_async_impl`` of an agent: in the block ``await
    context.save_state()`` commits what ``context.session.state`` has become.

    When the invocation is resumed the state has what was saved in the block from its first line on, so that code which
    asks ``if "docs" not in state`` skips what it has done. What was not saved is gone, as in every other process. Where
    the app has no ``HoldfastPlugin`` it is the session service that keeps it, and ADK that resumes."""
    if not isinstance(context, InvocationContext):
        raise TypeError(f"checkpoints(…) takes the InvocationContext of an agent, got {type(context).__name__}")
    made = cast(CheckpointedContext, context.model_copy())
    made.__class__ = CheckpointedContext  # a copy like those that ADK makes for each agent, with one method more
    made._saves = Saves(made)
    await made._saves.restore()
    try:
        yield made
    finally:
        context.end_invocation = context.end_invocation or made.end_invocation


class Saves:
    """The saves of one block: each a checkpoint of the invocation, then an event that sets the state. A process that
    dies between the two leaves a checkpoint whose event comes about when the state is restored."""

    def __init__(self, context: InvocationContext) -> None:
        self._context = context
        self._state: dict[str, Any] = context.session.state
        self._agent = context.agent.name if context.agent is not None else context.session.app_name
        around = current_place()
        self._place = None if around is None else around.inside("checkpoints")
        self._saved = 0
        self._lock = asyncio.Lock()
        self._known = {key: _mark(value) for key, value in self._state.items() if not key.startswith(State.TEMP_PREFIX)}

    async def restore(self) -> None:
        if self._place is None:
            return
        self._place.is_passed_through()  # the agent's code runs again, with the state that was saved
        invocation = self._place.turn.recorded
        while (found := invocation.results.find(self._row())) is not None:
            delta: Any = codec.decode(found.result or b"", codec.Types.none, f"checkpoint {found.seq} ({found.name})")
            invocation.recalled += 1
            self._saved += 1
            await self._append(delta)
            self._hold(delta)

    async def save(self) -> None:
        async with self._lock:
            changed = self._changed()
            if changed:
                delta = {key: _as_json(key, value) for key, value in changed.items()}
                if self._place is not None:
                    row = self._row()
                    row.result = codec.encode(delta, codec.Types.none, f"what agent {self._agent!r} saved")
                    await self._place.turn.recorded.record(row)
                    self._saved += 1
                await self._append(delta)
                # What comes back as it is stays the object that the code holds; anything else is at once what it will
                # be when it is restored.
                self._hold(
                    {key: value if _is_same(value, delta[key]) else delta[key] for key, value in changed.items()}
                )
        if self._place is not None:
            await self._place.turn.recorded.check()

    def _hold(self, values: dict[str, Any]) -> None:
        self._state.update(values)
        self._known.update((key, _mark(value)) for key, value in values.items())

    def _changed(self) -> dict[str, Any]:
        if gone := self._known.keys() - self._state.keys():
            name = min(gone)
            raise HoldfastError(
                f"agent {self._agent!r}: key {name!r} was deleted from session.state, which no event of ADK can tell. "
                "Set it to None instead. Nothing was saved."
            )
        return {
            key: value
            for key, value in self._state.items()
            if not key.startswith(State.TEMP_PREFIX) and (key not in self._known or self._known[key] != _mark(value))
        }

    def _row(self) -> Checkpoint:
        assert self._place is not None
        row = self._place.turn.recorded.blank("step", "save_state")
        row.scope, row.n = self._place.scope, self._saved
        inputs = codec.encode_inputs({"agent": self._agent}, "the agent that saves")
        row.fingerprint, row.inputs = codec.fingerprint(inputs), codec.preview(inputs)
        return row

    async def _append(self, delta: dict[str, Any]) -> None:
        context = self._context
        event = Event(
            author=self._agent,
            invocation_id=context.invocation_id,
            branch=context.branch,
            actions=EventActions(state_delta=copy.deepcopy(delta)),  # the code may change what the state holds
        )
        if context.node_path:
            event.node_info.path = context.node_path
        await context.session_service.append_event(context.session, event)


def _mark(value: Any) -> object:
    """Equal as long as the value is the same, inside too."""
    if type(value) in _PLAIN:
        return type(value), value
    try:
        return codec.fingerprint(to_json(value))
    except Exception:  # whatever objects in a value raise when they are looked at; to save it says what they are
        return id(value)


def _as_json(key: str, value: Any) -> Any:
    try:
        return from_json(to_json(value))
    except Exception as error:
        raise CodecError(
            f"session.state[{key!r}] cannot be saved: {error}. Keep in the state what is JSON, and references to "
            "everything else. Nothing was saved."
        ) from error


def _is_same(value: Any, back: Any) -> bool:
    if type(value) is not type(back):
        return False
    if isinstance(value, dict):
        return value.keys() == back.keys() and all(_is_same(each, back[key]) for key, each in value.items())
    if isinstance(value, list):
        return len(value) == len(back) and all(map(_is_same, value, back))
    return bool(value == back)
