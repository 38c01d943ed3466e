"""Owners that were fenced and do not know it write, thousands of times, while their runs are taken from them."""

from __future__ import annotations

from pathlib import Path

from tests.torture import zombies

ATTEMPTS = 1500


def check(tally: zombies.Tally) -> None:
    print(tally)
    assert tally.attempts >= ATTEMPTS and tally.written > 0
    assert not tally.wrong, tally.wrong[:5]
    assert tally.accepted == 0


def test_no_zombie_writes_to_a_file(tmp_path: Path, seed: int) -> None:
    check(zombies.campaign(f"sqlite:///{tmp_path / 'a.db'}", ATTEMPTS, seed))


def test_no_zombie_writes_to_a_server(url: str, seed: int) -> None:
    check(zombies.campaign(url, ATTEMPTS, seed))
