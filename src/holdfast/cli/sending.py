"""``holdfast send``: a value for a run that waits for it, or will."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from holdfast.cli.options import opened, run_named, shared
from holdfast.cli.printing import print_json, short
from holdfast.cli.problems import DONE, Problem
from holdfast.expected import Typed, annotation_of, article, text_of
from holdfast.records import waits_of, waits_told_in
from holdfast.store import RunRow


@click.command("send")
@click.argument("id")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--key", metavar="K", help="Sent again with the same key it is the same signal.")
@click.option("--text", "as_text", is_flag=True, help="VALUE is text, also where it could be read as JSON.")
@shared
def send_command(
    id: str, name: str, value: str | None, key: str | None, as_text: bool, store: str | None, as_json: bool
) -> int:
    """Send a signal to a run: NAME is what it waits for (or will), VALUE what it gets.

    VALUE is converted to the type the run waits for, now or when it comes to that: yes and no are a bool. Where any
    value will do it is JSON if it can be read as that, or text. Without a VALUE it is null, or true for a bool.
    """
    with opened(store) as hf:
        row = run_named(hf, id, store)
        sent = value if as_text else _value(row, name, value)

        async def work() -> None:
            async with hf:
                await hf.send(id, name, sent, key=key)

        asyncio.run(work())
    if isinstance(sent, Typed):
        sent = sent.text
    if as_json:
        print_json({"id": id, "name": name, "value": sent, "key": key})
    else:
        awaited = any(wait.kind == "signal" and wait.name == name for wait in waits_of(row)[0])
        later = (
            "" if awaited else "; nothing was known to wait for it yet, so it is kept, and read as what it will ask for"
        )
        print(f"sent {name} {short(sent)} to run {id}{later}")
    return DONE


def _value(row: RunRow, name: str, text: str | None) -> Any:
    for wait in waits_told_in(row.waiting, row.id):
        if wait.kind == "signal" and wait.name == name and wait.expects is not None:
            annotation = _annotation(wait.expects)
            if annotation is None:
                break
            try:
                return Typed(text).read_as(annotation)
            except (TypeError, ValueError):
                wanted = text_of(wait.expects)
                raise Problem(
                    f"run {row.id!r} waits for {name}, {article(wanted)}, and {text!r} is none. Nothing was sent."
                ) from None
    return Typed(text)


def _annotation(expects: list[Any]) -> Any:
    try:
        return annotation_of(expects)
    except ValueError:
        return None
