"""Several machines and one store: processes killed and stopped past their leases, wall clocks an hour apart."""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec

from holdfast.store import open_store
from holdfast.testing import ledger
from holdfast.testing.driver import Lane, Together
from holdfast.testing.verdict import problems_of
from holdfast.testing.zygote import Reply

from .case import Campaign, Case
from .grounds import Ground

TARGET = "tests.torture.machine:work"
STORE = "tests.torture.machine:store_in"
MACHINES = 2
LIVES = 5
LONGEST_MS = 400.0
LEASE_S = 1.0


class Plan(msgspec.Struct):
    """Where the store is for each machine, how much its wall clock is ahead, whether they can see each other, and
    whether the work is left to workers."""

    urls: list[str]
    ahead_s: list[float]
    one_host: bool
    workers: bool = False
    lease_s: float = LEASE_S

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_bytes(msgspec.json.encode(self))

    @staticmethod
    def read(folder: Path) -> Plan:
        return msgspec.json.decode((folder / "plan.json").read_bytes(), type=Plan)


def learn(campaign: Campaign) -> Reply:
    """How the work ends where nothing is in its way."""
    found: list[Reply] = []

    def alone() -> Lane:
        folder = campaign.new_folder()
        Plan([f"sqlite:///{folder / 'sweep.db'}"], [0.0], one_host=True).write(folder)
        found.append((yield from campaign.life(folder, 1)))

    campaign.drive(alone())
    assert found[0].failed is None and found[0].status == 0, found
    return found[0]


def of_seed(seed: int, ground: Ground, plain: Reply) -> Case:
    """Two machines, each killed and stopped a few times. The moments are drawn from the seed; what they hit is not."""

    def lives(campaign: Campaign, folder: Path) -> Generator[Any, Any, list[str]]:
        chance = random.Random(f"machines {ground.name} {seed}")
        ground.open(folder, MACHINES, chance)
        try:
            one_host, workers = chance.random() < 0.5, chance.random() < 0.5
            Plan(ground.urls, ground.ahead_s, one_host, workers).write(folder)
            campaign.findings.injected[f"cases {'left to workers' if workers else 'run'}"] += 1
            replies: dict[int, Reply] = {}
            yield Together([_machine(campaign, folder, n, chance.randrange(10**6), replies) for n in range(MACHINES)])
            ground.close()
            return problems_in(folder, ground.url, replies, plain, campaign)
        finally:
            ground.leave()

    return Case(f"machines {ground.name} {seed}", lives)


def _machine(campaign: Campaign, folder: Path, n: int, seed: int, replies: dict[int, Reply]) -> Lane:
    """One machine's processes, one after the other; the last of them is left alone."""
    chance = random.Random(seed)
    for life in range(LIVES):
        process = 1 + n + MACHINES * life
        disturbed = _disturbed(chance) if life < LIVES - 1 else {}
        reply = yield from campaign.life(folder, process, **disturbed)
        replies[process] = reply
        if not reply.killed:
            return


def _disturbed(chance: random.Random) -> dict[str, float]:
    """Killed soon, or stopped for about as long as a lease lasts and killed some time later."""
    if chance.random() < 0.6:
        return {"kill_after_ms": chance.uniform(2.0, LONGEST_MS)}
    stop_ms = chance.uniform(0.8, 1.5) * LEASE_S * 1000
    stop_after_ms = chance.uniform(2.0, LONGEST_MS)
    kill_after_ms = stop_after_ms + stop_ms + chance.uniform(2.0, 2 * LONGEST_MS)
    return {"stop_after_ms": stop_after_ms, "stop_ms": stop_ms, "kill_after_ms": kill_after_ms}


def problems_in(folder: Path, url: str, replies: dict[int, Reply], plain: Reply, campaign: Campaign) -> list[str]:
    events = ledger.read(folder / "ledger.jsonl")
    injected = campaign.findings.injected
    injected["kills"] += sum(reply.killed for reply in replies.values())
    injected["stops"] += sum(event.what == "stopped" for event in events)
    injected["runs taken over"] += sum(event.what == "loaded" for event in events)
    injected["checkpoints acknowledged"] += sum(event.what == "committed" for event in events)
    store = open_store(url)
    try:
        return problems_of(store, events, replies, plain)
    finally:
        store.close()
