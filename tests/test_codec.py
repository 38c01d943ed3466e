"""What came back is what comes back: values, named classes, refusals, fingerprints, the view for people."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
import pathlib
import subprocess
import sys
import types as pytypes
import typing
from abc import ABC
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property, wraps
from inspect import Parameter
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.codec import (
    Types,
    canonical,
    decode,
    encode,
    encode_inputs,
    fingerprint,
    preview,
    readable,
)
from holdfast.errors import CodecError

WHERE = "the result of step parse_documents"
T = TypeVar("T")


class Color(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = (2, 3)


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.Flag):
    R = 1
    W = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    image: Any
    n: int = 0


@dataclasses.dataclass
class Doc:
    page: Page
    note: str = dataclasses.field(init=False, default="as the class has it")
    parent: Doc | None = None

    @cached_property
    def title(self) -> str:
        return "computed"


@dataclasses.dataclass
class Box(Generic[T]):
    held: T


class Point(NamedTuple):
    x: int
    y: Color


class Row(msgspec.Struct, frozen=True, rename="camel"):
    row_id: int
    cells: tuple[Point, ...] = ()


class Doubled(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        self.n *= 2


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", arbitrary_types_allowed=True)
    at: datetime
    rows: list[Row] = []
    _secret_sauce: list[int] = pydantic.PrivateAttr(default_factory=list)

    @pydantic.computed_field
    @cached_property
    def upper(self) -> str:
        return "X"


class Wrapped(pydantic.BaseModel, Generic[T]):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    inner: T


class Names(pydantic.RootModel[list[str]]):
    pass


class Plan(TypedDict):
    doc: Doc


class Shape(ABC):  # noqa: B024
    pass


@dataclasses.dataclass
class Circle(Shape):
    r: float


def same(a: Any, b: Any) -> bool:
    """Equal with equal types all the way down, NaN being equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and same(in_order(a), in_order(b))
    if isinstance(a, complex):
        return same([a.real, a.imag], [b.real, b.imag])
    if isinstance(a, Decimal):
        return str(a) == str(b)
    if isinstance(a, (datetime, time)):
        return repr(a) == repr(b)
    if dataclasses.is_dataclass(a):
        return same(vars_of(a), vars_of(b))
    if isinstance(a, pydantic.BaseModel):
        return same(a.__getstate__()["__dict__"], b.__getstate__()["__dict__"])
    if isinstance(a, msgspec.Struct):
        return same(msgspec.structs.asdict(a), msgspec.structs.asdict(b))
    return bool(a == b)


def in_order(elements: Any) -> list[Any]:
    return sorted(elements, key=lambda one: canonical(one, WHERE, "x"))


def vars_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def there_and_back(value: Any, annotation: Any = None) -> Any:
    types = Types.of(annotation)
    return decode(encode(value, types, WHERE), types, WHERE)


zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.just(timezone(timedelta(hours=2), "CEST")),
    st.sampled_from(["Europe/Berlin", "America/New_York"]).map(ZoneInfo),
)
hashables = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=2**62, max_value=2**66),
        st.floats(),
        st.text(),
        st.binary(),
        st.complex_numbers(),
        st.decimals(allow_nan=False),
        st.uuids(),
        st.dates(),
        st.timedeltas(),
        st.builds(
            lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold),
            st.datetimes(),
            zones,
            st.integers(0, 1),
        ),
        st.builds(lambda at, zone, fold: at.replace(tzinfo=zone, fold=fold), st.times(), zones, st.integers(0, 1)),
        st.text("ab/.ü", max_size=5).map(pathlib.PurePosixPath),
        st.text("abü", min_size=1, max_size=5).map(lambda name: pathlib.PureWindowsPath("C:\\\\x", name)),
        st.sampled_from([*Color, *Level, Mode.R, Mode.R | Mode.W, Mode(0)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.frozensets(inner, max_size=4),
        st.builds(Point, inner, st.sampled_from(Color)),
        st.builds(Page, inner),
    ),
    max_leaves=8,
)
values = st.recursive(
    hashables | st.binary().map(bytearray) | st.sets(hashables, max_size=4),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=5),
        st.dictionaries(st.integers() | st.text(max_size=2), inner, max_size=3),
        st.builds(Box, inner),
        st.builds(lambda x: Row(1, x), inner),
        st.builds(lambda x: Wrapped[Any](inner=x), inner),
    ),
    max_leaves=12,
)
ALL = Color | Level | Mode | Page | Point | Row | Box[Any] | Wrapped[Any]


@given(values)
@settings(max_examples=400, deadline=None)
def test_a_value_comes_back_with_its_types(value: Any) -> None:
    assert same(there_and_back(value, ALL), value)


@given(values)
@settings(max_examples=200, deadline=None)
def test_canonical_bytes_come_back_too_and_are_a_fixed_point(value: Any) -> None:
    data = canonical(value, WHERE, "x")
    again = decode(data, Types.of(ALL), WHERE)
    assert canonical(again, WHERE, "x") == data
    json.dumps(readable(data))
    assert len(preview(data, 64)) <= 64
    json.dumps(readable(preview(data, 64)))


@given(values, values)
@settings(max_examples=200, deadline=None)
def test_the_order_of_keys_is_not_in_canonical_bytes(a: Any, b: Any) -> None:
    assert encode_inputs({"a": a, "b": {"x": a, "y": b}}, WHERE) == encode_inputs(
        {"b": {"y": b, "x": a}, "a": a}, WHERE
    )


def test_canonical_bytes_do_not_depend_on_the_hash_seed_or_on_main() -> None:
    program = (
        "import dataclasses, pathlib\nfrom holdfast.codec import encode_inputs\n"
        "@dataclasses.dataclass\nclass Doc:\n    a: int\n    b: object\n"
        "v = {'s': {'x', 'yy', b'z', (1, 'é')}, 't': frozenset('abcdef'), 'k': {1: 1, 'a': 2, (1,): 3},"
        " 'd': Doc(1, {pathlib.PurePosixPath('x'), None})}\n"
        "print(encode_inputs(v, 'w').hex())"
    )
    seen = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(done.stdout)
    assert len(seen) == 1
    assert b"__main__".hex() not in seen.pop()


def test_inputs_of_unlike_type_have_unlike_fingerprints() -> None:
    inputs: list[Any] = [
        1,
        True,
        1.0,
        "1",
        b"1",
        [1],
        (1,),
        {1},
        frozenset({1}),
        {"1": 1},
        {1: 1},
        Decimal(1),
    ]
    prints = {fingerprint(encode_inputs({"x": value}, WHERE)) for value in inputs}
    assert len(prints) == len(inputs)
    assert {len(one) for one in prints} == {16}


def test_dataclasses_keep_fields_that_init_does_not_take_and_may_drop_what_is_computed() -> None:
    doc = Doc(Page(b"x", 3))
    doc.note = "changed"
    assert doc.title == "computed"
    back = there_and_back([doc], list[Doc])
    assert back == [doc]
    assert back[0].note == "changed"
    assert "title" not in vars(back[0])
    assert there_and_back(Box[int](3), Box[int]) == Box(3)


def test_pydantic_models_come_back_exactly_without_validation() -> None:
    model = Model(at="2024-01-01T10:00:00+02:00", more=(1, 2))  # type: ignore[arg-type, call-arg]
    model._secret_sauce.append(7)
    model.rows = "not a list, and nobody validates again"  # type: ignore[assignment]
    assert model.upper == "X"
    back = there_and_back(model, Model)
    assert back == model
    assert back._secret_sauce == [7]
    assert back.model_extra == {"more": (1, 2)}
    assert back.model_fields_set == model.model_fields_set
    assert type(back.at.tzinfo) is type(model.at.tzinfo)
    assert there_and_back(Names(["a"]), Names) == Names(["a"])
    assert there_and_back(Wrapped[Row](inner=Row(1)), Wrapped[Row]) == Wrapped[Row](inner=Row(1))
    assert type(there_and_back(Wrapped[Row](inner=Row(1)), Wrapped)) is Wrapped[Row]


def test_a_struct_is_not_changed_twice_by_its_post_init() -> None:
    assert there_and_back(Doubled(2), Doubled).n == 4
    row = Row(1, (Point(1, Color.BLUE),))
    assert there_and_back(row, Row) == row


def test_time_zones_and_paths_keep_their_kind() -> None:
    berlin = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    back = there_and_back(berlin)
    assert back.tzinfo is berlin.tzinfo
    assert back.fold == 1
    odd = pathlib.Path(os.fsdecode(b"caf\xe9"))
    assert there_and_back([odd, pathlib.PureWindowsPath("C:\\x")]) == [odd, pathlib.PureWindowsPath("C:\\x")]
    assert there_and_back(msgspec.UNSET) is msgspec.UNSET


UserId = NewType("UserId", Page)
Bounded = TypeVar("Bounded", bound=Doc)
Recursive = list["Recursive"] | dict[str, Page]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Annotated[Page | None, "meta"], Page(1)),
        (dict[str, list[Doc]], Page(1)),
        (typing.Optional["Doc"], None),
        (UserId, Page(1)),
        (Bounded, Doc(Page(1))),
        (Plan, Page(1)),
        (Literal[Color.RED], Color.BLUE),
        (Shape, Circle(1.0)),
        (list[Shape], Circle(1.0)),
        (Box[Page], Page(1)),
        (Wrapped[Doc], Page(1)),
        (Model, Point(1, Color.RED)),
        (Recursive, Page(1)),
        (typing.Callable[[Page], int], Page(1)),
    ],
)
def test_classes_are_found_wherever_the_annotation_reaches(annotation: Any, value: Any) -> None:
    assert there_and_back(value, annotation) == value


@pytest.mark.parametrize("annotation", [None, Any, Parameter.empty, object, enum.Enum, dict[str, Any], "Page"])
def test_classes_are_found_nowhere_else(annotation: Any) -> None:
    with pytest.raises(CodecError, match=r"annotate the return type .* returns=Page") as caught:
        encode({"docs": [1, Page(1)]}, Types.of(annotation), WHERE)
    assert caught.value.path == "result['docs'][1]"
    if annotation == "Page":
        assert "NameError" in str(caught.value)


def test_types_of_a_function() -> None:
    @dataclasses.dataclass
    class Local:
        page: Page

    def step(doc: Doc, *rest: Point, local: Local | None = None) -> list[Local]:
        return [Local(doc.page)]

    @wraps(step)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return step(*args, **kwargs)

    types = Types.of_return(wrapper)
    assert decode(encode([Local(Page(1))], types, WHERE), types, WHERE) == [Local(Page(1))]
    with pytest.raises(CodecError):
        encode(Point(1, Color.RED), types, WHERE)
    assert decode(encode(Row(1), Types.of_return(step, Row), WHERE), Types.of_return(step, Row), WHERE) == Row(1)
    arguments = {"doc": Doc(Page(1)), "rest": (Point(1, Color.RED),), "local": Local(Page(2))}
    data = encode_inputs(arguments, WHERE)
    assert decode(data, Types.of_parameters(step), WHERE, root="") == arguments

    def unresolved(x: Nowhere) -> Nowhere: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(CodecError, match="'Nowhere' cannot be resolved"):
        encode(Page(1), Types.of_return(unresolved), WHERE)


def test_a_class_of_main_is_found_under_its_modules_name() -> None:
    def module(name: str) -> Any:
        made = pytypes.ModuleType(name)
        source = "import dataclasses\n@dataclasses.dataclass\nclass Item:\n    n: int\n"
        sys.modules[name] = made
        exec(source, made.__dict__)
        return made.Item

    first, second = module("holdfast_test_main"), module("holdfast_test_loans")
    first.__module__ = "__main__"
    try:
        data = encode([first(3)], Types.of(list[first]), WHERE)
        assert decode(data, Types.of(list[second]), WHERE) == [second(3)]
        assert encode_inputs({"x": first(1)}, WHERE) == encode_inputs({"x": second(1)}, WHERE)
        both = Types.of(first | second)
        assert type(decode(data, both, WHERE)[0]) is first
        third = module("holdfast_test_third")
        with pytest.raises(CodecError, match="fits"):
            decode(encode(third(1), Types.of(third), WHERE), both, WHERE)
    finally:
        for name in ("main", "loans", "third"):
            sys.modules.pop(f"holdfast_test_{name}", None)


class Text(str):
    __slots__ = ()


class Loose(dict):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class Failure(Exception):
    code: int


def with_extra() -> Any:
    doc: Any = Doc(Page(1))
    doc.added = 1
    return doc


ODD: list[tuple[Any, str]] = [
    (defaultdict(list), "plain dict"),
    (OrderedDict(), "plain dict"),
    (Text("x"), "plain str"),
    (Loose(), "plain dict"),
    (Failure(1), "Failure"),
    (object(), "object"),
    (len, "builtin_function_or_method"),
    (Page, "type"),
    (range(3), "range"),
    ("\ud800", "surrogate"),
    ({"\ud800": 1}, "surrogate"),
    (with_extra(), "added"),
    (pydantic.SecretStr("x"), "never written"),
    (pydantic.SecretBytes(b"x"), "never written"),
    (Model.model_construct(), "without its fields"),
]


@pytest.mark.parametrize(("value", "hint"), ODD, ids=[hint + str(i) for i, (_, hint) in enumerate(ODD)])
def test_what_would_not_come_back_is_refused_with_its_path(value: Any, hint: str) -> None:
    docs = [Doc(Page(0)), Doc(Page(0)), Doc(Page(0)), Doc(Page((2**80, {"k": {1.5: value}})))]
    types = Types.of(list[Doc] | Failure | Model)
    with pytest.raises(CodecError) as caught:
        encode_inputs({"a": 1, "docs": docs}, "the inputs of step x")
    assert caught.value.path.startswith("docs[3].page.image[1]['k'][1.5]")
    with pytest.raises(CodecError) as caught:
        encode(docs, types, WHERE)
    assert caught.value.path.startswith("result[3].page.image[1]['k'][1.5]")
    assert WHERE in str(caught.value)
    assert caught.value.path in str(caught.value)
    assert hint in str(caught.value)


def test_cycles_and_depth_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append({"again": cycle})
    deep: Any = 0
    for _ in range(5000):
        deep = (deep,)
    for value in (cycle, deep):
        with pytest.raises(CodecError, match="nested more than"):
            encode(value, Types.none, WHERE)
    near: Any = 0
    for _ in range(99):
        near = Box(near)
    assert there_and_back(near, Box) == near


def test_damage_and_change_are_told_with_their_path() -> None:
    types = Types.of(list[Doc])
    data = encode([Doc(Page((1, Color.RED)))], Types.of(list[Doc] | Color), WHERE)
    with pytest.raises(CodecError, match=r"Color is not reachable") as caught:
        decode(data, types, WHERE)
    assert caught.value.path == "result[0].page.image[1]"
    for cut in range(len(data)):
        with pytest.raises(CodecError, match=WHERE):
            decode(data[:cut], types, WHERE)
        readable(data[:cut])
    unknown = msgspec.msgpack.encode({"k": [msgspec.msgpack.Ext(99, b"\xc0")]})
    with pytest.raises(CodecError, match="kind 99") as caught:
        decode(unknown, types, WHERE)
    assert caught.value.path == "result['k'][0]"
    assert "99" in str(readable(unknown))


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        ("class A(enum.Enum):\n    X = 1", "class A(enum.Enum):\n    Y = 1", "no such member"),
        (
            "@dataclass\nclass A:\n    x: int",
            "@dataclass\nclass A:\n    y: int",
            r"gone \['x'\].*new \['y'\]",
        ),
        ("class A(Struct):\n    x: int", "class A(Struct):\n    x: int\n    z: int = 0", r"new \['z'\]"),
        ("class A(BaseModel):\n    x: int", "@dataclass\nclass A:\n    x: int", "another kind"),
        ("class A(BaseModel):\n    x: int", "class A(BaseModel):\n    y: int = 0", r"gone \['x'\]"),
        (
            "class A(NamedTuple):\n    x: int",
            "class A(NamedTuple):\n    x: int\n    y: int = 0",
            r"new \['y'\]",
        ),
    ],
)
def test_a_class_that_changed_is_an_error_that_says_how(before: str, after: str, hint: str) -> None:
    def define(source: str) -> Any:
        names: dict[str, Any] = {"enum": enum, "dataclass": dataclasses.dataclass, "Struct": msgspec.Struct}
        names |= {"BaseModel": pydantic.BaseModel, "NamedTuple": NamedTuple, "__name__": __name__}
        exec(source, names)
        return names["A"]

    old, new = define(before), define(after)
    value = old.X if issubclass(old, enum.Enum) else old(x=1)
    data = encode({"k": value}, Types.of(old), WHERE)
    with pytest.raises(CodecError, match=hint) as caught:
        decode(data, Types.of(new), WHERE)
    assert caught.value.path == "result['k']"


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_a_value_or_a_codec_error_and_are_readable(data: bytes) -> None:
    try:
        decode(data, Types.of(ALL), WHERE)
    except CodecError:
        pass
    json.dumps(readable(data))


def test_readable_is_for_people() -> None:
    value = {
        "doc": Doc(Page(b"123456789012")),
        "at": datetime(2024, 1, 2, 3, tzinfo=UTC),
        "zone": datetime(2024, 1, 2, 3, tzinfo=ZoneInfo("Europe/Berlin")),
        "color": Color.RED,
        "pairs": {(1, 2): Decimal("1.50")},
        "path": pathlib.PurePosixPath("a/b"),
        "id": UUID(int=1),
        "day": date(2024, 1, 2),
        "took": timedelta(hours=1),
        "nan": math.nan,
        "big": 2**70,
    }
    page = {"__type__": "Page", "image": "<12 bytes>", "n": 0}
    assert readable(encode_inputs(value, WHERE)) == {
        "doc": {"__type__": "Doc", "page": page, "note": "as the class has it", "parent": None},
        "at": "2024-01-02T03:00:00+00:00",
        "zone": "2024-01-02T03:00:00+01:00[Europe/Berlin]",
        "color": "Color.RED",
        "pairs": {"[1,2]": "1.50"},
        "path": "a/b",
        "id": "00000000-0000-0000-0000-000000000001",
        "day": "2024-01-02",
        "took": "1:00:00",
        "nan": "nan",
        "big": 2**70,
    }


def test_a_preview_shows_every_argument_and_no_more_than_its_limit() -> None:
    small = encode_inputs({"app_id": "A-17"}, WHERE)
    assert preview(small) is small
    big = encode_inputs({"docs": ["é" * 100] * 100_000, "app_id": "A-17", "z": {"k": "v" * 5000}}, WHERE)
    short = preview(big)
    assert 1000 < len(short) <= 2048
    assert "app_id: A-17" in readable(short)
    assert "z: {" in readable(short)
    with pytest.raises(CodecError, match="preview"):
        decode(short, Types.none, WHERE)
    for limit in range(40):
        assert len(preview(big, limit)) <= limit


def test_pydantic_is_not_imported_by_the_codec() -> None:
    program = "import sys, holdfast.codec, holdfast.delta; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
