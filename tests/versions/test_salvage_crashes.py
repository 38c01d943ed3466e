"""Killed at every point of a salvage: the same result, no acknowledged step repeated, nothing kept twice."""

from __future__ import annotations

import pytest
import swept

from holdfast.testing import crash_sweep


@pytest.mark.crash
def test_a_salvage_is_killed_at_every_point() -> None:
    sweep = crash_sweep(swept.program, limit=40)
    assert sweep.result[0] == 70 and sweep.result[1:4] == [21, 11, 30]


@pytest.mark.crash
def test_a_salvage_of_payments_is_killed_at_every_point() -> None:
    """The books of the bank are part of the result."""
    sweep = crash_sweep(swept.paying_program, limit=24)
    assert sweep.result == ["receipt 2", "receipt 3", "receipt 4", "receipt 1", ["1", "2", "3", "4"]]
