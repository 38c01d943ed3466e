from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inside import url_of
from scene import Scene


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, url_of(request, tmp_path))
    yield scene
    scene.end_all()
