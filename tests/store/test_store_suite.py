"""The stores of this release, told the one suite."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from holdfast.errors import StoreError
from holdfast.store import open_store
from holdfast.testing.store_suite import MakeStore, StoreSuite, create

_names = itertools.count()


class TestMemory(StoreSuite):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        name = f"memory://suite-{next(_names)}"
        return lambda clock=None: open_store(name, clock=clock)


class TestSQLite(StoreSuite):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda clock=None: open_store(tmp_path / "suite.db", clock=clock)


class TestPostgres(StoreSuite):
    @pytest.fixture
    def make_store(self, postgres_url: str) -> MakeStore:
        return lambda clock=None: open_store(postgres_url, clock=clock)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("loans.db", "sqlite:///loans.db"),
        ("./x/loans.db", "sqlite:///./x/loans.db"),
        (Path("/srv/loans.db"), "sqlite:////srv/loans.db"),
        ("sqlite:///loans.db", "sqlite:///loans.db"),
        ("sqlite:////srv/loans.db", "sqlite:////srv/loans.db"),
        ("sqlite+aiosqlite:///loans.db", "sqlite:///loans.db"),
        ("memory://", "memory://"),
        ("memory://tests", "memory://tests"),
    ],
)
def test_urls(given: str | Path, url: str) -> None:
    assert open_store(given).url == url


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("", "names no store"),
        (":memory:", "memory://"),
        ("sqlite://", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://loans.db", "sqlite:///loans.db"),
        ("sqlite:///loans.db?mode=ro", "takes no parameters"),
        ("file:loans.db", "Accepted: a path"),
        ("https://example.com/loans.db", "no store for https:// URLs. Accepted: a path"),
    ],
)
def test_urls_that_are_none(given: str, advice: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(given)
    assert advice in str(caught.value) and "secret" not in str(caught.value)


def test_memory_is_shared_by_name_only() -> None:
    named, private = open_store("memory://shared"), open_store("memory://")
    create(named, "a")
    assert open_store("memory://shared").get("a") is not None
    assert open_store("memory://other").get("a") is None
    create(private, "b")
    assert open_store("memory://").get("b") is None


def test_a_relative_path_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("a.db")
    monkeypatch.chdir("/")
    create(store, "a")
    assert (tmp_path / "a.db").exists()
    store.close()
