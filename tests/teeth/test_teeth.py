"""Do the tests have teeth? Each planted bug must make one of its tests fail; without it they pass."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from . import PLANTED, plant

pytestmark = pytest.mark.slow
JOBS = 2


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(JOBS) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def unplanted(pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> list[Future[tuple[int, str]]]:
    """The same tests in a copy where nothing is planted."""
    house = plant.copy_house(tmp_path_factory.mktemp("unplanted") / "house")
    tests = sorted({test for each in PLANTED for test in each.tests})
    return [pool.submit(plant.run_tests, house, tests[part::JOBS], timeout=300) for part in range(JOBS)]


@pytest.fixture(scope="module")
def verdicts(
    unplanted: object, pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[str | None]]:
    folder = tmp_path_factory.mktemp("teeth")
    return {
        each.name: pool.submit(plant.verdict, each, folder / f"plant-{number}") for number, each in enumerate(PLANTED)
    }


def test_names_are_unique() -> None:
    names = [each.name for each in PLANTED]
    assert len(set(names)) == len(names)


@pytest.mark.timeout(600)  # the first ones wait for their turn in the pool
@pytest.mark.parametrize("name", [each.name for each in PLANTED])
def test_planted_bug_is_noticed(verdicts: dict[str, Future[str | None]], name: str) -> None:
    wrong = verdicts[name].result()
    assert wrong is None, wrong


@pytest.mark.timeout(600)
def test_without_a_plant_the_same_tests_pass(unplanted: list[Future[tuple[int, str]]]) -> None:
    for each in unplanted:
        status, out = each.result()
        assert status == 0, out
