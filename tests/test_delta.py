"""The change of a state and its replay, in place, all or nothing, with conflicts told."""

from __future__ import annotations

import copy as stdlib_copy
import math
from decimal import Decimal
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import codec, delta
from holdfast.delta import difference
from holdfast.errors import CodecError, StateConflict

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf]),
    st.sampled_from(["", "a", "b", "x" * 100]),
    st.sampled_from([b"", b"a", 2**70, Decimal("1.0"), Decimal("1.00"), 1j]),
    st.sampled_from([(1, "a"), (True, "a"), ([1],), ({"a": 1},)]).map(stdlib_copy.deepcopy),
    st.sets(st.integers(0, 2)),
)
keys = st.sampled_from(["a", "b", "c"])
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.sampled_from([1, True, 1.0, (1,), (True,), "a", None]), inner, max_size=2),
    ),
    max_leaves=8,
)
states = st.dictionaries(keys, values, max_size=3)


def exact(value: Any) -> bytes:
    """Types and all; the order of keys is not part of a state."""
    return codec.canonical(value, "the state", "state")


def containers(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return [value, *(found for part in inner for found in containers(part))]


def ids(value: Any) -> set[int]:
    return {id(part) for part in containers(value) if isinstance(part, (list, dict, set))}


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """A copy of ``value`` with a few changes, as a step makes them."""
    value = stdlib_copy.deepcopy(value)
    for _ in range(draw(st.integers(0, 3))):
        places = [part for part in containers(value) if isinstance(part, (list, dict))]
        place = draw(st.sampled_from(places))
        if isinstance(place, dict):
            key = draw(keys)
            if key in place and draw(st.booleans()):
                del place[key]
            else:
                place[key] = draw(values)
        elif place and draw(st.booleans()):
            i = draw(st.integers(0, len(place) - 1))
            place[i : i + draw(st.integers(0, 1))] = draw(st.lists(values, max_size=1))
        else:
            place.extend(draw(st.lists(values, max_size=2)))
    return value


@given(st.data())
@settings(max_examples=600, deadline=None)
def test_applying_the_difference_gives_the_new_state(data: st.DataObject) -> None:
    base = data.draw(states)
    new = data.draw(edited(base) | states)
    change = delta.diff(base, new)
    assert (change is None) == (exact(base) == exact(new))
    if change is None:
        return
    kept = codec.encode(change, codec.Types.none, "the change")
    change = codec.decode(kept, codec.Types.none, "the change")
    for check in (True, False):
        live = {key: delta.copy_of_recorded(value) for key, value in base.items()}
        assert exact(live) == exact(base)
        delta.apply(live, change, check=check)
        assert exact(live) == exact(new)
        assert not ids(live) & (ids(change) | ids(new) | ids(base))
        assert exact(change) == exact(delta.diff(base, new))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_overlapping_changes_all_survive_or_conflict_and_change_nothing(data: st.DataObject) -> None:
    base = data.draw(states)
    first, second = data.draw(edited(base)), data.draw(edited(base))
    one, two = delta.diff(base, first) or {}, delta.diff(base, second) or {}
    live = delta.copy(base)
    delta.apply(live, one)
    before = exact(live)
    try:
        delta.apply(live, two)
    except StateConflict:
        assert exact(live) == before
        return
    for key in set(one) - set(two):
        assert exact(live.get(key, "gone")) == exact(first.get(key, "gone"))
    for key in set(two) - set(one):
        assert exact(live.get(key, "gone")) == exact(second.get(key, "gone"))


@given(states, st.lists(values, min_size=1, max_size=3), st.lists(values, min_size=1, max_size=3), values)
@settings(max_examples=200, deadline=None)
def test_appends_and_other_keys_commute(base: Any, more: Any, others: Any, value: Any) -> None:
    base = {**base, "list": [1, [2]], "dict": {"in": {"x": 1}}}
    first, second = delta.copy(base), delta.copy(base)
    first["list"].extend(more)
    first["dict"]["in"]["one"] = value
    second["list"].extend(others)
    second["dict"]["in"]["two"] = value
    second["dict"]["x"] = value
    one, two = delta.diff(base, first), delta.diff(base, second)
    assert one is not None
    assert two is not None
    live = delta.copy(base)
    delta.apply(live, one)
    delta.apply(live, two)
    expected = {"in": {"x": 1, "one": value, "two": value}, "x": value}
    assert exact(live) == exact({**base, "list": [1, [2], *more, *others], "dict": expected})


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small values are changed in part too, as big ones are."""
    monkeypatch.setattr(difference, "_OVERHEAD", -1000)
    monkeypatch.setattr(difference, "_TEXT_MIN", 2)


PARTS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.data(), st.booleans())
@settings(PARTS, max_examples=300)
def test_parts_of_a_value_are_replayed_exactly(eager: None, data: st.DataObject, overlaps: bool) -> None:
    base = data.draw(states)
    new = data.draw(edited(base))
    change = delta.diff(base, new, overlaps=overlaps) or {}
    change = codec.decode(codec.encode(change, codec.Types.none, "the change"), codec.Types.none, "the change")
    delta.refuse_malformed(change, "the change")
    for check in (True, False):
        live = delta.copy(base)
        delta.apply(live, change, check=check)
        assert exact(live) == exact(new)
    before = exact(base)
    plan = delta.planned(base, change)
    made = {key: delta.performed(base.get(key), step) for key, step in plan.items() if step[0] != "del"}
    kept = {key: value for key, value in base.items() if plan.get(key) != ["del"]}
    assert exact({**kept, **made}) == exact(new)
    assert exact(base) == before


@given(st.data())
@settings(PARTS, max_examples=200)
def test_which_form_a_change_is_written_in_is_no_part_of_what_it_means(eager: None, data: st.DataObject) -> None:
    base = data.draw(states)
    first, second = data.draw(edited(base)), data.draw(edited(base))
    one, two = delta.diff(base, first) or {}, delta.diff(base, second) or {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difference, "_OVERHEAD", 1_000_000)
        patch.setattr(difference, "_TEXT_MIN", 1_000_000)
        wholes = delta.diff(base, first) or {}, delta.diff(base, second) or {}
    outcomes = []
    for changes in ((one, two), wholes):
        live = delta.copy(base)
        try:
            for change in changes:
                delta.apply(live, change)
            outcomes.append(exact(live))
        except StateConflict as conflict:
            outcomes.append(str(conflict).split(":")[0].encode())
    assert outcomes[0] == outcomes[1]


RECORDS = [{"id": n, "tags": ["t"], "text": "x" * 100} for n in range(1000)]


@pytest.mark.parametrize(
    ("edit", "bytes_max"),
    [
        (lambda r: r.append({"id": 7}), 30),
        (lambda r: r[500]["tags"].append("new"), 60),
        (lambda r: [r[i].update(text="changed") for i in (3, 500, 998)], 300),
        (lambda r: (r[3].update(id=-1), r[600]["tags"].clear(), r.append({"id": 7})), 150),
        (lambda r: r.pop(0), 60),
        (lambda r: r.insert(500, {"id": 7}), 60),
        (lambda r: (r.pop(10), r.pop(500), r.insert(700, "x"), r[900].update(id=0)), 200),
        (lambda r: r.__setitem__(4, "another type"), 80),
        (lambda r: r.append(r.pop(0)), 250),
    ],
)
@pytest.mark.parametrize("overlaps", [False, True])
def test_an_edit_inside_of_a_list_is_as_big_as_what_changed(edit: Any, bytes_max: int, overlaps: bool) -> None:
    base = {"records": RECORDS}
    new = delta.copy(base)
    edit(new["records"])
    change = delta.diff(base, new, overlaps=overlaps)
    assert change is not None
    written = len(codec.encode(change, codec.Types.none, "the change"))
    assert written <= bytes_max + (130 if overlaps else 0), (written, change)
    step = delta.planned(base, change)["records"]
    assert exact(delta.performed(RECORDS, step)) == exact(new["records"])
    live = delta.copy(base)
    kept, elements = live["records"], list(map(id, live["records"]))
    delta.apply(live, change)
    assert exact(live) == exact(new)
    assert live["records"] is kept, "a reference to the list stays right"
    assert len(set(elements) & set(map(id, kept))) >= 998, "and those to its elements"


def test_a_text_is_changed_in_part() -> None:
    base = {"text": "a" * 10_000, "bytes": b"b" * 10_000}
    new = {"text": base["text"] + "more", "bytes": b"b" * 5_000 + b"mid" + b"b" * 5_000}
    change = delta.diff(base, new, overlaps=False)
    assert change == {"text": ["edit", [10_000], [[10_000, 0, "more", b""]]], "bytes": ["edit", [10_000], ANY]}
    delta.apply(base, change)
    assert base == new


@pytest.mark.parametrize("overlaps", [False, True])
def test_an_edit_of_another_value_than_it_was_made_of_is_a_conflict(overlaps: bool) -> None:
    base = {"records": RECORDS[:20]}
    new = delta.copy(base)
    new["records"][5] = "other"
    change = delta.diff(base, new, overlaps=overlaps)
    for spoil in (list.pop, list.reverse, lambda r: r[5].update(id=-5), lambda r: r.append(1)):
        live = delta.copy(base)
        spoil(live["records"])
        before = exact(live)
        with pytest.raises(StateConflict, match="changed records: "):
            delta.apply(live, change)
        assert exact(live) == before


def changed(base: dict[str, Any], edit: Any) -> delta.Delta:
    view = delta.copy(base)
    edit(view)
    change = delta.diff(base, view)
    assert change is not None
    return change


@pytest.mark.parametrize(
    "value", [True, 1, 1.0, b"x", Decimal(1), 2**70, (1,), {1}, [1], {"a": 1}, bytearray(b"x"), 1j]
)
def test_a_copy_of_what_was_recorded_is_exact(value: Any) -> None:
    for records in ([{"text": "a"}, {"text": value}], [{"text": None}, {value: "a"}] if value.__hash__ else []):
        assert exact(delta.copy_of_recorded(records)) == exact(records)


def test_the_size_of_a_change_is_that_of_what_changed() -> None:
    base = {"messages": ["m" * 1000] * 1000, "totals": {"a": 1, "b": 2}, "rest": ["r" * 1000] * 100}
    change = changed(base, lambda s: (s["messages"].append("new"), s["totals"].update(a=2)))
    assert change == {"messages": ["add", ["new"]], "totals": ["merge", {"a": ["set", [1], 2]}]}
    change = changed(base, lambda s: s.pop("rest"))
    assert len(codec.encode(change, codec.Types.none, "the change")) < 150
    assert delta.diff(base, delta.copy(base)) is None


@pytest.mark.parametrize("value", [True, 1.0, "1", (1,), [1], -0.0, Decimal(1), None])
def test_other_types_are_other_values(value: Any) -> None:
    assert delta.diff({"k": 1}, {"k": value}) == {"k": ["set", [1], value]}
    assert delta.diff({"k": value}, {"k": delta.copy(value)}) is None
    assert not delta.same([0.0], [-0.0])
    assert delta.same({"n": [math.nan]}, {"n": [-math.nan]})


def test_references_that_the_body_holds_stay_right() -> None:
    base: dict[str, Any] = {
        "docs": [{"id": 1, "tags": ["x"]}, {"id": 2, "tags": []}, {"id": 3}],
        "meta": {"pages": [1, 2], "by": {"name": "a"}},
        "plain": [3, 1, 2],
    }
    live = delta.copy(base)
    docs, meta, plain = live["docs"], live["meta"], live["plain"]
    first, second, third = docs
    pages, tags = meta["pages"], first["tags"]

    def edit(s: dict[str, Any]) -> None:
        s["docs"][0]["tags"].append("y")
        s["docs"].append({"id": 4})
        s["meta"] = {"pages": [9], "by": {"name": "b"}, "new": 1}
        s["plain"].sort()

    delta.apply(live, changed(base, edit))
    assert live["docs"] is docs
    assert docs[1:3] == [second, third]
    assert docs[1] is second
    assert live["plain"] is plain == [1, 2, 3]
    assert live["meta"] is meta
    assert meta == {"pages": [9], "by": {"name": "b"}, "new": 1}
    assert meta["pages"] is pages

    base = delta.copy(live)
    delta.apply(live, changed(base, lambda s: (s["docs"].reverse(), s["docs"][0].clear())))
    assert docs[1] is third
    assert docs[2] is second
    base = delta.copy(live)
    kept = docs[3]
    delta.apply(live, changed(base, lambda s: s["docs"][3]["tags"].append("z")))
    assert docs[3] is kept
    assert kept["tags"] == ["x", "y", "z"]
    assert tags == ["x"] or kept["tags"] is tags


def test_a_list_that_is_in_two_places_is_replaced_and_not_changed_twice() -> None:
    row = [0]
    live: dict[str, Any] = {"grid": [row, row]}
    base = delta.copy(live)
    delta.apply(live, changed(base, lambda s: (s["grid"][0].clear(), s["grid"][1].append(5))))
    assert live == {"grid": [[], [0, 5]]}


@pytest.mark.parametrize(
    ("base", "one", "two", "path"),
    [
        ({"n": 3}, lambda s: s.update(n=4), lambda s: s.update(n=5), "n"),
        ({"n": 3}, lambda s: s.update(n=4), lambda s: s.update(n=4), "n"),
        ({"n": Decimal(3)}, lambda s: s.update(n=Decimal(4)), lambda s: s.update(n=Decimal(4)), "n"),
        ({}, lambda s: s.update(n=1), lambda s: s.update(n=1), "n"),
        ({"t": {"a": 1.5}}, lambda s: s["t"].update(a=2.0), lambda s: s["t"].update(a=2.0), "t['a']"),
        ({"s": "a"}, lambda s: s.update(s="b"), lambda s: s.update(s="c"), "s"),
        ({"s": "a"}, lambda s: s.update(s="b"), lambda s: s.pop("s"), "s"),
        ({"s": "a"}, lambda s: s.pop("s"), lambda s: s.update(s="b"), "s"),
        ({"l": [1, 2]}, lambda s: s["l"].append(3), lambda s: s["l"].pop(), "l"),
        ({"l": [1, 2]}, lambda s: s.update(l=None), lambda s: s["l"].append(1), "l"),
        ({"d": {"x": 1}}, lambda s: s.pop("d"), lambda s: s["d"].update(y=1), "d"),
        ({"d": {"x": {}}}, lambda s: s["d"].update(x=[]), lambda s: s["d"]["x"].update(y=1), "d['x']"),
    ],
)
def test_conflicts_name_the_place_and_change_nothing(base: Any, one: Any, two: Any, path: str) -> None:
    base = {"zz": 0, **base}
    live = delta.copy(base)
    delta.apply(live, changed(base, one))
    before = exact(live)
    second = changed(base, lambda s: (s.update(aa=1), s.update(zz=1), two(s)))
    with pytest.raises(StateConflict) as caught:
        delta.apply(live, second)
    assert f"changed {path}: " in str(caught.value)
    assert "combine" in str(caught.value)
    assert exact(live) == before


def test_a_conflict_shows_the_base_and_both_values() -> None:
    base = {"totals": {"a": 3}}
    live = delta.copy(base)
    delta.apply(live, changed(base, lambda s: s["totals"].update(a=4)))
    with pytest.raises(StateConflict, match=r"totals\['a'\]: it was 3 .* is 4 now, and would become 5"):
        delta.apply(live, changed(base, lambda s: s["totals"].update(a=5)))


@pytest.mark.parametrize(
    ("base", "both"),
    [
        ({"s": "a"}, lambda s: s.update(s="b")),
        ({"s": 1}, lambda s: s.pop("s")),
        ({"s": False}, lambda s: s.update(s=True)),
        ({}, lambda s: s.update(s=True)),
        ({"l": [1, 2]}, lambda s: s["l"].pop()),
    ],
)
def test_two_that_agree_do_not_conflict(base: Any, both: Any) -> None:
    live = delta.copy(base)
    delta.apply(live, changed(base, both))
    before = exact(live)
    delta.apply(live, changed(base, both))
    assert exact(live) == before


def test_a_replay_compares_no_bases_but_refuses_what_does_not_fit() -> None:
    change = changed({"n": 1}, lambda s: s.update(n=2))
    live: dict[str, Any] = {"n": 7}
    delta.apply(live, change, check=False)
    assert live == {"n": 2}
    with pytest.raises(StateConflict):
        delta.apply(live, {"n": ["add", [1]]}, check=False)
    with pytest.raises(CodecError):
        delta.apply(live, {"n": ["splice", 1]})


def test_what_contains_itself_is_a_codec_error() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(CodecError):
        delta.copy({"c": cycle})
    with pytest.raises(CodecError):
        delta.digest(cycle)
    other: list[Any] = []
    other.append(other)
    with pytest.raises(CodecError):
        delta.diff({"c": cycle}, {"c": other})
