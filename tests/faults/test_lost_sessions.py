"""The connection is lost while sessions of ADK are written: nobody is told that another had been faster."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from tests.servers.proxy import Proxy, When

from holdfast.adapters.adk import HoldfastSessionService

NAMES = {"app_name": "loans", "user_id": "u"}


def event(**state: int) -> Event:
    return Event(author="agent", invocation_id="i", actions=EventActions(state_delta=state))


async def talk(url: str, id: str) -> None:
    async with HoldfastSessionService(url) as service:
        session = await service.create_session(**NAMES, session_id=id, state={"n": 0, "app:n": 0})
        for n in range(1, 4):
            await service.append_event(session, event(n=n, **{"user:n": n}) if n % 2 else event())
        await asyncio.gather(*(service.append_event(session, event(**{f"k{n}": n})) for n in range(2)))
        found = await service.get_session(**NAMES, session_id=id)
        assert found is not None and found.events == session.events and len(found.events) == 5
        assert found.state == {"n": 3, "app:n": 0, "user:n": 3, "k0": 0, "k1": 1} == session.state | {"user:n": 3}
        await service.delete_session(**NAMES, session_id=id)
        assert await service.get_session(**NAMES, session_id=id) is None


@pytest.mark.parametrize("when", ["asked", "answered"])
def test_a_session_does_not_notice(proxy: Proxy, detour: str, when: When) -> None:
    """Whatever the service asks the server, from the first connection to the last, in turn."""
    asyncio.run(talk(detour, "the tables are made"))
    for turn in itertools.count():
        cut = proxy.cut(turns=turn, when=when)
        asyncio.run(talk(detour, f"session-{turn}"))
        if not cut.done.is_set():
            break
    assert turn > 15
