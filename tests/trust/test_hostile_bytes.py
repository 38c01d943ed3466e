"""Bytes that nobody of ours has written: refused with ``CodecError``, in bounded room, whatever they claim to be."""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from holdfast import codec, delta
from holdfast.errors import CodecError, StateConflict
from holdfast.failure import Failure
from holdfast.flying import decode_doing, encode_doing
from holdfast.mailbox import signal_taken_by
from holdfast.news import told_in
from holdfast.recall import blank_row
from holdfast.records import waits_told_in
from holdfast.state import Change, decode_change, encode_change
from holdfast.store import News

encode = msgspec.msgpack.encode


class Color(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    a: int
    b: str


class Box(msgspec.Struct):
    held: Any = None


@dataclasses.dataclass
class Page:
    title: str
    boxes: list[Box]
    pairs: tuple[Pair, ...] = ()
    colors: frozenset[Color] = frozenset()


TYPES = codec.Types.of(Page)
VALUES: list[Any] = [
    {"a": [1, 2.5, None, True], "b": {3: b"x", 4: {"deep": [[[]]]}}},
    Page("t", [Box(1), Box([Box({"k": (1, 2)})])], (Pair(1, "x"),), frozenset({Color.RED})),
    [{1, 2, 3}, frozenset("ab"), 2**70, -(2**70), bytearray(b"xyz"), 1 + 2j],
    [date(2024, 2, 29), datetime(2024, 1, 1, 12, tzinfo=UTC), timedelta(days=3), Decimal("1.50"), UUID(int=7)],
    [PurePosixPath("/a/b"), {(1, 2): 3, True: 4}, msgspec.UNSET],
]
ENCODED = [codec.encode(value, TYPES, "a value") for value in VALUES]


@st.composite
def mutated(draw: st.DrawFn, encoded: list[bytes] = ENCODED) -> bytes:
    """A real encoding, with bytes changed, cut out, put in twice, or those of another in the middle."""
    data = bytearray(draw(st.sampled_from(encoded)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 2:
                del data[at : at + draw(st.integers(1, 8))]
            case 3:
                data[at:at] = draw(st.sampled_from(encoded))
            case _:
                data[at:at] = draw(st.binary(max_size=6))
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_mutated_values_come_back_or_are_refused(data: bytes) -> None:
    for types in (TYPES, codec.Types.none):
        try:
            codec.decode(data, types, "a value")
        except CodecError as error:
            assert error.path.startswith("result") and "a value cannot be restored" in str(error)
    msgspec.json.encode(codec.readable(data))
    assert len(codec.preview(data, 64)) <= 64


CHANGE = encode_change(
    Change(
        step={"a": ["set", [], 1], "l": ["add", [2]], "d": ["merge", {"x": ["del", [1]]}]},
        body={"l": ["edit", [2], [[0, ["merge", {"x": ["set", [1], 2]}]], [1, 1, ["n"], b""]]]},
        full={"l": [b"12345678", [1, 2]]},
        after=3,
    ),
    "it",
)
WAITS = {
    "count": 1,
    "waits": [{"kind": "signal", "name": "n", "ask": None, "since": 1, "until": 2, "expects": ["bool"]}],
}
OURS = [
    CHANGE or b"",
    Failure("T", "m", "trace", [1]).encode(),
    codec.encode(WAITS, codec.Types.none, "it"),
    codec.encode({"signal": 1, "value": 2}, codec.Types.none, "it"),
    codec.encode([1, [["work", "", 1, 1]]], codec.Types.none, "it"),
    encode([(1, "name", "place", 1, b"\x01"), (2, "name", "place", 1, (1, 2.0))]),
]


@settings(max_examples=400, deadline=None)
@given(mutated(OURS), st.booleans())
def test_mutated_records_of_ours_are_read_or_refused(data: bytes, is_sealed: bool) -> None:
    """Also with a checksum that fits, as somebody would write it who wants to be believed."""
    row = blank_row(1, 1, kind="signal")
    row.result = row.delta = data
    sealed = codec.seal(data) if is_sealed else data
    decode_doing(sealed)
    waits_told_in(sealed, "a")
    told_in(News(run_no=1, epoch=1, n=1, count=2, data=codec.seal(data, 1, 1, 1, 2) if is_sealed else data))
    assert signal_taken_by(row) is None or isinstance(signal_taken_by(row), int)
    for read in (lambda: Failure.decode(data, "a failure"), lambda: decode_change(row)):
        try:
            found = read()
        except CodecError:
            continue
        if isinstance(found, Failure):
            assert isinstance(str(found), str) and all(isinstance(seq, int) for seq in found.seqs)
            continue
        for ops in (found.step or {}, found.body or {}):
            state: dict[str, Any] = {"a": 1, "l": [{"x": 1}, 1], "d": {"x": 1}}
            before = delta.copy(state)
            try:
                delta.apply(state, ops)
            except (StateConflict, CodecError):
                assert state == before


@pytest.mark.parametrize(
    "ops",
    [
        {"a": 5},
        {"a": []},
        {"a": ["set"]},
        {"a": ["set", 5, 1]},
        {"a": ["set", [1, 2], 1]},
        {"a": ["zap", [], 1]},
        {"a": ["del", [], 1]},
        {"a": ["add", 3]},
        {"a": ["merge", 3]},
        {"a": ["merge", {"b": ["set", [], 1, 2]}]},
        {"a": ["edit", [], []]},
        {"a": ["edit", [True], []]},
        {"a": ["edit", [1, b"", b""], []]},
        {"a": ["edit", [1], [5]]},
        {"a": ["edit", [1], [[0, 1, 5, b""]]]},
        {"a": ["edit", [1], [[-1, 1, [], b""]]]},
        {"a": ["edit", [1], [[0, ["set", [], 1]]]]},
        {"a": ["edit", [1], [[0, ["edit", [1], 5]]]]},
    ],
)
def test_what_is_no_change_of_state_is_refused(ops: dict[str, Any]) -> None:
    row = blank_row(1, 1, kind="step")
    row.delta = encode({"step": ops})
    with pytest.raises(CodecError, match="the state change of checkpoint 0 cannot be read") as caught:
        decode_change(row)
    assert caught.value.path.startswith("a")


def test_what_is_sealed_is_refused_when_it_was_changed() -> None:
    doing = encode_doing(1, [["work", "", 1, 1]])
    assert decode_doing(doing) == (1, [("work", "", 1, 1)])
    for at in range(len(doing)):
        changed = bytearray(doing)
        changed[at] ^= 4
        assert decode_doing(bytes(changed)) == (0, [])


def nested(levels: int) -> bytes:
    data = encode(1)
    for _ in range(levels):
        data = encode(Ext(1, encode([Ext(1, data)]) if data != encode(1) else encode([1])))
    return data


HOSTILE = {
    "deep lists": b"\x91" * 1_000_000 + b"\x01",
    "deep dicts": b"\x81\xa1a" * 300_000 + b"\x01",
    "deep extensions": nested(3000),
    "a long list": b"\xdd\xff\xff\xff\xff",
    "a long dict": b"\xdf\xff\xff\xff\xff",
    "a long str": b"\xdb\xff\xff\xff\xff",
    "long bytes": b"\xc6\xff\xff\xff\xff",
    "a long extension": b"\xc9\xff\xff\xff\xff\x01",
    "long lists in each other": b"\xdd\x04\x00\x00\x00" * 90,
    "no UTF-8": b"\xa2\xff\xfe",
    "nothing": b"",
    "bytes beyond the end": b"\x01\x01",
    "an unknown extension": encode(Ext(99, b"\x01")),
    "an extension of nothing": encode(Ext(1, b"")),
    "a bytearray of ten gigabytes": encode(Ext(5, encode(10**10))),
    "a bytearray of a number": encode(Ext(5, encode(1000))),
    "a tuple of a str": encode(Ext(1, encode("abc"))),
    "a set of lists": encode(Ext(2, encode([[1]]))),
    "an odd number of pairs": encode(Ext(14, encode([1, 2, 3]))),
    "a date that is none": encode(Ext(7, encode("2024-02-31"))),
    "a zone outside of the zones": encode(Ext(9, encode(["2020-01-01T00:00:00", 0, "../../etc/passwd"]))),
    "a class of another module": encode(Ext(21, encode(["os:system", {"command": "x"}]))),
    "an enum of nothing": encode(Ext(20, encode([]))),
    "a UUID of three bytes": encode(Ext(12, encode(b"abc"))),
    "a path of unknown kind": encode(Ext(13, encode(["Popen", b"x"]))),
}

PROGRAM = """
import resource, sys, threading
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
threading.stack_size(1 << 20)
from holdfast import codec
from holdfast.errors import CodecError

data = sys.stdin.buffer.read()

def read():
    codec.readable(data)
    codec.preview(data)
    try:
        codec.decode(data, codec.Types.none, "a value")
    except CodecError as error:
        print("refused", error.path)

thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_refused_in_little_room(what: str) -> None:
    """In a process with a gigabyte of addresses, and a thread with a megabyte of stack."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=HOSTILE[what], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b""), done
    assert done.stdout.startswith(b"refused result"), done


def test_odd_keys_are_values_like_others() -> None:
    """NaN for a key, a key twice, and numbers nobody can print."""
    for data in (b"\x81\xcb\x7f\xf8" + bytes(6) + b"\x01", b"\x82\xa1a\x01\xa1a\x02"):
        assert len(codec.decode(data, codec.Types.none, "a value")) == 1
    shown = codec.readable(codec.encode(2**100_000, codec.Types.none, "a value"))
    assert shown == "<int of 100008 bits>"
