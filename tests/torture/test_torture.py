"""A bounded part of ``make torture``: calls of the disk fail, the power is cut before each, processes are killed."""

from __future__ import annotations

import itertools
import os
import random

import pytest

from . import adk, agents, chain, cuts, kills
from .case import Campaign, Findings

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))


def check(findings: Findings) -> None:
    print(f"HOLDFAST_SEED={SEED} draws the same again; of a failure, python -m tests.torture --replay 'CASE'")
    print(findings)
    assert not findings.wrong, "\n\n".join(findings.wrong[:3])


def test_calls_fail() -> None:
    """Every third call of a run, each in one of the ways it can fail."""
    with Campaign(chain.TARGET, chain.STORE, stop_at_first=True) as campaign:
        known = chain.learn(campaign)
        chance = random.Random(SEED)
        every = [
            chance.choice(list(ways))
            for _, ways in itertools.groupby(chain.every_fault(known), lambda each: (each[0].what, each[0].n))
        ]
        check(campaign.run(chain.of_fault(*each, known) for each in every[SEED % 3 :: 3]))
        assert campaign.findings.injected["calls failed"] > len(every) // 6


def test_the_power_is_cut_before_every_call() -> None:
    with Campaign(chain.TARGET, chain.STORE, stop_at_first=True) as campaign:
        known = chain.learn(campaign)
        every = list(enumerate(cuts.every_cut(known)))
        check(campaign.run(cuts.of_cut(*each, SEED, known, resume=(n + SEED) % 32 == 0) for n, each in every))
        assert campaign.findings.injected["images resumed from"] > 10


def test_faults_and_power_cuts_one_after_the_other() -> None:
    with Campaign(chain.TARGET, chain.STORE, stop_at_first=True) as campaign:
        known = chain.learn(campaign)
        check(campaign.run(chain.of_seed(SEED * 1_000_000 + n, known) for n in range(40)))
        assert campaign.findings.injected["power cuts"] > 20


def test_processes_are_killed_at_any_moment() -> None:
    with Campaign(kills.TARGET, None, stop_at_first=True) as campaign:
        check(campaign.run(kills.of_seed(SEED * 1_000_000 + n) for n in range(40)))
        assert campaign.findings.injected["kills"] > 20


def test_agents_that_phrase_it_differently_pay_once() -> None:
    with Campaign(agents.TARGET, None, stop_at_first=True) as campaign:
        check(campaign.run(agents.of_seed(SEED * 1_000_000 + n) for n in range(30)))
        assert campaign.findings.injected["restores"] == 150 and campaign.findings.injected["bills paid"] > 30


def test_agents_of_adk_are_killed_and_raced_for() -> None:
    with adk.Torture() as torture:
        for name in itertools.islice(adk.cases(SEED), 7):  # three of each, and workers once
            torture.case(name)
        check(torture.findings)
        assert torture.findings.injected["kills"] >= 3 and torture.findings.injected["races"] == 3
        assert torture.findings.injected["workers"] >= 2
