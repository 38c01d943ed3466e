"""The one suite told to every store.

Subclass ``StoreSuite`` in a test module and give it a fixture ``make_store``: a callable that opens the
same store anew each time it is called, ``make_store(clock=None)``::

    class TestMine(StoreSuite):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock=None: MyStore(tmp_path / "mine", clock=clock)
"""

from __future__ import annotations

from typing import Any

import pytest

from .blobs import Keeping
from .dialogs import Talking
from .forks import Forks
from .life import Life
from .news import Telling
from .owners import Owners
from .queues import Queues
from .records import Records
from .rows import Clock, MakeStore, append, at_once, checkpoint, claim, create, finish, news, numbers, run_row

__all__ = [
    "Clock",
    "MakeStore",
    "StoreSuite",
    "append",
    "at_once",
    "checkpoint",
    "claim",
    "create",
    "finish",
    "news",
    "numbers",
    "run_row",
]


class StoreSuite(Records, Keeping, Forks, Owners, Queues, Telling, Talking, Life):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        raise NotImplementedError("give the class a fixture make_store")

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, make_store: MakeStore, clock: Clock) -> Any:
        store = make_store(clock)
        yield store
        store.close()
