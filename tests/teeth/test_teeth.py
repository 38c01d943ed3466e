"""Do the tests have teeth? Each planted bug must make one of its tests fail; without it they pass.

Each plant is a test that runs its own house: it takes as long as it takes, and no other waits for its turn behind it,
whichever process of pytest-xdist it is given to."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from . import MODULES, PLANTED, plant

pytestmark = pytest.mark.slow
UNPLANTED_S = 280.0


def test_names_are_unique() -> None:
    names = [each.name for each in PLANTED]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_planted_bug_is_noticed(planted: plant.Plant, tmp_path: Path) -> None:
    wrong = plant.verdict(planted, tmp_path / "house")
    assert wrong is None, wrong


@pytest.mark.parametrize("module", MODULES)
def test_without_a_plant_the_same_tests_pass(module: str, tmp_path: Path) -> None:
    house = plant.copy_house(tmp_path / "house")
    tests = {test for each in import_module(f"{__package__}.{module}").PLANTED for test in each.tests}
    status, out = plant.run_tests(house, sorted(tests), timeout=UNPLANTED_S)
    assert status == 0, out
