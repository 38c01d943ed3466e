"""Abandoned invocations: listed, and resumed by workers, each by one, until it is done, waits or is parked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from adk_lives import Scene
from adk_scripted import Scripted, after, call, text
from adk_services import OURS, url_of
from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.runners import Runner
from google.genai import types

import holdfast
from holdfast.adapters.adk import HoldfastPlugin, HoldfastSessionService
from holdfast.adapters.adk.serving import ServedInvocation
from holdfast.cli import main

Make = Callable[..., Scene]
SESSIONS = "s1 s2 s3 s4"


def runs(url: str) -> dict[str, tuple[str, int, str]]:
    """By session: the status of its invocation, how often it was claimed, and its error."""

    async def looked() -> dict[str, tuple[str, int, str]]:
        async with holdfast.open(url) as hf:
            return {
                run.id.split("/")[2]: (run.status, len(hf._store.claims(hf._store.get(run.id).no)), run.error or "")  # type: ignore[union-attr]
                for run in await hf.runs()
            }

    return asyncio.run(looked())


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_workers_at_once_finish_each_exactly_once(
    scene: Make, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = url_of(kind, tmp_path, request)
    cut = scene("in_each", SERVICE="holdfast", HOLDFAST_DB=url, SESSIONS=SESSIONS)
    assert cut.live("many", MEET="4") == [-9], cut.errors
    assert cut.live("abandoned") == [0] and cut.told("abandoned") == [SESSIONS]
    assert cut.live("worker", beside=2) == [0, 0], cut.errors
    assert runs(url) == dict.fromkeys(SESSIONS.split(), ("done", 2, ""))
    for name in SESSIONS.split():
        assert cut.begun()[f"tool fetch {name}"] == 2  # it was in flight at the death
        assert cut.begun()[f"tool check {name}"] == 1
    assert cut.begun()["model each 1 -"] == 4  # recalled
    assert cut.live("abandoned") == [0] and cut.told("abandoned")[-1] == ""


@pytest.mark.crash
def test_a_worker_goes_on_where_another_was_killed(scene: Make) -> None:
    cut = scene("sequence", SERVICE="holdfast")
    assert cut.live(DIE_AT="4") == [-9]
    assert cut.live("worker", DIE_AT="6") == [-9]
    recorded = cut.recorded()
    assert recorded["tool fetch"] == 1
    assert cut.live("worker") == [0], cut.errors
    assert cut.is_done
    assert cut.begun_by_life()[-1]["tool fetch one"] == 0
    assert cut.begun()["tool write "] == 1 and cut.begun()["model a3 3 write"] == 1


@pytest.mark.crash
@pytest.mark.parametrize("dies", ["", "end"])
def test_one_that_waits_for_a_person_is_left_alone(scene: Make, dies: str) -> None:
    """Also where its process died just after it had asked."""
    asked = scene("confirmed", SERVICE="holdfast")
    assert asked.live(DIE_IN=dies) == [-9 if dies else 0]
    begun = asked.begun()
    assert asked.live("abandoned") == [0] and asked.told("abandoned") == [""]
    if dies:
        assert asked.live("worker") == [0], asked.errors
    assert asked.live("worker") == [0], asked.errors
    assert asked.begun() == begun
    claims = 2 if dies else 1  # who takes it in vain finds out for all the others
    assert list(runs(asked.env["HOLDFAST_DB"]).values()) == [("waiting", claims, "")]
    assert asked.live("answer") == [0] and asked.begun()["tool pay A"] == 1 and asked.is_done


@pytest.mark.crash
def test_one_whose_message_was_never_stored(scene: Make) -> None:
    lost = scene("sequence", SERVICE="holdfast")
    assert lost.live(DIE_IN="begin") == [-9], lost.errors
    assert lost.live("worker") == [0], lost.errors
    ((status, _, error),) = runs(lost.env["HOLDFAST_DB"]).values()
    assert status == "failed" and "ask it again" in error
    assert lost.live() == [0] and lost.told("said")[-1] == "a3: a3 is done"


@pytest.mark.crash
def test_one_that_kills_its_workers_is_parked(scene: Make) -> None:
    deadly = scene("deadly", SERVICE="holdfast")
    assert deadly.live() == [-9]
    for _ in range(4):
        assert deadly.live("worker") == [-9], deadly.errors
    assert deadly.live("worker") == [0], deadly.errors
    ((status, claims, error),) = runs(deadly.env["HOLDFAST_DB"]).values()
    assert (status, claims) == ("parked", 6) and deadly.begun()["tool kill"] == 5
    assert deadly.live("resume") == [-9]  # a person may try it again
    assert "5 processes in a row died" in error and "resume(runner, user_id='u', session_id='s')" in error


@pytest.mark.crash
def test_sigterm_lets_calls_in_flight_finish_and_begins_none(scene: Make) -> None:
    told = scene("told_to_end", SERVICE="holdfast")
    assert told.live(DIE_AT="1") == [-9]  # before its first model answers
    assert told.live("worker", TERM="1") == [0], told.errors
    assert told.recorded() == {"model told": 1, "tool slow": 1, "tool beside": 1}
    assert [status for status, _, _ in runs(told.env["HOLDFAST_DB"]).values()] == ["running"]
    assert told.live("worker") == [0], told.errors
    assert told.is_done and told.begun()["tool slow"] == told.begun()["tool beside"] == 1


# -- in one process ----------------------------------------------------------------------------------------


def runner_on(sessions: HoldfastSessionService, tool: Callable[..., Any] | None = None) -> Runner:
    async def fetch() -> str:
        return "well"

    tool = tool or fetch
    script = after([[call(tool.__name__)], [text("done")]])
    agent = LlmAgent(name="solo", model=Scripted("solo", script), tools=[tool])
    return Runner(
        app=App(name="app", root_agent=agent, plugins=[HoldfastPlugin(sessions)]),
        session_service=sessions,
        auto_create_session=True,
    )


def asked(runner: Runner, user_id: str, session_id: str) -> Any:
    message = types.Content(role="user", parts=[types.Part(text="go")])
    return runner.run_async(user_id=user_id, session_id=session_id, new_message=message)


@pytest.mark.parametrize("kind", OURS)
def test_abandoned_ones_are_listed_by_their_names(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER", str(tmp_path / "ledger"))
    url = url_of(kind, tmp_path, request)
    long = "a/session " * 20

    async def main() -> None:
        async with HoldfastSessionService(url) as sessions, HoldfastSessionService(url) as others:
            runner = runner_on(sessions)
            left = asked(runner, "u", long.strip())
            first = await anext(left)
            assert await others.abandoned() == await sessions.abandoned() == []  # somebody is at it
            with monkeypatch.context() as later:
                later.setattr(others.holdfast._store, "now_ms", lambda: 2**60)
                assert len(await others.abandoned()) == 1  # its lease has lapsed
            await left.aclose()
            (found,) = await others.abandoned()
            assert found == ("app", "u", long.strip(), first.invocation_id)
            again = [event async for event in asked(runner, "u", long)]
            assert again[-1].author == "solo" and await others.abandoned() == []

            def fails() -> str:
                raise ConnectionError("no route")

            with pytest.raises(ConnectionError):
                async for _ in asked(runner_on(sessions, fails), "u", "failed"):
                    pass
            assert await others.abandoned() == []  # its process let go of it properly

    asyncio.run(main())


def test_what_a_worker_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "given.py").write_text(
        "import holdfast\n"
        "from google.adk.agents import BaseAgent\n"
        "from google.adk.apps import App\n"
        "from holdfast.adapters.adk import HoldfastPlugin\n"
        "def app(*plugins): return App(name='loans', root_agent=BaseAgent(name='a'), plugins=list(plugins))\n"
        "bare, beside = app(), app(HoldfastPlugin(holdfast.open('x.db')))\n"
        "ours = app(HoldfastPlugin(holdfast.adapters.adk.HoldfastSessionService('memory://')))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for line, told in [
        ("given", "'given' names no app"),
        ("given:nothing", "there is no 'nothing' in given"),
        ("given:app", "given:app is neither an App nor a Runner of google.adk but function"),
        ("given:bare", "app 'loans' has no HoldfastPlugin"),
        ("given:beside", "Name the Runner"),
        ("given:ours", "a store in memory has no runs but those of its own process"),
        ("given:ours --store x.db", "--store does not go with --adk"),
        ("given:ours --lease 3", "--lease does not go with --adk"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(["worker", "--adk", *line.split()])
        assert ended.value.code == 2 and told in " ".join(capsys.readouterr().err.split()), line


def test_who_is_stopped_twice_cleans_up_once_and_whole() -> None:
    """The grace period may end while the drain that it was given is just ending, too."""
    cleaned_up: list[str] = []

    async def going(began: asyncio.Event, go: asyncio.Event) -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await go.wait()
            cleaned_up.append("whole")

    async def main() -> None:
        served: Any = ServedInvocation.__new__(ServedInvocation)
        began, go = asyncio.Event(), asyncio.Event()
        served._invocation, served._going = SimpleNamespace(stop=None), asyncio.create_task(going(began, go))
        await began.wait()
        stopped = [asyncio.create_task(served.unload())]
        await asyncio.sleep(0)
        stopped.append(asyncio.create_task(served.unload()))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*stopped)

    asyncio.run(main())
    assert cleaned_up == ["whole"]
