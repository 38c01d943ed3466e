"""``holdfast send`` and ``holdfast list --waiting``: who is asked what, and the answer."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import pytest
from terminal import Terminal

import holdfast
from holdfast import workflow

STORE = ("--store", "waits.db")


@dataclass
class Verdict:
    by: str
    ok: bool = False


@workflow(version="1")
async def asked() -> str:
    await asyncio.gather(
        holdfast.wait_for("approval", bool, ask="pay \x1b[31mA-17?"),
        holdfast.wait_for("number", int, timeout=3600),
        holdfast.wait_for("words", list[str]),
        holdfast.wait_for("verdict", Verdict),
        holdfast.sleep(86400),
    )
    return "all there"


@workflow(version="1")
async def quick() -> None: ...


@pytest.fixture
def waiting(terminal: Terminal) -> Terminal:
    """A run ``a`` that waits, and nobody advances it; ``b`` is done."""

    async def program() -> None:
        async with holdfast.open(terminal.folder / "waits.db") as hf:
            await hf.run(quick(), id="b")
            await hf.start(asked(), id="a")
            while not hf._live["a"].is_waiting:
                await asyncio.sleep(0.001)

    asyncio.run(program())
    return terminal


def mail(terminal: Terminal) -> list[tuple[str, Any]]:
    with holdfast.open(terminal.folder / "waits.db") as hf:
        row = hf._store.get("a")
        assert row is not None
        return [(each.name, holdfast.codec.readable(each.value)) for each in hf._store.signals(row.no)]


def test_who_is_asked_what(waiting: Terminal) -> None:
    listed = waiting.type("list", "--waiting", *STORE)
    assert listed.code == 0, listed
    lines = listed.out.splitlines()
    assert lines[0].split() == ["id", "since", "waits", "for", "type", "until", "ask"]
    assert r"pay \x1b[31mA-17?" in lines[1] and "approval" in lines[1] and "bool" in lines[1]
    assert [line.split()[-1] for line in lines if "verdict" in line] == ["Verdict"]
    assert len(lines) == 6
    plain = waiting.type("list", "--waiting", *STORE, "--json").object["runs"]
    assert [run["id"] for run in plain] == ["a"]
    first = plain[0]["waits"][0]
    assert (first["kind"], first["name"], first["type"], first["until"]) == ("signal", "approval", "bool", None)
    assert re.search(
        r"waits for  approval \(bool\), since (just now|\d+ s ago): «pay", waiting.type("show", "a", *STORE).out
    )
    assert waiting.type("list", "--waiting", "--status", "done", *STORE).code == 2


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("approval", ["yes"], True),
        ("approval", ["No"], False),
        ("approval", ["true"], True),
        ("approval", [], True),
        ("number", ["17"], 17),
        ("words", ['["a", "b"]'], ["a", "b"]),
        ("other", ["17", "--text"], "17"),
    ],
)
def test_what_is_typed_becomes_what_is_waited_for(waiting: Terminal, name: str, args: list[str], value: Any) -> None:
    done = waiting.type("send", "a", name, *args, *STORE, "--json")
    assert (done.code, done.object["value"]) == (0, value), done
    assert mail(waiting) == [(name, value)]


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [("verdict", ['{"by": "ada"}'], '{"by": "ada"}'), ("other", ["17"], "17"), ("other", [], None)],
)
def test_what_is_typed_is_kept_as_typed_where_no_type_is_known(
    waiting: Terminal, name: str, args: list[str], text: str | None
) -> None:
    done = waiting.type("send", "a", name, *args, *STORE, "--json")
    assert (done.code, done.object["value"]) == (0, text), done
    assert mail(waiting) == [(name, {"__type__": "Typed", "text": text})]


def test_what_cannot_be_sent(waiting: Terminal) -> None:
    for args, code, said in (
        (
            ("a", "approval", "perhaps"),
            2,
            "run 'a' waits for approval, a bool, and 'perhaps' is none. Nothing was sent.",
        ),
        (("a", "number", "many"), 2, "an int, and 'many' is none"),
        (("a", "number", "17", "--text"), 3, "run 'a' waits for 'number', an int, and '17' is none. Nothing was sent."),
        (("b", "approval", "yes"), 2, "run 'b' is done and takes no more signals"),
        (("c", "approval", "yes"), 2, "there is no run 'c'"),
    ):
        done = waiting.type("send", *args, *STORE)
        assert done.code == code and said in done.err, done
    assert mail(waiting) == []
    waiting.type("cancel", "a", *STORE)
    done = waiting.type("send", "a", "approval", "yes", *STORE)
    assert done.code == 3 and "Signal 'approval' was not sent" in done.err


def test_a_key_sends_it_once(waiting: Terminal) -> None:
    for _ in range(2):
        assert waiting.type("send", "a", "approval", "yes", "--key", "k", *STORE).code == 0
    assert mail(waiting) == [("approval", True)]


@workflow(version="1")
async def asked_late() -> list[Any]:
    got: list[Any] = [await holdfast.wait_for("yes", bool), await holdfast.wait_for("nothing", bool)]
    got += [await holdfast.wait_for("five", int), await holdfast.wait_for("digits", str)]
    got += [await holdfast.wait_for("words", list[str]), (await holdfast.wait_for("verdict", Verdict)).by]
    got += [await holdfast.wait_for("any", object), await holdfast.wait_for("text", str)]
    return [*got, await holdfast.wait_for("wrong", bool)]


def test_what_is_typed_too_early_is_read_as_what_is_asked_for_later(terminal: Terminal) -> None:
    async def begun() -> None:
        async with holdfast.open(terminal.folder / "waits.db") as hf:
            await hf.submit(asked_late(), id="a")

    asyncio.run(begun())
    typed = [("yes", "yes"), ("five", "5"), ("digits", "5"), ("words", '["a"]'), ("verdict", '{"by": "Ada"}')]
    for name, value in [*typed, ("any", "[1]"), ("wrong", "perhaps"), ("wrong", "no")]:
        sent = terminal.type("send", "a", name, value, *STORE)
        assert sent.code == 0 and "read as what it will ask for" in sent.out
    assert terminal.type("send", "a", "nothing", *STORE).code == 0
    assert terminal.type("send", "a", "text", "true", "--text", *STORE, "--json").object["value"] == "true"

    async def done() -> Any:
        async with holdfast.open(terminal.folder / "waits.db") as hf:
            return await hf.run(asked_late(), id="a")

    assert asyncio.run(done()) == [True, True, 5, "5", ["a"], "Ada", [1], "true", False]
