"""A plan made of a run in a store, and that making it changes nothing."""

from __future__ import annotations

from typing import Any

from holdfast.app import Holdfast
from holdfast.planning import Plan, plan_run, unwritten
from holdfast.store import Store

TIMEOUT_S = 30.0


def planned(store: Store, call: Any, id: str = "r", timeout_s: float = TIMEOUT_S) -> Plan:
    """The plan, and that it has changed nothing."""
    row = store.get(id)
    assert row is not None
    before, rows, stamp = row, store.load(row.no), store.stamp()
    home = Holdfast(unwritten(store))
    plan = plan_run(home, row, call, timeout_s=timeout_s)
    home.close()
    assert (store.get(id), store.load(row.no), store.stamp()) == (before, rows, stamp)
    return plan
