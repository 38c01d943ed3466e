"""``resume``: goes on with what a session has left unfinished."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from google.adk.agents.run_config import RunConfig
from google.adk.events.event import Event
from google.adk.runners import Runner

from holdfast.errors import HoldfastError, NotFound

from .invocation import run_id
from .plugin import plugin_of
from .turn import began_last


async def resume(
    runner: Runner, *, user_id: str, session_id: str, run_config: RunConfig | None = None
) -> AsyncGenerator[Event, None]:
    """Go on with the last unfinished invocation of a session, and yield its events; those that are stored already are
    not yielded again.

    Raises ``NotFound`` if there is no such session, or nothing in it is unfinished, ``Busy`` if another process is at
    it, ``VersionMismatch``, ``InDoubt``, ``Fenced``, ``StoreError``, or what an agent raised."""
    invocation_id = await _unfinished(runner, user_id, session_id.strip())
    events = runner.run_async(
        user_id=user_id, session_id=session_id, invocation_id=invocation_id, run_config=run_config
    )
    async with aclosing(events):
        async for event in events:
            yield event


async def _unfinished(runner: Runner, user_id: str, session_id: str) -> str:
    plugin = plugin_of(runner)
    if plugin is None:
        raise HoldfastError(
            f"app {runner.app_name!r} has no HoldfastPlugin: add plugins=[HoldfastPlugin(…)] to its App"
        )
    session = await runner.session_service.get_session(app_name=runner.app_name, user_id=user_id, session_id=session_id)
    where = f"session {session_id!r} of user {user_id!r} in app {runner.app_name!r}"
    if session is None:
        raise NotFound(f"there is no {where}")
    store = plugin.home._store
    for invocation_id in dict.fromkeys(event.invocation_id for event in reversed(session.events)):
        row = await plugin.home._read(store.get, run_id(runner.app_name, user_id, session_id, invocation_id))
        if row is None or row.status in ("done", "cancelled"):
            continue
        if began_last(await plugin.home._read(store.load, row.no)) is not None:
            return invocation_id
    waiting = " (an invocation that waits for an answer goes on with the answer)" if session.events else ""
    raise NotFound(f"{where} has no unfinished invocation{waiting}")
