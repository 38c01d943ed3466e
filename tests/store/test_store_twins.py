"""Every store beside the memory store, which is the reference: the same history told to both, their answers compared.
Hypothesis makes the histories up: queues, sleepers, mailboxes, families and lost owners, in any order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from holdfast.store import NEVER_MS, Batch, Code, Finish, RunRow, Store, Taken, open_store
from holdfast.testing.store_suite import Clock, checkpoint, run_row

IDS = [f"run-{n}" for n in range(4)]
OWNERS = ["p", "q"]
QUEUES = ["a", "b"]
WORKFLOWS = ["review_loan", "other"]
_names = itertools.count()

ids, owners, queues = st.sampled_from(IDS), st.sampled_from(OWNERS), st.sampled_from(QUEUES)
dues = st.sampled_from([0, 0, 50, 200])
ends = st.sampled_from(["done", "failed", "sleep", "sleep", "run"])
codes = st.sampled_from([None, None, None, Code("1", "3.11"), Code("2", "3.11")])
known = st.dictionaries(st.sampled_from(WORKFLOWS), codes)


class Twins(RuleBasedStateMachine):
    new_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        urls = ("memory://", self.new_url())
        self.stores: list[Store] = [open_store(url, clock=self.clock) for url in urls]

    def teardown(self) -> None:
        for store in self.stores:
            store.close()

    def _same(self, ask: Any) -> Any:
        """``ask`` of each store, given its own number of each run; what the reference answers."""
        answers = []
        for store in self.stores:
            rows = {id: store.get(id) for id in IDS}
            names = {row.no: id for id, row in rows.items() if row is not None}
            answers.append(_named(ask(store, rows), names))
        assert answers[0] == answers[1]
        return answers[0]

    @initialize(priorities=st.permutations([0, 1]), due_ms=dues)
    def begin(self, priorities: list[int], due_ms: int) -> None:
        """Histories in which nothing is there yet are soon told: two runs are owned, two are queued."""
        more: dict[str, Any] = {"parent": IDS[0], "queue": "a", "workflow": "other"}
        for id in IDS[:2]:
            self.create(id=id, owner="p", priority=0, due_ms=0, **more)
        for id, priority in zip(IDS[2:], priorities, strict=True):
            self.create(id=id, owner=None, priority=priority, due_ms=due_ms, **more)

    @rule(id=ids, owner=st.sampled_from([*OWNERS, None]), queue=queues, workflow=st.sampled_from(WORKFLOWS),
          priority=st.integers(-1, 1), due_ms=dues, parent=ids)  # fmt: skip
    def create(self, id: str, parent: str, owner: str | None, **more: Any) -> None:
        def ask(store: Store, rows: dict[str, RunRow | None]) -> Any:
            above = rows[parent]
            more["parent_no"] = None if above is None else above.no
            more["status"] = "queued" if owner is None else "running"
            return store.commit(Batch(creates=[run_row(id, owner=owner, ttl_ms=100, **more)])).created

        self._same(ask)

    @rule(id=ids, off=st.sampled_from([0, 0, 0, 1]), seq=st.integers(1, 3),
          kind=ends, due_ms=dues, seen=st.booleans())  # fmt: skip
    def write(self, id: str, off: int, seq: int, kind: str, due_ms: int, seen: bool) -> None:
        """A row, and perhaps the end or the sleep of its run, by its owner or by one who has lost it."""

        def ask(store: Store, rows: dict[str, RunRow | None]) -> Any:
            row = rows[id]
            if row is None:
                return None
            batch = Batch(appends=[checkpoint(row.no, seq, epoch=row.epoch - off)])
            end = Finish(run_no=row.no, epoch=row.epoch - off, status=kind, parent_no=row.parent_no)
            if kind == "sleep":
                end.status, end.waiting, end.parent_no = "waiting", b"w", None
                end.due_ms, end.wakes = self.clock.now + due_ms if due_ms else NEVER_MS, row.wakes - (not seen)
            if kind != "run":
                batch.finishes = [end]
            return store.commit(batch).fenced

        self._same(ask)

    @rule(owner=owners, queue=st.sampled_from("aab"), workflows=known, dead=st.sets(owners),
          limit=st.integers(0, 3), at_once=st.sampled_from([None, 1, 2]))  # fmt: skip
    def claim_due(self, owner: str, **given: Any) -> None:
        self._same(lambda store, _: store.claim_due(owner, ttl_ms=100, **given))

    @rule(id=ids, owner=owners, lost=st.sampled_from([None, "died", "lapsed"]))
    def claim(self, id: str, owner: str, lost: str | None) -> None:
        def ask(store: Store, rows: dict[str, RunRow | None]) -> Any:
            row = rows[id]
            return None if row is None else store.claim(row.no, row.epoch, owner=owner, ttl_ms=100, lost=lost)

        self._same(ask)

    @rule(owner=owners, id=ids, what=st.sampled_from([b"x", None]))
    def renew(self, owner: str, id: str, what: bytes | None) -> None:
        def ask(store: Store, rows: dict[str, RunRow | None]) -> Any:
            row = rows[id]
            return store.renew(owner, ttl_ms=100, waiting={} if row is None else {row.no: what})

        self._same(ask)

    @rule(id=ids, name=st.sampled_from("xy"), key=st.sampled_from([None, "k", "m"]))
    def send(self, id: str, name: str, key: str | None) -> None:
        self._same(lambda store, _: store.send(id, name, b"v", key=key))

    @rule(id=ids, really=st.sampled_from([False, False, False, True]))
    def cancel(self, id: str, really: bool) -> None:
        if really:
            self._same(lambda store, _: store.cancel(id))

    @rule(ms=st.sampled_from([1, 50, 100]))
    def pass_time(self, ms: int) -> None:
        self.clock.now += ms

    @invariant()
    def everything_is_the_same(self) -> None:
        def ask(store: Store, rows: dict[str, RunRow | None]) -> Any:
            known = [row for row in rows.values() if row is not None]
            listed = store.runs(status=None, workflow=None, limit=99, after=None)
            each = [(store.load(row.no), store.claims(row.no), store.signals(row.no)) for row in known]
            wakes = {row.id: store.wakes([row.no])[row.no] for row in known}
            return listed, each, wakes, store.owners()

        self._same(ask)


def _named(answer: Any, names: dict[int, str]) -> Any:
    """With ids for the numbers of runs, which a store may give out as it likes, and no checksums over these."""
    if isinstance(answer, RunRow):
        plain = {name: getattr(answer, name) for name in RunRow.__struct_fields__ if name != "no"}
        return {**plain, "parent_no": names.get(answer.parent_no or 0)}
    if isinstance(answer, Taken):
        return tuple(_named(each, names) for each in answer)
    if isinstance(answer, (list, tuple)):
        return [_named(each, names) for each in answer]
    if isinstance(answer, dict):
        return {key: _named(each, names) for key, each in answer.items()}
    if isinstance(answer, set):
        return {names[no] for no in answer}
    if hasattr(answer, "run_no"):
        fields = [name for name in answer.__struct_fields__ if name != "checksum"]
        return {**{name: getattr(answer, name) for name in fields}, "run_no": names[answer.run_no]}
    return answer


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_every_store_is_as_the_reference(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    new_url = request.getfixturevalue("new_schema") if kind == "postgres" else lambda: f"{tmp_path}/{next(_names)}.db"
    machine = type("Twin", (Twins,), {"new_url": staticmethod(new_url)})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=150 if kind == "sqlite" else 40,  # there each makes its tables anew
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
