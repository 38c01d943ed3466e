"""A window of events never leaves out the invocation that would be resumed; real agents are broken off and resumed."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from adk_services import NAMES, OURS, event, our_service, said, talk, url_of
from google.adk.agents.base_agent import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.agents.llm_agent import LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.agents.sequential_agent import SequentialAgent
from google.adk.apps.app import App, ResumabilityConfig
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.session import Session
from google.adk.workflow import START, Workflow
from google.genai import types

from holdfast.adapters.adk.revision import KEPT, Revision, advanced, marker_of, revision_of, unfinished


class Broken(BaseException):
    """Takes the place of the process's death: nothing of ADK's catches it."""


class Model(BaseLlm):
    """Calls the tool once for each message, then says that it is done."""

    tool: str

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        parts = llm_request.contents[-1].parts or []
        if any(part.function_response for part in parts):
            answer = types.Part(text="done")
        else:
            answer = types.Part(function_call=types.FunctionCall(name=self.tool, args={}))
        yield LlmResponse(content=types.Content(role="model", parts=[answer]))


def llm_agent(name: str, tool: Callable[..., Any]) -> LlmAgent:
    return LlmAgent(name=name, model=Model(model="scripted", tool=tool.__name__), tools=[tool])


def runner_of(service: BaseSessionService, root: Any) -> Runner:
    app = App(name="loans", root_agent=root, resumability_config=ResumabilityConfig(is_resumable=True))
    return Runner(app=app, session_service=service)


async def run(runner: Runner, *, message: str | None = None, window: int | None = None, **more: Any) -> list[Event]:
    config = RunConfig(get_session_config=GetSessionConfig(num_recent_events=window)) if window is not None else None
    content = types.Content(role="user", parts=[types.Part(text=message)]) if message else None
    asked = {"user_id": "u", "session_id": "s", "run_config": config, **more}
    return [each async for each in runner.run_async(new_message=content, **asked)]


def agents(ledger: list[str], broken: set[str]) -> dict[str, Callable[[], Any]]:
    """Each kind of agent, with a tool that breaks the run off while its name is among the broken."""

    def first() -> str:
        """The first tool."""
        ledger.append("first")
        return "one"

    def second() -> str:
        """The second tool."""
        ledger.append("second")
        if "second" in broken:
            raise Broken
        return "two"

    class Stepping(BaseAgent):
        async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
            for n in range(4):
                if n == 2:
                    second()
                text = types.Content(role="model", parts=[types.Part(text=f"step {n}")])
                yield Event(author=self.name, invocation_id=ctx.invocation_id, content=text)

    def sequence() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return SequentialAgent(name="pipeline", sub_agents=[llm_agent("a", first), llm_agent("b", second)])

    def workflow() -> Any:
        def opening(node_input: Any) -> str:
            ledger.append("first")
            return "one"

        def closing(node_input: Any) -> str:
            second()
            return "two"

        return Workflow(name="flow", edges=[(START, opening, closing)])

    return {
        "llm": lambda: llm_agent("alone", second),
        "sequential": sequence,
        "custom": lambda: Stepping(name="stepping"),
        "workflow": workflow,
    }


KINDS = ["llm", "sequential", "custom", "workflow"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_of_one_event_is_enough_to_resume(kind: str) -> None:
    async def test() -> None:
        ledger, broken = list[str](), {"second"}
        async with our_service("memory://") as service:
            await service.create_session(app_name="loans", user_id="u", session_id="s")
            runner = runner_of(service, agents(ledger, set())[kind]())
            await run(runner, message="before")  # one that ends, whose events are no part of the window
            before = await service.get_session(**NAMES, session_id="s")
            assert before is not None
            ledger.clear()
            with pytest.raises(Broken):
                await run(runner_of(service, agents(ledger, broken)[kind]()), message="go")
            kept = await service.get_session(**NAMES, session_id="s", config=GetSessionConfig(num_recent_events=1))
            whole = await service.get_session(**NAMES, session_id="s")
            assert kept is not None and whole is not None
            assert kept.events == whole.events[len(before.events) :]
            invocation = kept.events[0].invocation_id
            broken.clear()
            resumed = runner_of(service, agents(ledger, broken)[kind]())
            told = await run(resumed, window=1, invocation_id=invocation)
            assert told and ledger.count("second") == 2
            after = await service.get_session(**NAMES, session_id="s", config=GetSessionConfig(num_recent_events=1))
            assert after is not None
            if kind != "custom":  # which never says that it has ended
                assert len(after.events) == 1

    asyncio.run(test())


def test_with_adks_own_service_the_same_window_breaks_the_resume(tmp_path: Path) -> None:
    """Or the tests above would prove nothing."""
    from google.adk.sessions.in_memory_session_service import InMemorySessionService

    async def test() -> None:
        ledger, broken = list[str](), {"second"}
        service = InMemorySessionService()
        await service.create_session(app_name="loans", user_id="u", session_id="s")
        with pytest.raises(Broken):
            await run(runner_of(service, agents(ledger, broken)["sequential"]()), message="go")
        found = await service.get_session(**NAMES, session_id="s")
        assert found is not None
        invocation = found.events[-1].invocation_id
        broken.clear()
        with pytest.raises(ValueError, match="No user message available"):
            await run(runner_of(service, agents(ledger, broken)["sequential"]()), window=1, invocation_id=invocation)

    asyncio.run(test())


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_is_rewound(kind: str) -> None:
    async def test() -> None:
        async with our_service("memory://") as service:
            await service.create_session(app_name="loans", user_id="u", session_id="s", state={"n": 0})
            runner = runner_of(service, agents([], set())[kind]())
            firsts = []
            for n in range(1, 4):
                told = await run(runner, message=f"turn {n}", state_delta={"n": n, f"k{n}": n, "user:kept": n})
                firsts.append(told[0].invocation_id)
            await runner.rewind_async(user_id="u", session_id="s", rewind_before_invocation_id=firsts[1])
            found = await service.get_session(**NAMES, session_id="s")
            assert found is not None
            assert {key: found.state[key] for key in ("n", "k1", "k2", "k3", "user:kept")} == {
                "n": 1, "k1": 1, "k2": None, "k3": None, "user:kept": 3,
            }  # fmt: skip
            revision = revision_of(found._storage_update_marker)
            assert revision is not None and not {turn.invocation for turn in revision.turns} & set(firsts[1:])
            assert await run(runner, message="on")

    asyncio.run(test())


@pytest.mark.parametrize("kind", OURS)
def test_what_a_window_keeps(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def ends(name: str) -> Event:
        return event(author="root", invocation_id=name, end=True)

    async def test() -> None:
        async with our_service(url_of(kind, tmp_path, request)) as service:
            session = await service.create_session(**NAMES, session_id="s")

            async def window(count: int, *, time: float | None = None) -> str:
                config = GetSessionConfig(num_recent_events=count, after_timestamp=time)
                return "".join(said(await service.get_session(**NAMES, session_id="s", config=config)))

            async def turn(name: str, texts: str, *, finish: bool) -> None:
                await talk(service, session, texts[0], author="user", invocation_id=name)
                await talk(service, session, *texts[1:], author="root", invocation_id=name)
                if finish:
                    await service.append_event(session, ends(name))

            await turn("one", "abc", finish=True)
            assert await window(2) == "c", "it has ended: nothing is kept of it besides what was asked for"
            await turn("two", "DEF", finish=False)
            assert await window(1) == "DEF" == await window(3)
            await turn("three", "ghi", finish=True)
            assert await window(2) == "DEFi", "an ended one does not take its place"
            assert await window(5) == "DEFghi" and await window(6) == "DEFghi" and await window(0) == ""
            assert await window(2, time=session.last_update_time + 9) == "DEF"
            await talk(service, session, "J", author="root", invocation_id="two")
            assert await window(2) == "DEFJ", "what it said since, too, and nothing of the others"
            assert await window(6) == "DEFghiJ"
            await service.append_event(session, ends("two"))
            assert await window(2) == "J"
            await turn("four", "K", finish=False)
            await turn("five", "L", finish=False)
            assert await window(1) == "L" and await window(2) == "KL"
            assert "".join(said(await service.get_session(**NAMES, session_id="s"))) == "abcDEFghiJKL"

    asyncio.run(test())


def test_what_ended_inside_an_invocation_is_not_its_end() -> None:
    def turns(*given: Event) -> list[bool]:
        turns: list[Any] = []
        ended = []
        for seq, each in enumerate(given, 1):
            turns = advanced(turns, seq, each)
            ended.append(turns[-1].ended)
        assert turns[-1].first == 1
        return ended

    def told(author: str, *, end: bool = False, path: str = "") -> Event:
        given = event(author=author, invocation_id="i", end=end)
        given.node_info.path = path
        return given

    assert turns(told("user"), told("a"), told("a", end=True)) == [False, False, True]
    assert turns(told("p"), told("a"), told("a", end=True), told("p", end=True)) == [False, False, False, True]
    inside = told("a", end=True, path="flow@1/a@1")
    assert turns(told("a", path="flow@1/a@1"), inside, told("flow", end=True)) == [False, False, True]
    assert turns(told("a"), told("a", end=True), told("user"), told("a")) == [False, True, False, False]
    assert turns(told("user", end=True), told("a", end=True)) == [False, True]


def test_only_so_many_invocations_are_known() -> None:
    turns: list[Any] = []
    for n in range(30):
        turns = advanced(turns, n + 1, event(author="root", invocation_id=f"i{n}"))
        if n % 2:
            ending = event(author="root", invocation_id=f"i{n}", end=True)
            turns = advanced(turns, n + 1, ending)
    assert len(turns) == KEPT and [turn.invocation for turn in turns[:-1]] == [f"i{n}" for n in range(16, 30, 2)]
    kept = unfinished(turns)
    assert kept is not None and kept.invocation == "i28"


def test_a_marker_of_another_service_is_none() -> None:
    for marker in (None, "", "2026-11-23T23:00:00", "[1]", '{"no": 1}', "17"):
        assert revision_of(marker) is None
    session = Session(app_name="a", user_id="u", id="s")
    assert revision_of(session._storage_update_marker) is None
    revision = Revision(1, 2, advanced([], 1, event(invocation_id="i")))
    assert revision_of(marker_of(revision)) == revision
