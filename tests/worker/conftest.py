from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inside import STORES, url_of
from queued import executed, gates
from scene import Scene

from holdfast.store import Store, open_store


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, url_of(request, tmp_path))
    yield scene
    scene.end_all()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    executed.clear()
    gates.clear()
    yield
    gates.clear()


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = open_store(url_of(request, tmp_path))
    yield made
    made.close()
