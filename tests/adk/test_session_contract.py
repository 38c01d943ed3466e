"""ADK's session contract, written anew from what it documents: told to our service on each store, and to ADK's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from adk_services import NAMES, OURS, THEIRS, event, our_service, said, talk, their_service, url_of
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.session import Session
from pydantic import BaseModel

Told: TypeAlias = Callable[[Callable[[BaseSessionService], Awaitable[None]]], None]


def kinds(*without: str) -> Any:
    """Ours, and those of ADK's own that keep what the test asks for."""
    return pytest.mark.parametrize("told", [kind for kind in (*OURS, *THEIRS) if kind not in without], indirect=True)


@pytest.fixture
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Told:
    kind = request.param

    @asynccontextmanager
    async def opened() -> AsyncIterator[BaseSessionService]:
        if kind in OURS:
            async with our_service(url_of(kind, tmp_path, request)) as ours:
                yield ours
            return
        theirs = their_service(kind, tmp_path)
        yield theirs
        close = getattr(theirs, "close", None)
        if close is not None:
            await close()

    def tell(test: Callable[[BaseSessionService], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with opened() as service:
                await test(service)

        asyncio.run(whole())

    return tell


async def read(service: BaseSessionService, id: str = "s", **config: Any) -> Session | None:
    asked = GetSessionConfig(**config) if config else None
    return await service.get_session(**NAMES, session_id=id, config=asked)


async def state_of(service: BaseSessionService, id: str = "s", **names: str) -> dict[str, Any]:
    session = await service.get_session(**{**NAMES, **names}, session_id=id)
    assert session is not None
    return session.state


# -- creating ----------------------------------------------------------------------------------------------


@kinds()
def test_a_session_is_created_with_its_state(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        given = {"n": 1, "app:rate": 0.5, "user:name": "Ada", "temp:x": 1, "none": None}
        session = await service.create_session(**NAMES, session_id="s", state=given)
        kept = {key: value for key, value in given.items() if key != "temp:x"}
        assert (session.app_name, session.user_id, session.id, session.events) == ("loans", "u", "s", [])
        assert session.state == kept == await state_of(service)
        assert (await read(service)) is not None and await read(service, "other") is None
        assert await service.get_session(app_name="other", user_id="u", session_id="s") is None
        assert await service.get_session(app_name="loans", user_id="other", session_id="s") is None

    told(test)


@kinds()
def test_who_names_none_is_given_an_id(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        made = [await service.create_session(**NAMES) for _ in range(3)]
        assert len({session.id for session in made} - {""}) == 3

    told(test)


@kinds("adk database")
def test_ids_are_stripped(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="  s \n")
        assert session.id == "s"
        await talk(service, session, "hello")
        assert said(await read(service, " s ")) == ["hello"]
        with pytest.raises(AlreadyExistsError):
            await service.create_session(**NAMES, session_id="s ")
        await service.delete_session(**NAMES, session_id="\ts")
        assert await read(service) is None

    told(test)


@kinds()
def test_an_id_is_taken_once(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        await service.create_session(**NAMES, session_id="s", state={"app:a": 1, "n": 1})
        with pytest.raises(AlreadyExistsError):
            await service.create_session(**NAMES, session_id="s", state={"app:a": 2, "n": 2})
        assert await state_of(service) == {"app:a": 1, "n": 1}
        for names in ({"user_id": "v"}, {"app_name": "other"}):
            assert await service.create_session(**{**NAMES, **names}, session_id="s")

    told(test)


@kinds()
def test_an_id_is_taken_once_by_those_who_come_at_once(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        await service.create_session(**NAMES, session_id="first")
        made = await asyncio.gather(
            *(service.create_session(**NAMES, session_id="s", state={"n": n}) for n in range(8)), return_exceptions=True
        )
        assert sum(isinstance(each, Session) for each in made) == 1
        assert sum(isinstance(each, AlreadyExistsError) for each in made) == 7

    told(test)


# -- appending ---------------------------------------------------------------------------------------------


@kinds()
def test_events_come_back_as_they_were(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        given = [event(f"{n}", invocation_id="i", branch="a.b", long_running_tool_ids={"x", "y"}) for n in range(5)]
        for each in given:
            assert await service.append_event(session, each) is each
        assert session.events == given
        found = await read(service)
        assert found is not None and found.events == given
        assert found.last_update_time == pytest.approx(given[-1].timestamp, abs=1e-5) == session.last_update_time

    told(test)


@kinds()
def test_a_partial_event_is_not_kept(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        part = event("hel", state={"n": 1}, partial=True)
        assert await service.append_event(session, part) is part
        assert session.events == [] and session.state == {} == await state_of(service)
        assert said(await read(service)) == []

    told(test)


@kinds()
def test_what_an_event_sets_is_set(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s", state={"n": 1, "deep": {"a": 1}, "gone": 1})
        delta = {"n": 2, "deep": {"b": 2}, "gone": None, "app:a": [1], "user:u": True, "f": 1.0, "zero": False, "s": ""}
        await service.append_event(session, event(state=delta))
        assert session.state == delta, "like dict.update: nothing is merged deeply, and None is a value"
        kept = await state_of(service)
        assert kept == delta and [type(kept[key]) for key in delta] == [type(value) for value in delta.values()]
        found = await read(service)
        assert found is not None and found.events[0].actions.state_delta == delta

    told(test)


@kinds()
def test_temporary_state_is_seen_by_the_session_at_hand_alone(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        sent = event(state={"temp:draft": "x", "n": 1})
        await service.append_event(session, sent)
        assert session.state == {"temp:draft": "x", "n": 1}
        assert sent.actions.state_delta == {"n": 1}
        found = await read(service)
        assert found is not None and found.state == {"n": 1} and found.events[0].actions.state_delta == {"n": 1}

    told(test)


@kinds()
def test_state_is_shared_as_far_as_its_prefix_says(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        first = await service.create_session(**NAMES, session_id="s")
        await service.create_session(**NAMES, session_id="t", state={"user:old": 1})
        await service.create_session(app_name="loans", user_id="v", session_id="s")
        await service.create_session(app_name="other", user_id="u", session_id="s")
        await service.append_event(first, event(state={"own": 1, "user:name": "Ada", "app:rate": 2, "user:old": 2}))
        assert await state_of(service, "t") == {"user:name": "Ada", "app:rate": 2, "user:old": 2}
        assert await state_of(service, user_id="v") == {"app:rate": 2}
        assert await state_of(service, app_name="other") == {}
        assert await service.get_user_state(**NAMES) == {"name": "Ada", "old": 2}
        assert await service.get_user_state(app_name="loans", user_id="nobody") == {}

    told(test)


@kinds()
def test_numbers_of_any_size_survive(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s", state={"big": 2**200})
        await service.append_event(
            session, event(state={"user:big": -(2**90), "deep": [{"x": 2**64}], "pi": 0.1 + 0.2})
        )
        expected = {"big": 2**200, "user:big": -(2**90), "deep": [{"x": 2**64}], "pi": 0.1 + 0.2}
        assert await state_of(service) == expected
        found = await read(service)
        assert found is not None and found.events[0].actions.state_delta["deep"] == [{"x": 2**64}]

    told(test)


class Applicant(BaseModel):
    name: str
    age: int | None = None


@kinds("adk memory")
def test_what_is_no_json_never_loses_the_event(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s", state={"fn": print})
        odd = {"fn": len, "model": Applicant(name="Ada"), "set": {1}, "tuple": (1, 2), "keys": {1: "a"}, "n": 1}
        await service.append_event(session, event("kept", state=odd))
        assert said(await read(service)) == ["kept"]
        kept = await state_of(service)
        assert json.loads(json.dumps(kept)) == kept
        assert kept["model"] == {"name": "Ada", "age": None} and kept["set"] == [1] and kept["n"] == 1
        assert "len" in kept["fn"]
        await talk(service, session, "and goes on")
        assert said(await read(service)) == ["kept", "and goes on"]

    told(test)


@kinds("adk memory")  # where nothing is stale, both are kept
def test_who_does_not_know_the_last_event_is_stale(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        await service.create_session(**NAMES, session_id="s")
        mine, other = await read(service), await read(service)
        assert mine is not None and other is not None
        await talk(service, other, "first")
        with pytest.raises(StaleSessionError):
            await service.append_event(mine, event("second", state={"n": 1, "user:n": 1}))
        with pytest.raises(ValueError):
            await service.append_event(mine, event("third"))
        assert said(await read(service)) == ["first"] and await state_of(service) == {} and mine.events == []
        again = await read(service)
        assert again is not None
        await talk(service, again, "second")
        assert said(await read(service)) == ["first", "second"]

    told(test)


@kinds()
def test_what_is_not_there_is_not_found(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        await service.delete_session(**NAMES, session_id="s")
        for gone in (session, Session(app_name="loans", user_id="u", id="never")):
            with pytest.raises(SessionNotFoundError):
                await service.append_event(gone, event("lost"))
            with pytest.raises(ValueError):
                await service.append_event(gone, event("lost"))
        assert await read(service) is None

    told(test)


@kinds("adk memory", "adk sqlite")
def test_a_session_built_by_hand_is_taken_as_far_as_its_events_go(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        kept = await service.create_session(**NAMES, session_id="s")
        await talk(service, kept, "first")
        knows_all = Session(**NAMES, id="s", events=list(kept.events))
        await talk(service, knows_all, "second")
        knows_less = Session(**NAMES, id="s", events=list(kept.events))
        with pytest.raises(StaleSessionError):
            await service.append_event(knows_less, event("third"))
        copy = Session.model_validate_json(knows_all.model_dump_json())
        await talk(service, copy, "third")
        await talk(service, copy, "fourth")
        assert said(await read(service)) == ["first", "second", "third", "fourth"]

    told(test)


@kinds()
def test_tasks_that_share_a_session_append_in_turn(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        await asyncio.gather(*(service.append_event(session, event(f"{n}", state={f"k{n}": n})) for n in range(20)))
        assert sorted(said(await read(service)), key=int) == [f"{n}" for n in range(20)]
        assert await state_of(service) == {f"k{n}": n for n in range(20)}
        assert len(session.events) == 20

    told(test)


# -- windows -----------------------------------------------------------------------------------------------


@kinds()
def test_windows_by_number(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        for n in range(6):
            await service.append_event(session, event(f"{n}", timestamp=1_800_000_000 + n, state={"n": n}))
        for count, expected in ((0, ""), (1, "5"), (4, "2345"), (6, "012345"), (99, "012345")):
            found = await read(service, num_recent_events=count)
            assert "".join(said(found)) == expected
            assert found is not None and found.state == {"n": 5}
        with pytest.raises(ValueError):
            GetSessionConfig(num_recent_events=-1)
        found = await read(service, num_recent_events=2)
        assert found is not None
        await talk(service, found, "6", timestamp=1_800_000_006)
        assert "".join(said(await read(service))) == "0123456"

    told(test)


@kinds()
def test_windows_by_time(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        for n in range(6):
            await service.append_event(session, event(f"{n}", timestamp=1_800_000_000 + n))
        for after, expected in ((0, "012345"), (3, "345"), (3.5, "45"), (5, "5"), (9, "")):
            found = await read(service, after_timestamp=1_800_000_000 + after)
            assert "".join(said(found)) == expected, "and the time itself is inside"
        both = await read(service, after_timestamp=1_800_000_002, num_recent_events=3)
        assert "".join(said(both)) == "345"
        both = await read(service, after_timestamp=1_800_000_004, num_recent_events=3)
        assert "".join(said(both)) == "45"

    told(test)


@kinds("adk database")  # orders them by their ids
def test_events_of_one_time_keep_their_order(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s")
        texts = [f"{n}" for n in range(20)]
        await talk(service, session, *texts, timestamp=1_800_000_000.25)
        assert said(await read(service)) == texts
        assert said(await read(service, num_recent_events=5)) == texts[-5:]

    told(test)


# -- listing and deleting ----------------------------------------------------------------------------------


@kinds()
def test_sessions_are_listed_by_their_last_update(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        made = {}
        for user, id in (("u", "a"), ("v", "a"), ("u", "b")):
            names = {"app_name": "loans", "user_id": user}
            made[user, id] = await service.create_session(**names, session_id=id, state={"of": id, "user:of": user})
        await service.create_session(app_name="other", user_id="u", session_id="c")
        for n, place in enumerate([("v", "a"), ("u", "b"), ("u", "a")]):
            await service.append_event(made[place], event("x", timestamp=2_000_000_000 + n, state={"app:n": n}))
        listed = (await service.list_sessions(app_name="loans")).sessions
        assert [(each.user_id, each.id) for each in listed] == [("v", "a"), ("u", "b"), ("u", "a")]
        assert [each.state for each in listed] == [
            {"of": id, "user:of": user, "app:n": 2} for user, id in (("v", "a"), ("u", "b"), ("u", "a"))
        ]
        assert all(each.events == [] for each in listed)
        of_user = (await service.list_sessions(**NAMES)).sessions
        assert [each.id for each in of_user] == ["b", "a"]
        assert (await service.list_sessions(app_name="loans", user_id="nobody")).sessions == []
        assert (await service.list_sessions(app_name="nothing")).sessions == []

    told(test)


@kinds()
def test_a_deleted_session_is_gone_and_what_it_shared_stays(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s", state={"n": 1})
        await service.append_event(session, event("x", state={"app:a": 1, "user:u": 1, "m": 2}))
        await service.delete_session(**NAMES, session_id="s")
        await service.delete_session(**NAMES, session_id="s")
        assert await read(service) is None and (await service.list_sessions(**NAMES)).sessions == []
        again = await service.create_session(**NAMES, session_id="s")
        assert again.state == {"app:a": 1, "user:u": 1} and again.events == []
        found = await read(service)
        assert found is not None and found.state == again.state and found.events == []

    told(test)


@kinds()
def test_what_is_given_out_is_nobody_elses(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        session = await service.create_session(**NAMES, session_id="s", state={"list": [1]})
        await talk(service, session, "x")
        found = await read(service)
        assert found is not None
        found.state["list"].append(2)
        found.state["mine"] = 1
        found.events.clear()
        assert await state_of(service) == {"list": [1]} and said(await read(service)) == ["x"]

    told(test)


@kinds()
def test_it_can_be_flushed_and_used_from_loop_to_loop(told: Told) -> None:
    async def test(service: BaseSessionService) -> None:
        await service.create_session(**NAMES, session_id="s")
        await service.flush()

        def elsewhere(n: int) -> None:
            async def work() -> None:
                found = await read(service)
                assert found is not None
                await talk(service, found, f"{n}")

            asyncio.run(work())

        for n in range(3):
            await asyncio.to_thread(elsewhere, n)
        assert said(await read(service)) == ["0", "1", "2"]

    told(test)
