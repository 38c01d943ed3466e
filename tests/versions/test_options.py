"""What may be declared about versions, and what is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

import holdfast
from holdfast import step, workflow


async def body() -> None: ...


def one(value: Any) -> Any:
    return value


async def later(value: Any) -> Any:
    return value


def two(state: dict[str, Any], version: int) -> dict[str, Any]:
    return state


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"on_change": "ignore"}, ValueError, "salvage, restart, refuse"),
        ({"on_change": None}, TypeError, "salvage, restart, refuse"),
        ({"schema_version": "1"}, TypeError, "a whole number from 1"),
        ({"schema_version": True}, TypeError, "a whole number from 1"),
        ({"schema_version": 0}, ValueError, "a whole number from 1"),
        ({"schema_version": 2**40}, ValueError, "a whole number from 1"),
        ({"migrate": two}, ValueError, "schema_version=, which is missing"),
        ({"schema_version": 2, "migrate": one}, TypeError, "a def of the state and the version it is of"),
        ({"schema_version": 2, "migrate": later}, TypeError, "a def of the state and the version it is of"),
        ({"schema_version": 2, "migrate": "two"}, TypeError, "a def of the state and the version it is of"),
    ],
)
def test_options_of_a_workflow_that_make_no_sense(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        workflow(**options)(body)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"upgrade": {1: one}}, ValueError, "version= has to say which this one is"),
        ({"version": 1, "upgrade": {1: one}}, ValueError, "which is the present one"),
        ({"version": "1", "upgrade": {1: one}}, ValueError, "which is the present one"),
        ({"version": 3, "upgrade": {2: one, 1: one}}, ValueError, "the oldest version first"),
        ({"version": 2, "upgrade": one}, TypeError, "maps versions"),
        ({"version": 2, "upgrade": {1.0: one}}, TypeError, "each a str or an int"),
        ({"version": 2, "upgrade": {1: None}}, TypeError, "a def of one argument"),
        ({"version": 2, "upgrade": {1: later}}, TypeError, "a def of one argument"),
        ({"version": 2, "upgrade": {1: two}}, TypeError, "a def of one argument"),
    ],
)
def test_options_of_a_step_that_make_no_sense(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        step(**options)(body)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"schema_version": 0}, ValueError, "a whole number from 1"),
        ({"migrate": two}, ValueError, "schema_version=, which is missing"),
        ({"schema_version": 2, "on_change": "salvage"}, ValueError, "restart, refuse"),
        ({"schema_version": 2, "migrate": two, "on_change": "restart"}, ValueError, "migrate= and on_change="),
        ({"on_change": "restart"}, ValueError, "schema_version="),
    ],
)
def test_options_of_a_session_that_make_no_sense(options: dict[str, Any], error: type[Exception], told: str) -> None:
    with holdfast.open("memory://") as hf, pytest.raises(error, match=told):
        hf.session("s", **options)


def test_what_makes_sense_is_taken() -> None:
    workflow(version=2, on_change="restart", schema_version=2, migrate=two)(body)
    step(version=3, upgrade={1: one, 2: lambda value: value})(body)
    step(version="b", upgrade={"": one, "a": one})(body)
    step(version=3, upgrade={1: int})(body)
