"""A bounded part of the campaign of generated programs: ``python -m tests.torture --only generated`` is the rest."""

from __future__ import annotations

import os
import random

import pytest

from . import generated

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))
PROGRAMS = 80


def test_programs_crashed_and_resumed_unchanged_and_edited() -> None:
    findings = generated.run(SEED * 1_000_000, 0.0, programs=PROGRAMS, stop_at_first=True)
    print(f"HOLDFAST_SEED={SEED} draws the same again; of a failure, python -m tests.torture --replay 'CASE'")
    print(findings)
    assert not findings.wrong, findings.wrong[0]
    did = findings.injected
    assert did["crashes"] > PROGRAMS and did["kills"] >= 2 * PROGRAMS // generated.KILLED_EACH
    assert did["salvage: done"] and did["restart: done"] and did["refuse: VersionMismatch"]
