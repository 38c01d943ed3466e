"""``python adk_program.py SCENE start|resume|message|id|many|abandoned``: an app over ADK's own service on a file.

``ADK_DB`` is ADK's database, ``HOLDFAST_DB`` ours; without it ADK is alone. What is yielded goes to the ledger.
``SERVICE`` names another service of ADK's, or ours."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import warnings

warnings.simplefilter("ignore")

import adk_scenes as scenes  # noqa: E402
from adk_scripted import tell  # noqa: E402
from google.adk.agents.run_config import RunConfig, StreamingMode  # noqa: E402 - the warnings of its imports
from google.adk.apps import App, ResumabilityConfig  # noqa: E402
from google.adk.runners import Runner  # noqa: E402
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig  # noqa: E402
from google.adk.sessions.in_memory_session_service import InMemorySessionService  # noqa: E402
from google.adk.sessions.session import Session  # noqa: E402
from google.adk.sessions.sqlite_session_service import SqliteSessionService  # noqa: E402
from google.genai import types  # noqa: E402

_in_memory: dict[str, InMemorySessionService] = {}
USER, SESSION = {"user_id": "u"}, {"session_id": "s"}


async def main(scene: str, how: str) -> None:
    ours = os.environ.get("HOLDFAST_DB")
    plugins = []
    if ours:
        import holdfast
        from holdfast.adapters.adk import HoldfastPlugin

        hf = holdfast.open(ours, lease=float(os.environ.get("LEASE") or 10))
        options = {"version": os.environ.get("VERSION"), "on_change": os.environ.get("ON_CHANGE") or "restart"}
        plugins = [HoldfastPlugin(hf, **options)]
        if os.environ.get("SERVICE") == "holdfast":
            from holdfast.adapters.adk import HoldfastSessionService

            service = HoldfastSessionService(holdfast=hf)
            plugins = [HoldfastPlugin(service, **options)]
    if not (ours and os.environ.get("SERVICE") == "holdfast"):
        service = their_service()
    app = App(
        name="app",
        root_agent=scenes.SCENES[scene](),
        plugins=plugins,
        resumability_config=ResumabilityConfig(is_resumable=True),
    )
    runner = Runner(app=app, session_service=service)
    die_where_told()
    if how == "many":
        await asyncio.gather(*(begin(runner, name) for name in os.environ["SESSIONS"].split()))
    if how == "abandoned":
        tell(f"abandoned {' '.join(sorted(each.session_id for each in await service.abandoned()))}")
        return await hf.aclose()
    asked = {"app_name": "app", **USER, **SESSION}
    session = await service.get_session(**asked) or await service.create_session(**asked)
    said = types.Content(role="user", parts=[types.Part(text=os.environ.get("SAID") or "go")])
    if how == "answer":
        said, how = answered(session), "message"
    config = RunConfig(streaming_mode=StreamingMode.SSE) if os.environ.get("STREAM") else RunConfig()
    if window := os.environ.get("WINDOW"):
        config.get_session_config = GetSessionConfig(num_recent_events=int(window))
    if how == "resume" and ours:
        from holdfast.adapters.adk import resume

        events = resume(runner, **USER, **SESSION, run_config=config)
    elif how in ("resume", "id"):
        last = [event.invocation_id for event in session.events][-1]
        more = {"new_message": said} if how == "id" else {}
        events = runner.run_async(**USER, **SESSION, invocation_id=last, run_config=config, **more)
    else:
        events = runner.run_async(**USER, **SESSION, new_message=said, run_config=config)
    try:
        async for event in events:
            texts = [part.text for part in (event.content.parts if event.content else None) or [] if part.text]
            if texts and not event.partial:
                tell(f"said {event.author}: {' '.join(texts)}")
            if event.error_code:
                tell(f"error {event.error_code}")
    except Exception as error:
        tell(f"raised {type(error).__name__}: {str(error).splitlines()[0]}")
        if os.environ.get("TRACE"):
            raise
    session = await service.get_session(**asked)
    tell(f"events {len(session.events)}")
    stored = [part.text for event in session.events if event.content for part in event.content.parts or []]
    tell(f"stored {sorted(text for text in stored if text)}")
    tell(f"state {sorted((key, value) for key, value in session.state.items())}")
    if ours:
        await hf.aclose()


def their_service() -> BaseSessionService:
    kind, place = os.environ.get("SERVICE"), os.environ["ADK_DB"]
    if kind == "adk memory":
        return _in_memory.setdefault(place, InMemorySessionService())
    if kind == "adk database":
        from google.adk.sessions.database_session_service import DatabaseSessionService

        return DatabaseSessionService(f"sqlite+aiosqlite:///{place}")
    if kind == "vertex":
        from adk_vertex import sessions_at

        return sessions_at(os.environ["VERTEX_URL"], os.environ["VERTEX_ENGINE"])
    return SqliteSessionService(place)


async def begin(runner: Runner, session_id: str) -> None:
    await runner.session_service.create_session(app_name="app", **USER, session_id=session_id)
    said = types.Content(role="user", parts=[types.Part(text="go")])
    async for _ in runner.run_async(**USER, session_id=session_id, new_message=said):
        pass


def die_where_told() -> None:
    """``DIE_IN``: before a turn is recorded ("begin"), between the checkpoint of what an agent saves and the event that
    tells of it ("save"), or at the end of a turn, before anybody is told of it ("end")."""
    from holdfast.adapters.adk.invocation import Invocation
    from holdfast.adapters.adk.saving import Saves
    from holdfast.adapters.adk.turn import Turn

    async def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    where = {"begin": (Turn, "_record_begin"), "save": (Saves, "_append"), "end": (Invocation, "hand_back")}
    if told := os.environ.get("DIE_IN"):
        setattr(*where[told], die)


def answered(session: Session) -> types.Content:
    """A person confirms what was asked last."""
    asked = next(
        call
        for event in reversed(session.events)
        for call in event.get_function_calls()
        if call.name == "adk_request_confirmation"
    )
    answer = types.FunctionResponse(id=asked.id, name=asked.name, response={"confirmed": True})
    return types.Content(role="user", parts=[types.Part(function_response=answer)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
