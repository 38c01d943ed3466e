"""Restores of agents whose model phrases its calls differently after each restart: no bill is ever paid twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from holdfast import codec
from holdfast.testing.zygote import Reply, Request

from .agent import Plan, booked
from .case import Campaign, Case

TARGET = "tests.torture.agent:one_life"
SHAPES = ("turns", "gather", "key", "step")
RESTORES = 5


def of_seed(seed: int) -> Case:
    """One agent, restored five times."""

    def lives(campaign: Campaign, folder: Path) -> Generator[Request, Reply, list[str]]:
        chance = random.Random(f"agent {seed}")
        shape, verify = chance.choice(SHAPES), chance.random() < 0.5
        for process in range(1, RESTORES + 2):
            Plan(shape, chance.randrange(10**6), chance.randrange(1, 12), verify).write(folder)
            reply = yield from campaign.life(folder, process)
            how = "killed" if reply.killed else str(codec.readable(reply.result)) if reply.result else reply.failed
            campaign.findings.injected[f"ends {how}"] += 1
            campaign.findings.injected["restores"] += process > 1
            if how is None or reply.failed is not None:
                return [f"process {process} ({shape}): {reply}"]
        paid = Counter(line.partition(" ")[0] for line in booked(folder))
        campaign.findings.injected["bills paid"] += len(paid)
        twice = {bill: times for bill, times in paid.items() if times > 1}
        return [f"paid more than once ({shape}, verify {verify}): {twice}"] if twice else []

    return Case(f"agent {seed}", lives)
