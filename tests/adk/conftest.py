"""One host of processes for each worker of pytest, and scenes in folders of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adk_lives import Host, Scene


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def scene(host: Host, tmp_path: Path) -> Callable[..., Scene]:
    """``scene("sequence")``; over ADK's own SQLite service, or over ours with ``SERVICE="holdfast"``."""
    made = 0

    def make(name: str, **env: str) -> Scene:
        nonlocal made
        made += 1
        return Scene(host, tmp_path / f"{name}-{made}", name, **env)

    return make
