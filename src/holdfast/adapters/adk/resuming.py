"""``resume``: goes on with what a session has left unfinished."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.adk.agents.run_config import RunConfig
from google.adk.events.event import Event
from google.adk.runners import Runner

from .plugin import plugin_of, without_plugin


async def resume(
    runner: Runner, *, user_id: str, session_id: str, run_config: RunConfig | None = None
) -> AsyncGenerator[Event, None]:
    """Go on with the last unfinished invocation of a session, and yield its events; those that are stored already are
    not yielded again.

    Raises ``NotFound`` if there is no such session, or nothing in it is unfinished, ``Busy`` if another process is at
    it, ``VersionMismatch``, ``InDoubt``, ``Fenced``, ``StoreError``, or what an agent raised."""
    if plugin_of(runner) is None:
        raise without_plugin(runner.app_name)
    async with aclosing(runner.run_async(user_id=user_id, session_id=session_id, run_config=run_config)) as events:
        async for event in events:
            yield event
