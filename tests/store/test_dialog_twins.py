"""Dialogs in every store are as in the reference: the same histories, made up by Hypothesis, told to both."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from holdfast.store import Dialog, Store, open_store, owner_of
from holdfast.testing.store_suite.dialogs import dialog, extension, shared_key

_names = itertools.count()

ids = st.sampled_from(["a", "b", "c"])
owners = st.sampled_from([owner_of("loans"), owner_of("loans", "u"), "own"])
keys = st.lists(st.tuples(owners, st.sampled_from("xyz"), st.binary(max_size=2)), max_size=3, unique_by=lambda k: k[:2])
# Which dialog, how far from its last event the writer is, what it writes and when, and the keys it sets.
events = st.tuples(ids, st.sampled_from([0, 0, 0, -1, 1]), st.sampled_from([b"p", b"q"]), st.integers(0, 3), keys)


class Twins(RuleBasedStateMachine):
    new_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.place = self.new_url()
        self.stores: list[Store] = [open_store(f"memory://dialogs-{next(_names)}"), open_store(self.place)]

    def teardown(self) -> None:
        for store in self.stores:
            store.close()

    def same(self, ask: Callable[[Store], Any]) -> Any:
        reference, other = (ask(store) for store in self.stores)
        assert reference == other
        return reference

    @rule(id=ids, at=st.integers(0, 3), keys=keys)
    def open(self, id: str, at: int, keys: Any) -> None:
        self.same(lambda store: store.open_dialog(dialog(id, at=float(at)), _keys(id, keys)) is None)

    @rule(given=st.lists(events, min_size=1, max_size=5))
    def extend(self, given: Any) -> None:
        def ask(store: Store) -> Any:
            last: dict[str, Dialog] = {}
            extensions = []
            for id, off, data, at, keys in given:
                found = store.dialog("loans", "u", id)
                row = last.get(id) or (found.dialog if found is not None else dialog(id))
                seq = max(row.seq + 1 + off, 1)
                extensions.append(
                    extension(row, *_keys(id, keys), data=data, at=float(at), seq=seq, turn=data.decode())
                )
                if off == 0:
                    last[id] = extensions[-1].dialog
            return store.extend(extensions)

        self.same(ask)

    @rule(id=ids)
    def delete(self, id: str) -> None:
        self.same(lambda store: store.delete_dialog("loans", "u", id))

    @rule()
    def reopen(self) -> None:
        self.stores[1].close()
        self.stores[1] = open_store(self.place)

    @rule(id=ids, after=st.integers(0, 3), until=st.integers(0, 5), at=st.integers(0, 4))
    def look(self, id: str, after: int, until: int, at: int) -> None:
        def ask(store: Store) -> Any:
            found = store.dialog("loans", "u", id)
            no = found.dialog.no if found is not None else 10**9
            parts = [store.dialog_events(no, after=after, until=until, turn=turn) for turn in (None, "p")]
            return [[event.seq for event in part] for part in parts], store.last_before(no, float(at), until=until)

        self.same(ask)

    @invariant()
    def everything_is_the_same(self) -> None:
        def ask(store: Store) -> Any:
            rows = store.dialogs("loans", None, limit=9)
            told = [store.dialog_events(row.no, until=10**6) for row in rows]
            events = [[(each.seq, each.turn, each.at, each.data) for each in of] for of in told]
            own = [owner_of("loans"), owner_of("loans", "u"), *(row.owner for row in rows)]
            return [replace(row, no=0) for row in rows], events, store.shared(own)

        self.same(ask)


def _keys(id: str, keys: Any) -> list[Any]:
    """``own`` are those of the dialog."""
    return [shared_key(dialog(id).owner if owner == "own" else owner, key, value) for owner, key, value in keys]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_dialogs_are_as_in_the_reference(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    new_url = request.getfixturevalue("new_schema") if kind == "postgres" else lambda: f"{tmp_path}/{next(_names)}.db"
    run_state_machine_as_test(
        type("Twin", (Twins,), {"new_url": staticmethod(new_url)}),
        settings=settings(
            max_examples=40 if kind == "sqlite" else 10,  # there each makes its tables anew
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
