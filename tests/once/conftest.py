from __future__ import annotations

import once_scenes
import pytest


@pytest.fixture(autouse=True)
def _nothing_has_happened() -> None:
    once_scenes.effects.clear()
    once_scenes.trouble.clear()
