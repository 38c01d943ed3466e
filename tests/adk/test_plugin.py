"""The plugin in one process: what it takes, where it stands, and that it keeps out of the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from adk_scripted import Scripted, after, call, text
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.genai import types

import holdfast
from holdfast import Busy, HoldfastError, NotFound, StoreError
from holdfast.adapters.adk import HoldfastPlugin, HoldfastSessionService, resume
from holdfast.adapters.adk.history import fingerprint

WHO = {"user_id": "u", "session_id": "s"}


@pytest.fixture(autouse=True)
def _ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("LEDGER", str(tmp_path / "ledger"))


async def runner_of(agent: LlmAgent, *plugins: BasePlugin) -> Runner:
    service = InMemorySessionService()
    await service.create_session(app_name="app", **WHO)
    return Runner(app=App(name="app", root_agent=agent, plugins=list(plugins)), session_service=service)


async def asked(runner: Runner) -> list[str]:
    message = types.Content(role="user", parts=[types.Part(text="go")])
    events = [event async for event in runner.run_async(**WHO, new_message=message)]
    return [part.text for event in events if event.content for part in event.content.parts or [] if part.text]


def agent(tool: Any) -> LlmAgent:
    script = after([[call(tool.__name__)], [text("done")]])
    return LlmAgent(name="solo", model=Scripted("solo", script), tools=[tool])


def test_an_app_that_is_not_resumable_over_a_service_in_memory() -> None:
    """What failed is tried again; what was finished before is not."""
    tried = 0

    def flaky() -> str:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise ConnectionError("no route")
        return "well"

    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            runner = await runner_of(agent(flaky), HoldfastPlugin(hf))
            with pytest.raises(ConnectionError):
                await asked(runner)
            (run,) = await hf.runs()
            assert run.status == "failed" and run.error is not None
            assert [event.author async for event in resume(runner, **WHO)][-1] == "solo"
            assert (await hf.get(run.id)).status == "done"
            assert [row.name for row in await hf.history(run.id) if row.kind == "step"] == [
                "model solo",
                "flaky",
                "model solo",
            ]
            with pytest.raises(NotFound):
                await anext(resume(runner, **WHO))

    asyncio.run(main())


def test_two_tasks_of_one_process_are_not_at_one_invocation() -> None:
    async def main() -> None:
        began, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            began.set()
            await go_on.wait()
            return "well"

        async with holdfast.open("memory://") as hf:
            runner = await runner_of(agent(slow), HoldfastPlugin(hf))
            first = asyncio.create_task(asked(runner))
            await began.wait()
            with pytest.raises(Busy):
                await asked(runner)
            go_on.set()
            assert await first == ["done"]

    asyncio.run(main())


def test_who_stops_listening_leaves_it_unfinished() -> None:
    def tool() -> str:
        return "well"

    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            runner = await runner_of(agent(tool), HoldfastPlugin(hf))
            events = runner.run_async(**WHO, new_message=types.Content(role="user", parts=[types.Part(text="go")]))
            await anext(events)
            await events.aclose()
            assert [run.status for run in await hf.runs()] == ["interrupted"] or [
                run.status for run in await hf.runs()
            ] == ["running"]
            assert [event async for event in resume(runner, **WHO)]

    asyncio.run(main())


def test_what_it_takes() -> None:
    async def main() -> None:
        def tool() -> str:
            return "well"

        with pytest.raises(TypeError, match="takes a Holdfast or a HoldfastSessionService"):
            HoldfastPlugin("loans.db")
        async with holdfast.open("memory://") as hf:
            with pytest.raises(ValueError, match="on_change"):
                HoldfastPlugin(hf, on_change="again")  # type: ignore[arg-type]
            with pytest.raises(HoldfastError, match="does not know where invocations are to be recorded"):
                await asked(await runner_of(agent(tool), HoldfastPlugin()))
            late = await runner_of(agent(tool), BasePlugin(name="first"), HoldfastPlugin(hf))
            with pytest.raises(HoldfastError, match="plugin 'first' stands before HoldfastPlugin"):
                await asked(late)
            bare = await runner_of(agent(tool))
            assert await asked(bare) == ["done"] and await hf.runs() == []
            with pytest.raises(HoldfastError, match="has no HoldfastPlugin"):
                await anext(resume(bare, **WHO))
            nobody = await runner_of(agent(tool), HoldfastPlugin(hf))
            with pytest.raises(NotFound, match="there is no session"):
                await anext(resume(nobody, user_id="u", session_id="other"))

    asyncio.run(main())


def test_without_a_store_it_takes_that_of_the_sessions_and_without_a_message_what_is_unfinished() -> None:
    tried = 0

    def flaky() -> str:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise ConnectionError("no route")
        return "well"

    async def main() -> None:
        async with HoldfastSessionService("memory://") as service:
            await service.create_session(app_name="app", **WHO)
            app = App(name="app", root_agent=agent(flaky), plugins=[HoldfastPlugin()])
            runner = Runner(app=app, session_service=service)
            with pytest.raises(ConnectionError):
                await asked(runner)
            assert [event.author async for event in runner.run_async(**WHO)][-1] == "solo"
            assert [run.status for run in await service.holdfast.runs()] == ["done"]
            with pytest.raises(NotFound, match="has no unfinished invocation"):
                await anext(runner.run_async(**WHO))

    asyncio.run(main())


def test_an_event_is_met_by_the_one_that_vertex_ai_keeps_of_it() -> None:
    def told(share: float, **more: Any) -> Event:
        content = types.Content(role="model", parts=[types.Part(text="well", **more)])
        return Event(author="solo", content=content, actions=EventActions(state_delta={"share": share}))

    assert fingerprint(told(1.0, part_metadata={"from": "somewhere"})) == fingerprint(told(1))
    assert fingerprint(told(1.0)) != fingerprint(told(1.5))


def test_what_refuses_a_new_invocation_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as what it travels as past the handlers of ADK."""

    def tool() -> str:
        return "well"

    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            runner = await runner_of(agent(tool), HoldfastPlugin(hf))

            def away(*_: Any) -> Any:
                raise StoreError("the server is away")

            monkeypatch.setattr(hf._store, "commit", away)
            with pytest.raises(StoreError, match="the server is away"):
                await asked(runner)

    asyncio.run(main())
