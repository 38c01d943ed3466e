"""The explicit style inside an agent: its own code asks the state, and what it saved is there when it is resumed."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from adk_lives import Scene
from google.adk.agents import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.apps import App
from google.adk.events.event import Event
from google.adk.runners import Runner
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.genai import types

import holdfast
from holdfast import CodecError, HoldfastError
from holdfast.adapters.adk import HoldfastPlugin, HoldfastSessionService, checkpoints, resume

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))
Make = Callable[..., Scene]
POINTS = ["parse", "parse", "credit", "credit", "risk", "risk"]  # before and after each of them
WHO = {"user_id": "u", "session_id": "s"}


@pytest.mark.crash
@pytest.mark.parametrize("service", ["adk", "holdfast"])
def test_cut_short_anywhere(scene: Make, service: str) -> None:
    """At a point drawn from the seed: what was saved is not done again, and the events and the state are as of one."""
    print(f"HOLDFAST_SEED={SEED} draws the same point again")
    at = random.Random(f"{SEED} {service}").randint(1, len(POINTS))
    whole, cut = (scene("explicit", SERVICE=service) for _ in range(2))
    assert whole.live() == [0] and whole.told("said") == ["loan: risk 306"], whole.errors
    assert cut.live(DIE_AT=str(at)) == [-9], cut.errors
    assert cut.live("resume") == [0], cut.errors
    again = 1 if at % 2 == 0 else 0  # it had begun when the process died
    for call, times in whole.begun().items():
        assert cut.begun()[call] == times + (again if POINTS[at - 1] in call else 0), f"point {at}"
    for what in ("said", "state", "events", "stored"):
        assert cut.told(what)[-1] == whole.told(what)[-1], f"point {at}"


@pytest.mark.crash
def test_a_checkpoint_whose_event_was_not_stored(scene: Make) -> None:
    whole, cut = scene("explicit"), scene("explicit")
    assert whole.live() == [0] and cut.live(DIE_IN="save") == [-9]
    assert cut.live("resume") == [0], cut.errors
    assert cut.begun() == whole.begun() and cut.told("state") == whole.told("state")
    assert cut.told("events") == whole.told("events")


@pytest.mark.crash
def test_inside_a_graph_and_between_agents(scene: Make) -> None:
    whole, cut = scene("explicit_inside"), scene("explicit_inside")
    assert whole.live() == [0], whole.errors
    assert cut.live(DIE_AT="9") == [-9]  # six of the first agent, two of the first stage
    assert cut.begun()["tool parse None"] == 1 and "tool credit None" not in cut.begun()
    assert cut.live("resume") == [0], cut.errors
    assert cut.begun() == whole.begun() and cut.told("state") == whole.told("state")
    assert cut.told("events") == whole.told("events")


@pytest.mark.crash
def test_without_a_plugin_the_service_of_the_app_keeps_it(scene: Make) -> None:
    cut = scene("explicit", alone=True)
    assert cut.live(DIE_AT="4") == [-9]
    assert cut.live("resume") == [0], cut.errors
    assert cut.begun() == {"tool parse None": 1, "tool credit None": 2, "tool risk 2 612": 1}


@pytest.mark.crash
@pytest.mark.parametrize(("on_change", "parsed"), [("restart", 2), ("salvage", 1)])
def test_under_another_version(scene: Make, on_change: str, parsed: int) -> None:
    cut = scene("explicit", ON_CHANGE=on_change)
    assert cut.live(DIE_AT="3", VERSION="1") == [-9]
    assert cut.live("resume", VERSION="2") == [0], cut.errors
    assert cut.begun()["tool parse None"] == parsed and cut.told("said") == ["loan: risk 306"]


# -- in one process ----------------------------------------------------------------------------------------


class Agent(BaseAgent):
    """``body`` in a block."""

    body: Callable[[Any], Any]

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        async with checkpoints(ctx) as context:
            await self.body(context)
        if False:
            yield


async def runner_of(body: Callable[[Any], Any], *plugins: HoldfastPlugin, service: Any = None) -> Runner:
    service = service or InMemorySessionService()
    await service.create_session(app_name="app", **WHO, state={"docs": ["a"], "user:name": "ada"})
    app = App(name="app", root_agent=Agent(name="agent", body=body), plugins=list(plugins))
    return Runner(app=app, session_service=service)


async def go(runner: Runner) -> None:
    message = types.Content(role="user", parts=[types.Part(text="go")])
    async for _ in runner.run_async(**WHO, new_message=message):
        pass


def test_what_changed_is_saved_and_nothing_else() -> None:
    """In place too; what is no JSON is at once what it will be."""

    async def body(context: Any) -> None:
        state = context.session.state
        held = state["docs"]
        held.append("b")
        state["temp:x"], state["user:name"], state["range"] = 1, "bob", (1, 2)
        await context.save_state()
        assert state["docs"] is held and state["range"] == [1, 2]
        held.append("c")
        await context.save_state()
        await context.save_state()
        held.append("lost")

    async def main() -> None:
        async with HoldfastSessionService("memory://") as sessions:
            runner = await runner_of(body, HoldfastPlugin(sessions), service=sessions)
            await go(runner)
            session = await sessions.get_session(app_name="app", **WHO)
            assert session is not None
            saved = [event.actions.state_delta for event in session.events if event.actions.state_delta]
            assert saved == [{"docs": ["a", "b"], "user:name": "bob", "range": [1, 2]}, {"docs": ["a", "b", "c"]}]
            assert session.state == {"docs": ["a", "b", "c"], "user:name": "bob", "range": [1, 2]}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lambda state: state.pop("docs"), HoldfastError, "key 'docs' was deleted .* Set it to None"),
        (lambda state: state.update(it=object()), CodecError, r"session.state\['it'\] cannot be saved"),
    ],
)
def test_what_cannot_be_saved(change: Callable[[Any], Any], error: type[Exception], told: str) -> None:
    async def body(context: Any) -> None:
        context.session.state["more"] = 1
        change(context.session.state)
        with pytest.raises(error, match=told):
            await context.save_state()

    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            runner = await runner_of(body, HoldfastPlugin(hf))
            await go(runner)
            session = await runner.session_service.get_session(app_name="app", **WHO)
            assert session is not None and "more" not in session.state
            with pytest.raises(TypeError, match="takes the InvocationContext of an agent, got Session"):
                async with checkpoints(session):  # type: ignore[arg-type]
                    pass

    asyncio.run(main())


def test_a_worker_that_ends_lets_a_stage_be_saved_and_begins_none() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    stages: list[int] = []

    async def body(context: Any) -> None:
        state = context.session.state
        for stage in (1, 2):
            if stage in state.get("stages", []):
                continue
            stages.append(stage)
            began.set()
            await go_on.wait()
            state["stages"] = [*state.get("stages", []), stage]
            await context.save_state()

    async def main() -> None:
        async with holdfast.open("memory://") as hf:
            runner = await runner_of(body, HoldfastPlugin(hf))
            going = asyncio.create_task(go(runner))
            await began.wait()
            (invocation,) = hf._sessions.values()
            drained = asyncio.create_task(invocation.drained())  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.wait_for(drained, 60)
            assert stages == [1]
            going.cancel()
            await asyncio.wait({going})
            async for _ in resume(runner, **WHO):
                pass
            assert stages == [1, 2]

    asyncio.run(main())
