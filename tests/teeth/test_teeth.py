"""Do the tests have teeth? Each planted bug must make one of its tests fail; without it they pass.

``python -m tests.teeth`` plants all of them, and so does ``make torture``. Here it is every eighth, and for each
of them whether its text and its tests are still there."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import PLANTED, plant

pytestmark = pytest.mark.slow
EVERY = 8


def test_names_are_unique() -> None:
    names = [each.name for each in PLANTED]
    assert len(set(names)) == len(names)


def test_each_plant_finds_its_text() -> None:
    outdated = [wrong for each in PLANTED if (wrong := plant.outdated(each, plant.ROOT)) is not None]
    assert not outdated, "\n".join(outdated)


def test_each_plant_finds_its_tests() -> None:
    tests = sorted({test for each in PLANTED for test in each.tests})
    status, out = plant.run_tests(plant.ROOT, tests, "--collect-only")
    assert status == 0, out


# Each is a test that runs its own house: it takes as long as it takes, and no other waits for its turn behind it,
# whichever process of pytest-xdist it is given to.
@pytest.mark.parametrize("planted", PLANTED[::EVERY], ids=lambda planted: planted.name)
def test_planted_bug_is_noticed(planted: plant.Plant, tmp_path: Path) -> None:
    wrong = plant.verdict(planted, tmp_path / "house")
    assert wrong is None, wrong
