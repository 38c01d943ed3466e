"""A bounded part of ``python -m tests.torture --only machines``: two machines share a store, and all of them fail."""

from __future__ import annotations

import pytest
from tests.servers.postgres import PostgresServer
from tests.torture import machines
from tests.torture.case import Campaign
from tests.torture.grounds import File, Ground, Network, Standby

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def check(ground: Ground, seed: int, cases: int, *happened: str) -> None:
    with Campaign(machines.TARGET, machines.STORE, jobs=1, stop_at_first=True) as campaign:
        plain = machines.learn(campaign)
        findings = campaign.run(machines.of_seed(seed * 1_000_000 + n, ground, plain) for n in range(cases))
    findings.injected += ground.happened
    print(findings)
    assert not findings.wrong, findings.wrong[0]
    assert all(findings.injected[what] for what in happened), findings


def test_processes_killed_and_stopped_on_one_file(seed: int) -> None:
    check(File(), seed, 2, "kills", "runs taken over")


def test_machines_killed_parted_and_out_of_time_on_one_server_that_crashes(server: PostgresServer, seed: int) -> None:
    check(Network(server), seed, 2, "kills", "runs taken over")


def test_a_primary_is_lost(seed: int) -> None:
    check(Standby(), seed, 2, "primaries lost")
