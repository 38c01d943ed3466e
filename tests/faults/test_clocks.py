"""Machines whose wall clocks are hours apart: leases are compared by the store's clock alone."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests.torture import machines
from tests.torture.case import Campaign, Case
from tests.torture.grounds import HOUR_S
from tests.torture.machines import Plan

from holdfast.store import Claim, open_store
from holdfast.testing.driver import Together
from holdfast.testing.zygote import Crash, Reply

pytestmark = pytest.mark.crash


def works(url: str, ahead_s: list[float], lease_s: float, crash: Crash | None = None) -> list[list[Claim]]:
    """Two machines do all of the work, side by side, or the second when the first was killed; each run's claims."""
    claims: list[list[Claim]] = []

    def lives(campaign: Campaign, folder: Path) -> Generator[Any, Any, list[str]]:
        Plan([url, url], ahead_s, one_host=False, lease_s=lease_s).write(folder)
        replies: dict[int, Reply] = {}

        def life(process: int, crash: Crash | None = None) -> Generator[Any, Any, None]:
            replies[process] = yield from campaign.life(folder, process, crash=crash)

        if crash is None:
            yield Together([life(1), life(2)])
        else:
            yield from life(1, crash)
            yield from life(2)
        store = open_store(url)
        claims.extend(store.claims(run.no) for run in store.runs(status=None, workflow=None, limit=99, after=None))
        store.close()
        return machines.problems_in(folder, url, replies, plain, campaign)

    with Campaign(machines.TARGET, machines.STORE, jobs=1) as campaign:
        plain = machines.learn(campaign)
        findings = campaign.run(iter([Case("clocks", lives)]))
    assert not findings.wrong, findings.wrong[0]
    return claims


def test_who_lives_is_not_taken_over_by_a_clock_that_is_ahead(url: str) -> None:
    claims = works(url, [-HOUR_S, HOUR_S], lease_s=20)
    assert [len(each) for each in claims] == [1] * len(claims)


@pytest.mark.parametrize("ahead_s", [[HOUR_S, -HOUR_S], [-HOUR_S, HOUR_S]], ids=["dead one ahead", "dead one behind"])
def test_who_died_is_taken_over_when_its_lease_lapses(url: str, ahead_s: list[float]) -> None:
    """And not an hour later: the machine that lives has its answer in time."""
    claims = works(url, ahead_s, lease_s=1, crash=Crash("commit", 9, "after"))
    later = [claim for each in claims for claim in each[1:]]
    assert later and {claim.found for claim in later} == {"lapsed"}
    assert all(claim.claimed_ms - claim.seen_ms < 20_000 for claim in later)
