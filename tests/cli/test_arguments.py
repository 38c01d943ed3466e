"""ARGS of ``holdfast run``: what is typed, and what the workflow gets."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest

from holdfast import workflow
from holdfast.cli.arguments import convert, parse_arguments
from holdfast.cli.finding import definition_of
from holdfast.cli.problems import Problem
from holdfast.known import arguments_again


@dataclass
class Page:
    number: int
    title: str = ""


class Colour(enum.Enum):
    RED = "red"


@workflow
async def review(app_id: str, pages: list[int], limit: int = 3, *, when: date | None = None) -> None: ...


@workflow
async def many(*names: int, **options: float) -> None: ...


@pytest.mark.parametrize(
    ("text", "note", "value"),
    [
        ("A-17", str, "A-17"),
        ("17", str, "17"),
        ("17", Any, "17"),
        ("17", int, 17),
        ("-1.5", float, -1.5),
        ("true", bool, True),
        ("null", int | None, None),
        ("4", int | None, 4),
        ("2026-01-31", date, date(2026, 1, 31)),
        ("red", Colour, Colour.RED),
        ("b", Literal["a", "b"], "b"),
        ("docs/a.pdf", Path, Path("docs/a.pdf")),
        ("[1, 2]", list[int], [1, 2]),
        ('["1", "2"]', list[int], [1, 2]),
        ('["a.txt"]', list[Path], [Path("a.txt")]),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ('{"number": 3}', Page, Page(3)),
        ('["a"]', str | list[str], ["a"]),
        ("a", str | list[str], "a"),
        ("[1", str, "[1"),
    ],
)
def test_a_text_becomes_what_the_annotation_asks_for(text: str, note: Any, value: Any) -> None:
    converted = convert("name", text, note)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("text", "note", "said"),
    [
        ("x", int, "argument n: 'x' is not an int."),
        ("1.5", int, "argument n: '1.5' is not an int."),
        ("a,b", list[str], """argument n: 'a,b' is not a list[str]. Write it as JSON: '["a", "b"]'"""),
        ("3", Page, "argument n: '3' is not a Page"),
        ('{"title": "x"}', Page, "(Object missing required field `number`)"),
        ("x", object(), "argument n"),
        ("x", Problem, "a Problem cannot be typed on a command line"),
    ],
)
def test_a_text_that_does_not_fit_is_told_with_its_argument_and_type(text: str, note: Any, said: str) -> None:
    with pytest.raises(Problem) as refused:
        convert("n", text, note)
    assert said in refused.value.format_message()


def test_arguments_are_positional_or_named() -> None:
    args, kwargs = parse_arguments(definition_of(review), ("A-17", "[1]", "limit=5", "when=2026-01-31"))
    assert (args, kwargs) == (("A-17", [1], 5), {"when": date(2026, 1, 31)})


def test_a_value_with_an_equals_sign_is_named() -> None:
    args, kwargs = parse_arguments(definition_of(review), ("app_id=a=b", "pages=[]"))
    assert (args, kwargs) == (("a=b", []), {})


def test_any_number_of_arguments() -> None:
    args, kwargs = parse_arguments(definition_of(many), ("1", "2", "speed=1.5"))
    assert (args, kwargs) == ((1, 2), {"speed": 1.5})
    definition = definition_of(many)
    assert arguments_again(definition, definition.bind(args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((), "missing a required argument: 'app_id'. review takes (app_id: str, pages: list[int]"),
        (("A", "[]", "1", "2"), "too many positional arguments"),
        (("A", "[]", "app_id=B"), "multiple values for argument 'app_id'"),
        (("ap_id=A", "[]"), "there is no argument 'ap_id'"),
        (("A", "[]", "limit=1", "limit=2"), "argument limit is given twice"),
    ],
)
def test_a_call_that_does_not_fit_says_what_the_workflow_takes(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_arguments(definition_of(review), texts)
    assert said in refused.value.format_message()
