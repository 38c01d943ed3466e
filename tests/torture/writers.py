"""Processes that write to sessions of ADK at once, and are killed meanwhile. Run as a module this is one of them."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from google.adk.errors import StaleSessionError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService
from google.adk.sessions.session import Session

from holdfast.adapters.adk import HoldfastSessionService

from .case import Findings

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"app_name": "torture", "user_id": "u"}
CROWD = 40
ROUNDS = 10  # before another session is taken, or the writers are killed


# -- one writer --------------------------------------------------------------------------------------------


def _event(said: str, **state: Any) -> Event:
    return Event(author="agent", invocation_id=said, actions=EventActions(state_delta=state))


async def _serve(service: BaseSessionService) -> None:
    """Commands come as lines, and each is answered with one; ``talk`` with one for each event, until the end."""
    session: Session | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        what, *rest = line.split()
        if what == "load":
            session = await service.get_session(**NAMES, session_id=rest[0])
            assert session is not None
            answer = f"loaded {len(session.events)}"
        elif what == "append":
            assert session is not None
            name, wait_s = rest
            await asyncio.sleep(float(wait_s))
            try:
                await service.append_event(session, _event(name, **{name: 1, f"user:{name}": 1, "last": name}))
                answer = "written"
            except StaleSessionError:
                answer = "stale"
        elif what == "crowd":
            await asyncio.gather(*(_one_of_many(service, name) for name in rest))
            answer = "done"
        else:
            assert session is not None
            await _talk(service, session, rest[0])
            answer = "done"
        print(answer, flush=True)


async def _one_of_many(service: BaseSessionService, name: str) -> None:
    session = await service.create_session(**NAMES, session_id=name)
    for n in range(3):
        await service.append_event(session, _event(f"{n}", **{f"user:{name}": n, f"app:{name}": n, "own": n}))


async def _talk(service: BaseSessionService, session: Session, name: str) -> None:
    for n in range(len(session.events), 100_000):
        await service.append_event(session, _event(f"{n}", **{"n": n, f"user:{name}": n, f"app:{name}": n}))
        print(n, flush=True)


class Writer:
    """A process of its own."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "tests.torture.writers", url]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> list[str]:
        """What it had said until then."""
        self._process.kill()
        told, _ = self._process.communicate()
        return told.splitlines()

    def close(self) -> None:
        self._process.communicate(timeout=30)


# -- what is done to them ----------------------------------------------------------------------------------


def campaign(url: str, rounds: int, seed: int, until: float | None = None, *, kills: int = 2) -> Findings:
    """Two writers append to one session from one revision, in so many rounds; many sessions of one user set a key each;
    writers are killed while they talk."""
    chance, findings, began = random.Random(seed), Findings(), time.monotonic()
    service = HoldfastSessionService(url)
    try:
        asyncio.run(_campaign(service, url, chance, findings, rounds, kills, until))
    finally:
        service.holdfast.close()
    findings.seconds = time.monotonic() - began
    return findings


async def _campaign(
    service: HoldfastSessionService,
    url: str,
    chance: random.Random,
    findings: Findings,
    rounds: int,
    kills: int,
    until: float | None,
) -> None:
    writers = [Writer(url), Writer(url)]
    while rounds > 0 and (until is None or time.monotonic() < until):
        findings.wrong += await _race(service, writers, f"race-{chance.getrandbits(40)}", min(rounds, ROUNDS), findings)
        rounds -= ROUNDS
    findings.wrong += await _crowd(service, writers, f"crowd-{chance.getrandbits(40)}", findings)
    while kills > 0 and writers:
        findings.wrong += await _kill(service, writers.pop(), chance, f"killed-{chance.getrandbits(40)}", findings)
        kills -= 1
        if kills > len(writers) and (until is None or time.monotonic() < until):
            writers.append(Writer(url))
    for writer in writers:
        writer.close()


async def _race(
    service: HoldfastSessionService, writers: list[Writer], id: str, rounds: int, findings: Findings
) -> list[str]:
    await service.create_session(**NAMES, session_id=id)
    wrong, written = [], []
    for n in range(rounds):
        findings.cases += 1
        for writer in writers:
            writer.tell(f"load {id}")
        loaded = [writer.answer() for writer in writers]
        if loaded != [f"loaded {n}"] * 2:
            wrong.append(f"{id}, round {n}: {loaded} of {n} events")
        names = [f"{id}.{n}.{k}" for k in range(2)]
        for k, writer in enumerate(writers):
            writer.tell(f"append {names[k]} {0.0002 * (n % 4) * (k ^ n & 1)}")
        told = [writer.answer() for writer in writers]
        if sorted(told) != ["stale", "written"]:
            wrong.append(f"{id}, round {n}: from one revision {told}")
        written += [name for name, answer in zip(names, told, strict=True) if answer == "written"]
        findings.injected.update(told)
    session = await service.get_session(**NAMES, session_id=id)
    assert session is not None
    if [event.invocation_id for event in session.events] != written or session.state.get("last") != written[-1]:
        wrong.append(f"{id}: {len(session.events)} events, and {len(written)} were acknowledged")
    for kept in (name for name in written for name in (name, f"user:{name}")):
        if kept not in session.state:
            wrong.append(f"{id}: {kept} was acknowledged and is lost")
    return wrong


async def _crowd(service: HoldfastSessionService, writers: list[Writer], id: str, findings: Findings) -> list[str]:
    """Each of many sessions sets a key of its own in the state that all of them share."""
    findings.cases += 1
    names = [f"{id}.{n}" for n in range(CROWD)]
    for k, writer in enumerate(writers):
        writer.tell(" ".join(["crowd", *names[k::2]]))
    for writer in writers:
        writer.answer()
    session = await service.get_session(**NAMES, session_id=names[0])
    assert session is not None
    keys = [f"{scope}:{name}" for name in names for scope in ("user", "app")]
    findings.injected["keys set at once"] += len(keys)
    return [f"{id}: {key} is lost" for key in keys if session.state.get(key) != 2]


async def _kill(
    service: HoldfastSessionService, writer: Writer, chance: random.Random, id: str, findings: Findings
) -> list[str]:
    """What was acknowledged is there, and what is there is whole: the event with all that it set."""
    findings.cases += 1
    findings.injected["kills"] += 1
    await service.create_session(**NAMES, session_id=id)
    writer.tell(f"load {id}")
    writer.answer()
    writer.tell(f"talk {id}")
    writer.answer()
    await asyncio.sleep(chance.uniform(0.0, 0.1))
    told = [int(line) for line in writer.kill() if line.isdigit()]
    last = told[-1] if told else 0
    while True:
        session = await service.get_session(**NAMES, session_id=id)
        assert session is not None
        found = len(session.events) - 1
        kept = {key: session.state.get(key) for key in ("n", f"user:{id}", f"app:{id}")}
        if found not in (last, last + 1) or set(kept.values()) != {found}:
            return [f"{id}: {last} was acknowledged, the last event is {found}, and the state {kept}"]
        try:
            await service.append_event(session, _event("after"))
        except StaleSessionError:
            continue  # the server was still at the last event, without the process that had sent it
        return []


if __name__ == "__main__":
    asyncio.run(_serve(HoldfastSessionService(sys.argv[1])))
