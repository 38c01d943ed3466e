"""What a worker leaves to others: unknown workflows, other code, methods, names that several have."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from inside import ended, row_of, serving, until
from msgspec.structs import replace
from queued import job, submitted

import holdfast
from holdfast import Holdfast, known, workflow
from holdfast import worker as worker_module
from holdfast.definition import PYTHON
from holdfast.store import Code, RunRow, Store


def test_a_run_of_a_workflow_nobody_here_knows_is_left_alone_and_told_of_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        @workflow(version="1", name="of_another_service")
        async def unknown(n: int) -> None: ...

        ids = await submitted(store, unknown(1), unknown(2), unknown(3))
        del unknown
        gc.collect()
        assert "of_another_service" not in known.names()
        async with Holdfast(store) as hf, serving(store):
            await hf.submit(job("b"), id="b")
            await ended(store, "b")
            await until(lambda: "of_another_service" in caplog.text)
        assert {row_of(store, id).status for id in ids} == {"queued"}
        assert [store.claims(row_of(store, id).no) for id in ids] == [[], [], []]
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        told = [record for record in warnings if "of_another_service" in record.getMessage()]
        assert len(told) == 1 and "left alone" in told[0].getMessage()

    caplog.set_level(logging.INFO, "holdfast")
    worker_module.UNKNOWN_EVERY_S, before = 0.0, worker_module.UNKNOWN_EVERY_S
    try:
        asyncio.run(main())
    finally:
        worker_module.UNKNOWN_EVERY_S = before


def test_a_run_that_its_version_refuses_is_left_to_workers_of_the_old_one(store: Store) -> None:
    """While a deploy is rolled out both are there: were it claimed, it would be parked under the old ones' eyes."""

    def rolled(version: str) -> Any:
        @workflow(version=version, name="rolled", on_change="refuse")
        async def plan() -> str:
            return version

        return plan

    async def main() -> None:
        old = rolled("1")
        await submitted(store, old())
        del old
        gc.collect()
        new = rolled("2")
        assert known.accepted()["rolled"] == Code("2", PYTHON) and known.accepted()["job"] is None
        async with Holdfast(store) as hf, serving(store):
            await hf.submit(new(), id="new")
            await ended(store, "new")
        assert [row_of(store, id).status for id in ("run-0", "new")] == ["queued", "done"]
        assert store.claims(row_of(store, "run-0").no) == []

    asyncio.run(main())


def test_a_state_of_another_shape_is_other_code() -> None:
    async def body() -> None: ...

    shaped = workflow(name="shaped", version="1", schema_version=2, on_change="refuse")(body)
    assert known.accepted()["shaped"] == Code("1", PYTHON, 2), shaped


def test_methods_are_no_workflows_of_a_worker() -> None:
    assert {"job", "slow", "Agent.add"} <= known.names()
    assert "Agent.think" not in known.names()


def test_where_two_have_one_name_the_one_of_the_runs_module_is_meant() -> None:
    def made(module: str, file: str) -> Any:
        space: dict[str, Any] = {"__name__": module}
        exec(compile("async def shared() -> None: ...", file, "exec"), space)
        return workflow(version="1")(space["shared"])

    first, second = made("first", "/a/first.py"), made("second", "/b/second.py")
    third = made("__main__", "/c/third.py")
    row = RunRow(
        id="x", workflow="shared", version="1", python="3", module="first", file="/elsewhere.py",
        inputs=b"", fingerprint=b"", state=None, seed=b"",
    )  # fmt: skip
    assert known.workflow_of(row) is first
    assert known.workflow_of(replace(row, module="second")) is second
    assert known.workflow_of(replace(row, module="__main__", file="/c/third.py")) is third
    assert known.workflow_of(replace(row, module="holdfast_main_third", file="/c/third.py")) is third
    with pytest.raises(holdfast.Mismatch, match=r"there are workflows named 'shared' in __main__.*first.*second"):
        known.workflow_of(replace(row, module="fourth", file="/d.py"))
