"""Fixtures for programs that use holdfast. In a ``conftest.py``: ``pytest_plugins =
["holdfast.testing.pytest_plugin"]``.

It is not registered by itself: a plugin that comes with every installation would load holdfast, and claim these short
names, in test suites that have nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast

from .fake_clock import FakeClock


@pytest.fixture
def hf() -> Iterator[holdfast.Holdfast]:
    """A ``Holdfast`` on a memory store of its own."""
    home = holdfast.open("memory://")
    yield home
    home.close()


@pytest.fixture
def hf_sqlite(tmp_path: Path) -> Iterator[holdfast.Holdfast]:
    """A ``Holdfast`` on a new SQLite file: ``tmp_path / "holdfast.db"``."""
    home = holdfast.open(tmp_path / "holdfast.db")
    yield home
    home.close()


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """Time stands still in holdfast until the test advances it."""
    with FakeClock() as clock:
        yield clock
