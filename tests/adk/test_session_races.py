"""Real processes write to one store at once. All of it: ``python -m tests.torture --only writers``."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from adk_services import url_of
from tests.torture import writers

pytestmark = pytest.mark.crash

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_of_two_writers_one_is_stale_and_nothing_acknowledged_is_lost(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    print(f"HOLDFAST_SEED={SEED} draws the same again")
    findings = writers.campaign(url_of(kind, tmp_path, request), 12, SEED, kills=1)
    print(findings)
    assert not findings.wrong, findings.wrong[:3]
    assert findings.injected["written"] == 12 == findings.injected["stale"] and findings.injected["kills"] == 1
