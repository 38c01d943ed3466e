"""Real processes on real files, killed at any moment and resumed with other timings, on both loops, until they end."""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path

import msgspec

from holdfast import codec
from holdfast.testing import ledger
from holdfast.testing.zygote import Reply, Request

from .case import Campaign, Case
from .looking import problems_of_file, problems_of_runs

TARGET = "lives:one_life"
WHOLE = "all of it happened, once and in order"  # what a life that comes to the end answers
LOOPS = ("asyncio", "uvloop")
LIVES = 12
LONGEST_MS = 300.0


def of_seed(seed: int) -> Case:
    """A generated program, killed up to eleven times. Its moments are drawn from the seed; what they hit is not."""

    def lives(campaign: Campaign, folder: Path) -> Generator[Request, Reply, list[str]]:
        chance = random.Random(f"kill {seed}")
        replies: list[Reply] = []
        problems: list[str] = []
        while not replies or replies[-1].killed:
            process, last = len(replies) + 1, len(replies) + 1 == LIVES
            # As ``lives.Plan`` reads it, which is imported by the processes alone.
            plan = {"seed": seed, "process": process, "timing": chance.choice([0, chance.randrange(1, 10**6)])}
            (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
            loop = chance.choice(LOOPS)
            # Short lives are as likely as long ones, so that claims and first commits are hit as often as the rest.
            after = None if last else 2.0 * (LONGEST_MS / 2.0) ** chance.random()
            reply = yield from campaign.life(folder, process, kill_after_ms=after, loop=loop)
            campaign.findings.injected["kills" if reply.killed else f"ends on {loop}"] += 1
            replies.append(reply)
            problems += [f"after process {process}: {each}" for each in problems_of_file(campaign.new_folder(folder))]
        rows = sum(event.what == "committed" for event in ledger.read(folder / "ledger.jsonl"))
        campaign.findings.injected["checkpoints acknowledged"] += rows
        whole = Reply(0, result=codec.encode(WHOLE, codec.Types.none, "the result"))
        return problems + problems_of_runs(folder, replies, whole)

    return Case(f"kill {seed}", lives)
