"""What our service does besides the contract: group commits, off the loop, in pages, from many loops and threads."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adk_services import NAMES, OURS, event, our_service, said, talk, url_of
from google.adk.errors import StaleSessionError
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session

import holdfast
from holdfast.adapters.adk import HoldfastSessionService, loading, rows
from holdfast.errors import HoldfastError, StoreError


def counted(service: HoldfastSessionService, name: str) -> list[float]:
    """When each call of this method of the store was made."""
    calls: list[float] = []
    whole: Callable[..., Any] = getattr(service.holdfast._store, name)

    def counting(*given: Any, **more: Any) -> Any:
        calls.append(time.monotonic())
        return whole(*given, **more)

    setattr(service.holdfast._store, name, counting)
    return calls


async def made(service: HoldfastSessionService, count: int) -> list[Session]:
    return [await service.create_session(**NAMES, session_id=f"s{n}") for n in range(count)]


def test_sessions_that_append_at_once_share_transactions(tmp_path: Path) -> None:
    async def test() -> None:
        async with our_service(str(tmp_path / "a.db")) as service:
            sessions, go = await made(service, 50), threading.Event()
            write, batches = service.holdfast._store.extend, list[int]()

            def held(given: Any) -> Any:
                batches.append(len(given))
                assert go.wait(10)
                return write(given)

            service.holdfast._store.extend = held  # type: ignore[method-assign]
            appends = [
                asyncio.create_task(service.append_event(each, event("x", state={f"user:{each.id}": 1})))
                for each in sessions
            ]
            await asyncio.sleep(0)  # each of them has handed its event over, and waits
            go.set()
            await asyncio.gather(*appends)
            assert sum(batches) == 50 and len(batches) <= 5, batches
            assert len(await service.get_user_state(**NAMES)) == 50

    asyncio.run(test())


def test_an_append_reads_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        async with our_service(str(tmp_path / "a.db")) as service:
            (session,) = await made(service, 1)
            reads = [counted(service, name) for name in ("dialog", "dialogs", "dialog_events", "shared", "last_before")]
            await talk(service, session, *"abcdef", invocation_id="i", state={"n": 1})
            assert not any(reads)

    asyncio.run(test())


def test_the_store_is_never_called_on_the_loops_thread(tmp_path: Path) -> None:
    methods = ("extend", "dialog", "open_dialog", "delete_dialog", "dialogs", "dialog_events", "last_before", "shared")

    async def test() -> None:
        async with our_service(str(tmp_path / "a.db")) as service:
            called: dict[str, int] = {}
            for name in methods:
                whole = getattr(service.holdfast._store, name)

                def noting(*given: Any, name: str = name, whole: Callable[..., Any] = whole, **more: Any) -> Any:
                    called[name] = threading.get_ident()
                    return whole(*given, **more)

                setattr(service.holdfast._store, name, noting)
            (session,) = await made(service, 1)
            await talk(service, session, "a")
            by_hand = Session(**NAMES, id="s0", events=list(session.events))
            await talk(service, by_hand, "b")
            with pytest.raises(StaleSessionError):
                await talk(service, session, "c")
            await service.get_session(**NAMES, session_id="s0", config=GetSessionConfig(after_timestamp=1.0))
            await service.list_sessions(**NAMES)
            await service.get_user_state(**NAMES)
            await service.delete_session(**NAMES, session_id="s0")
            assert set(called) == set(methods) and threading.get_ident() not in called.values()

    asyncio.run(test())


@pytest.mark.parametrize("kind", OURS)
def test_loops_and_threads_use_it_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    service = our_service(url_of(kind, tmp_path, request))
    gate = threading.Barrier(4)

    async def alone(thread: int) -> None:
        gate.wait()
        for n in range(5):
            session = await service.create_session(**NAMES, session_id=f"{thread}.{n}")
            keys = [f"user:{thread}.{n}.{k}" for k in range(3)]
            await asyncio.gather(*(service.append_event(session, event(key, state={key: 1})) for key in keys))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(lambda thread=thread: asyncio.run(alone(thread))) for thread in range(4)]:  # type: ignore[misc]
            done.result()

    async def look() -> None:
        assert len((await service.list_sessions(**NAMES)).sessions) == 20
        assert len(await service.get_user_state(**NAMES)) == 60
        await service.close()

    asyncio.run(look())


def test_who_is_cancelled_while_it_is_written_goes_on_with_the_same_session(tmp_path: Path) -> None:
    async def test() -> None:
        async with our_service(str(tmp_path / "a.db")) as service:
            (session,) = await made(service, 1)
            written, go = service.holdfast._store.extend, threading.Event()

            def held(given: Any) -> Any:
                go.wait(10)
                return written(given)

            service.holdfast._store.extend = held  # type: ignore[method-assign]
            first = asyncio.create_task(service.append_event(session, event("first", state={"n": 1})))
            await asyncio.sleep(0)
            second = asyncio.create_task(service.append_event(session, event("second")))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            go.set()
            await second
            assert said(session) == ["first", "second"] and session.state == {"n": 1}
            assert said(await service.get_session(**NAMES, session_id="s0")) == ["first", "second"]

    asyncio.run(test())


def test_an_event_that_is_delivered_again_is_kept_once() -> None:
    async def test() -> None:
        async with our_service("memory://") as service:
            (session,) = await made(service, 1)
            again = event("once", state={"n": 1})
            for given in (again, again, again.model_copy(deep=True)):
                await service.append_event(session, given)
            assert said(session) == ["once"] == said(await service.get_session(**NAMES, session_id="s0"))
            other = event("another", id=again.id)
            await service.append_event(session, other)
            assert said(await service.get_session(**NAMES, session_id="s0")) == ["once", "another"]

    asyncio.run(test())


def test_long_lists_are_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PAGE", 4)

    async def test() -> None:
        async with our_service("memory://") as service:
            for n in range(10):
                state = {"of": n, "user:of": n, "app:last": n}
                await service.create_session(app_name="loans", user_id=f"u{n % 3}", session_id=f"s{n}", state=state)
            reads = [counted(service, name) for name in ("dialogs", "shared", "dialog", "dialog_events")]
            listed = (await service.list_sessions(app_name="loans")).sessions
            assert [(each.id, each.state["of"], each.state["app:last"]) for each in listed] == [
                (f"s{n}", n, 9) for n in range(10)
            ]
            assert [len(each) for each in reads] == [4, 3, 0, 0], "two a page, and none a session"
            await service.append_event(listed[0], event("x"))
            assert said(await service.get_session(app_name="loans", user_id="u0", session_id="s0")) == ["x"]

    asyncio.run(test())


def test_it_stands_on_a_holdfast_that_is_there() -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="not both"):
            HoldfastSessionService("memory://", holdfast=holdfast.open("memory://"))
        async with holdfast.open("memory://") as hf:
            async with HoldfastSessionService(holdfast=hf) as service:
                assert service.holdfast is hf
                await made(service, 1)
            async with HoldfastSessionService(holdfast=hf) as service:  # who opened it closes it
                assert len((await service.list_sessions(**NAMES)).sessions) == 1
        service = our_service("memory://")
        (session,) = await made(service, 1)
        await service.close()
        await service.close()
        for use in (lambda: made(service, 1), lambda: talk(service, session, "x")):
            with pytest.raises(HoldfastError, match="closed"):
                await use()
        with pytest.raises(StoreError):
            HoldfastSessionService("mysql://somewhere/else")

    asyncio.run(test())


def test_the_database_fails_and_is_there_again() -> None:
    async def test() -> None:
        async with our_service("memory://") as service:
            (session,) = await made(service, 1)
            store = service.holdfast._store
            works = store.extend

            def fails(given: Any) -> Any:
                raise StoreError("no room left")

            store.extend = fails  # type: ignore[method-assign]
            with pytest.raises(StoreError, match="no room left"):
                await talk(service, session, "lost")
            store.extend = works  # type: ignore[method-assign]
            assert session.events == []
            await talk(service, session, "kept")
            assert said(await service.get_session(**NAMES, session_id="s0")) == ["kept"]

    asyncio.run(test())


def test_names_that_no_database_holds() -> None:
    async def test() -> None:
        async with our_service("memory://") as service:
            for odd in ({"session_id": "a\0b"}, {"user_id": "\ud800"}, {"app_name": "\0"}):
                with pytest.raises(ValueError, match="no database holds"):
                    await service.create_session(**{**NAMES, **odd})
                assert await service.get_session(**{**NAMES, "session_id": "s", **odd}) is None
                await service.delete_session(**{**NAMES, "session_id": "s", **odd})

    asyncio.run(test())


@pytest.mark.parametrize("kind", OURS)
def test_keys_and_values_of_any_kind(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    class Hostile:
        def __repr__(self) -> str:
            return "hostile"

    keys = ['"quoted"', "", "nul\0", "\ud800", "ünï", "user:", "a" * 5000, "user:\0", 'app:"', "'; DROP TABLE shared"]
    values = {"bytes": b"\xff\xfe", "surrogate": "x\ud800y", "nan": float("inf"), "deep": {"x": [Hostile()]}, "odd": 1j}

    async def test() -> None:
        async with our_service(url_of(kind, tmp_path, request)) as service:
            session = await service.create_session(**NAMES, session_id="s", state={key: key[:9] for key in keys[:3]})
            await service.append_event(session, event("keys", state={key: key[:9] for key in keys if key != "\ud800"}))
            await service.append_event(session, event("values", state={"\ud800": 1, **values}))
            found = await service.get_session(**NAMES, session_id="s")
            assert said(found) == ["keys", "values"] and found is not None
            assert {key: found.state[key] for key in keys if key != "\ud800"} == {
                key: key[:9] for key in keys if key != "\ud800"
            }
            assert found.state["\ud800"] == 1 and found.state["nan"] == float("inf")
            assert "hostile" in str(found.state["deep"]) and set(values) <= set(found.state)
            await talk(service, found, "and goes on")

    asyncio.run(test())


def test_garbage_is_collected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MANY", 1)
    seen: list[bool] = []
    whole = rows._event_of
    monkeypatch.setattr(rows, "_event_of", lambda *given: (seen.append(gc.isenabled()), whole(*given))[1])

    async def test() -> None:
        async with our_service("memory://") as service:
            (session,) = await made(service, 1)
            await talk(service, session, *"abc")
            reads = (service.get_session(**NAMES, session_id="s0") for _ in range(4))
            await asyncio.gather(*reads)

    asyncio.run(test())
    assert gc.isenabled() and set(seen) == {False}


def test_stale_is_told_from_gone() -> None:
    async def test() -> None:
        async with our_service("memory://") as service:
            (session,) = await made(service, 1)
            await service.delete_session(**NAMES, session_id="s0")
            await made(service, 1)
            with pytest.raises(StaleSessionError):
                await talk(service, session, "to one of the same name")

    asyncio.run(test())


def test_a_session_that_takes_no_state_holds_nobody_up() -> None:
    class Frozen(dict[str, Any]):
        def update(self, *given: Any, **more: Any) -> None:
            raise TypeError("frozen")

    async def test() -> None:
        async with our_service("memory://") as service:
            (session,) = await made(service, 1)
            session.state = Frozen()
            for _ in range(2):
                with pytest.raises(TypeError, match="frozen"):
                    await asyncio.wait_for(service.append_event(session, event(state={"n": 1})), 5)

    asyncio.run(test())
