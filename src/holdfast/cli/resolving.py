"""``holdfast resolve``: say what became of a step that is in doubt."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from holdfast.app import Holdfast
from holdfast.cli.finding import workflow_of_run
from holdfast.cli.options import opened, run_named, shared, store_hint
from holdfast.cli.printing import print_json, short
from holdfast.cli.problems import DONE, Problem
from holdfast.errors import CodecError
from holdfast.repairs import looked_into, recorded
from holdfast.resolving import find_resolvable, result_annotation
from holdfast.store import Checkpoint, RunRow


@click.command("resolve")
@click.argument("id")
@click.argument("seq", type=click.IntRange(min=1))
@click.option("--result", metavar="JSON", help="It took effect: what the step would have returned.")
@click.option("--retry", is_flag=True, help="It certainly did not: the step is executed again.")
@shared
def resolve_command(id: str, seq: int, result: str | None, retry: bool, store: str | None, as_json: bool) -> int:
    """Say what became of a step that is in doubt, or damaged: checkpoint SEQ of run ID, as the error names it.

    The run goes on from there: by itself where a worker serves its queue, else `holdfast resume ID`. A --result is
    converted to the type of the step's result.
    """
    if retry is (result is not None):
        raise Problem("say one of --result JSON (it took effect) and --retry (it certainly did not).")
    with opened(store) as hf:
        row = run_named(hf, id, store)
        intent = find_resolvable(row, looked_into(recorded(hf._store, row), seq, hf._blobs), seq)
        given: dict[str, Any] = {"retry": True} if result is None else {"result": _value(row, intent, result)}
        asyncio.run(_resolve(hf, id, seq, given))
    if as_json:
        print_json({"id": id, "seq": seq, "name": intent.name, **given})
        return DONE
    how = "is executed again" if retry else f"has returned {short(given['result'])}"
    print(f"resolved: checkpoint {seq} of run {id}, step {intent.name}, {how}")
    print(f"a worker goes on with it, or: holdfast resume {id}{store_hint(store)}")
    return DONE


async def _resolve(hf: Holdfast, id: str, seq: int, given: dict[str, Any]) -> None:
    async with hf:
        try:
            await hf.resolve(id, seq, **given)
        except CodecError as unfit:
            raise Problem(str(unfit)) from None


def _value(run: RunRow, intent: Checkpoint, text: str) -> Any:
    try:
        workflow_of_run(run)  # its module declares the type of the result; what any process knows the intent tells
    except Problem:
        pass
    is_text = result_annotation(intent) is str
    try:
        value = json.loads(text)
    except ValueError:
        if is_text:
            return text
        raise Problem(f"--result is JSON, and {text!r} is none; a text has its quotes: --result '\"…\"'.") from None
    return value if isinstance(value, str) or not is_text else text
