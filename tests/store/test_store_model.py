"""Every store against a model that is nothing but dicts: histories Hypothesis makes up, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from holdfast.store import Batch, Finish, Store, open_store
from holdfast.testing.store_suite import Clock, checkpoint, run_row

IDS = [f"run-{n}" for n in range(4)]
OWNERS = ["p", "q"]
_names = itertools.count()

places = st.tuples(st.sampled_from(IDS), st.integers(-1, 1), st.integers(1, 6), st.sampled_from([b"x", b"y", None]))
ends = st.tuples(st.sampled_from(IDS), st.integers(-1, 0), st.sampled_from(["done", "failed", "waiting"]))


class Histories(RuleBasedStateMachine):
    new_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.place = self.new_url()
        self.store: Store = open_store(self.place, clock=self.clock)
        self.runs: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[int, Any]] = {}
        self.claims: dict[str, list[tuple[int, str]]] = {}

    def teardown(self) -> None:
        self.store.close()

    @rule(ids=st.lists(st.sampled_from(IDS), max_size=3), owner=st.sampled_from([*OWNERS, None]))
    def create(self, ids: list[str], owner: str | None) -> None:
        created = self.store.commit(Batch(creates=[run_row(id, owner=owner, ttl_ms=100) for id in ids])).created
        assert set(created) == set(ids) - set(self.runs)
        for id, row in created.items():
            until = self.clock.now + 100 if owner else 0
            self.runs[id] = {
                "no": row.no, "status": "running", "owner": owner, "epoch": 1, "deaths": 0, "result": None,
                "lease_until_ms": until, "created_ms": self.clock.now, "updated_ms": self.clock.now,
                "heard_ms": self.clock.now,
            }  # fmt: skip
            self.rows[id] = {}
            self.claims[id] = [(1, owner)] if owner else []

    @rule(appends=st.lists(places, max_size=8), finishes=st.lists(ends, max_size=2, unique_by=lambda e: e[0]))
    def commit(self, appends: list[Any], finishes: list[Any]) -> None:
        batch = Batch()
        parts: dict[str, tuple[list[Any], list[Finish]]] = {}
        for id, step, seq, result in appends:
            if run := self.runs.get(id):
                row = checkpoint(run["no"], seq, epoch=run["epoch"] + step, result=result)
                batch.appends.append(row)
                parts.setdefault(id, ([], []))[0].append(row)
        for id, step, status in finishes:
            if run := self.runs.get(id):
                end = Finish(run_no=run["no"], epoch=run["epoch"] + step, status=status, result=b"r")
                batch.finishes.append(end)
                parts.setdefault(id, ([], []))[1].append(end)
        refused = {self.runs[id]["no"] for id, part in parts.items() if not self._take(id, *part)}
        assert self.store.commit(batch).fenced == refused

    def _take(self, id: str, rows: list[Any], finishes: list[Finish]) -> bool:
        run, after = self.runs[id], dict(self.rows[id])
        for row in rows:
            if row.epoch != run["epoch"] or after.setdefault(row.seq, row).checksum != row.checksum:
                return False
        for end in finishes:
            if end.epoch != run["epoch"]:
                return False
            if run["owner"] is None and (run["status"], run["result"]) != (end.status, end.result):
                return False
        if run["owner"] is None:
            return len(after) == len(self.rows[id])
        self.rows[id] = after
        for end in finishes:
            run |= {"status": end.status, "result": end.result, "owner": None, "lease_until_ms": 0}
            run["updated_ms"] = self.clock.now
        return True

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), id=st.sampled_from(IDS), at=st.integers(0, 6))
    def fork(self, data: st.DataObject, id: str, at: int) -> None:
        source = data.draw(st.sampled_from(sorted(self.runs)))
        row = self.store.fork(self.runs[source]["no"], at, run_row(id, owner=None, status="queued", epoch=0))
        assert (row is None) == (id in self.runs)
        if row is not None:
            self.runs[id] = {
                "no": row.no, "status": "queued", "owner": None, "epoch": 0, "deaths": 0, "result": None,
                "lease_until_ms": 0, "created_ms": self.clock.now, "updated_ms": self.clock.now,
                "heard_ms": self.clock.now,
            }  # fmt: skip
            kept = {seq: each for seq, each in self.rows[source].items() if seq <= at}
            last = max((each.epoch for each in kept.values()), default=0)
            self.rows[id] = {seq: replace(each, run_no=row.no, epoch=each.epoch - last) for seq, each in kept.items()}
            for each in self.rows[id].values():
                each.checksum = each.compute_checksum()
            self.claims[id] = []

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        step=st.sampled_from([0, 0, 0, -1]),
        owner=st.sampled_from(OWNERS),
        lost=st.sampled_from([None, "died", "lapsed"]),
    )
    def claim(self, data: st.DataObject, step: int, owner: str, lost: str | None) -> None:
        id = data.draw(st.sampled_from(sorted(self.runs)))
        run = self.runs[id]
        row = self.store.claim(run["no"], run["epoch"] + step, owner=owner, ttl_ms=70, lost=lost)
        assert (row is None) == (step != 0 or run["status"] in ("done", "cancelled"))
        if row is not None:
            run |= {"status": "running", "owner": owner, "epoch": run["epoch"] + 1}
            run |= {"lease_until_ms": self.clock.now + 70, "updated_ms": self.clock.now, "heard_ms": self.clock.now}
            run["deaths"] += lost is not None
            self.claims[id].append((run["epoch"], owner))

    @rule(owner=st.sampled_from(OWNERS))
    def renew(self, owner: str) -> None:
        held = [run for run in self.runs.values() if run["owner"] == owner]
        assert self.store.renew(owner, ttl_ms=90) == {run["no"] for run in held}
        for run in held:
            run |= {"lease_until_ms": self.clock.now + 90, "heard_ms": self.clock.now}

    @rule(id=st.sampled_from(IDS))
    def cancel(self, id: str) -> None:
        row, run = self.store.cancel(id), self.runs.get(id)
        assert (row is None) == (run is None)
        if run and run["status"] not in ("done", "cancelled"):
            run |= {"status": "cancelled", "owner": None, "epoch": run["epoch"] + 1, "lease_until_ms": 0}
            run["updated_ms"] = self.clock.now

    @rule(ms=st.integers(1, 200))
    def wait(self, ms: int) -> None:
        self.clock.now += ms

    @rule()
    def reopen(self) -> None:
        if self.store.durable:
            self.store.close()
            self.store = open_store(self.place, clock=self.clock)

    @invariant()
    def is_as_the_model(self) -> None:
        listed = self.store.runs(status=None, workflow=None, limit=99, after=None)
        assert {row.id for row in listed} == set(self.runs)
        assert [row.no for row in listed] == sorted((row.no for row in listed), reverse=True)
        for row in listed:
            assert {name: getattr(row, name) for name in self.runs[row.id]} == self.runs[row.id]
            assert self.store.load(row.no) == [self.rows[row.id][seq] for seq in sorted(self.rows[row.id])]
            assert [(c.epoch, c.owner) for c in self.store.claims(row.no)] == self.claims[row.id]
            assert self.store.spent([row.no])[row.no].steps == sum(r.epoch > 0 for r in self.rows[row.id].values())


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_histories(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    new_urls: dict[str, Callable[[], str]] = {
        "memory": lambda: f"memory://model-{next(_names)}",
        "sqlite": lambda: f"{tmp_path}/{next(_names)}.db",
    }
    new_url = new_urls[kind] if kind in new_urls else request.getfixturevalue("new_schema")
    run_state_machine_as_test(
        type("Machine", (Histories,), {"new_url": staticmethod(new_url)}),
        settings=settings(
            max_examples=60 if kind in new_urls else 25,  # there each makes its tables anew
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
