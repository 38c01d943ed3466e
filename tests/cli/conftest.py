from __future__ import annotations

from pathlib import Path

import pytest
from terminal import LOANS, Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """An empty folder with the program ``loans.py`` in it."""
    (tmp_path / "loans.py").write_text(LOANS, encoding="utf-8")
    return Terminal(tmp_path)
