"""The crash sweep over each example."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import hurried
import pytest

from holdfast.testing import crash_sweep

pytestmark = pytest.mark.crash

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.mark.parametrize(
    ("program", "result"),
    [
        (hurried.reviewed, "low risk (score 514, 14 pages)"),
        (hurried.approved, "A-17: paid out, approved by Ada"),
        (hurried.reviewed_in_a_session, {"app_id": "A-17", "credit": 514}),
        (hurried.answered, "The Zugspitze is 2962 m high, which is about 9718 feet."),
        (hurried.digested, {"files": 6, "words": 18}),
    ],
    ids=["loan", "loan_approval", "loan_session", "agent_loop", "folder_digest"],
)
def test_an_example_survives_every_crash(
    program: Any, result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hurried.TEXTS, str(tmp_path))
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"file number {number}\n")
    print(f"seed {SEED}: HOLDFAST_SEED={SEED} replays it")
    sweep = crash_sweep(program, seed=SEED, second=4)
    print(sweep)
    if isinstance(result, dict):
        assert result.items() <= sweep.result.items()
    else:
        assert sweep.result == result
    assert len(sweep.points) > 10
