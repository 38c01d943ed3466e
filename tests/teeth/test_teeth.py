"""Do the tests have teeth? Each planted bug must make one of its tests fail; without it they pass."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from . import PLANTED, plant

pytestmark = pytest.mark.slow
JOBS = 2


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str | None]]]:
    folder = tmp_path_factory.mktemp("teeth")
    with ThreadPoolExecutor(JOBS) as pool:
        yield {
            each.name: pool.submit(plant.verdict, each, folder / f"plant-{number}")
            for number, each in enumerate(PLANTED)
        }
        pool.shutdown(cancel_futures=True)


def test_names_are_unique() -> None:
    names = [each.name for each in PLANTED]
    assert len(set(names)) == len(names)


@pytest.mark.timeout(600)  # the first ones wait for their turn in the pool
@pytest.mark.parametrize("name", [each.name for each in PLANTED])
def test_planted_bug_is_noticed(verdicts: dict[str, Future[str | None]], name: str) -> None:
    wrong = verdicts[name].result()
    assert wrong is None, wrong


@pytest.mark.timeout(600)
def test_without_a_plant_the_same_tests_pass(tmp_path: Path) -> None:
    house = plant.copy_house(tmp_path / "house")
    tests = sorted({test for each in PLANTED for test in each.tests})
    status, out = plant.run_tests(house, tests)
    assert status == 0, out
