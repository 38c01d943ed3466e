"""``holdfast list --stranded``: unfinished runs that the code at hand cannot go on with, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from holdfast import codec
from holdfast.admission import refuse_other_work
from holdfast.app import Holdfast
from holdfast.cli.finding import definition_of, workflow_of_run
from holdfast.cli.printing import console, escaped
from holdfast.cli.problems import Problem
from holdfast.errors import HoldfastError
from holdfast.known import call_again
from holdfast.records import refuse_damaged
from holdfast.store import RunRow
from holdfast.versions import is_other, refuse_other_version, revision_of

UNFINISHED = ("queued", "running", "waiting", "in_doubt", "parked")
PAGE = 200


class Stranded(NamedTuple):
    """``error`` is what ``holdfast resume`` would stop with: ``NotFound`` where no code of the run is."""

    row: RunRow
    error: str
    why: str


def stranded(hf: Holdfast, workflow: str | None) -> list[Stranded]:
    """Newest first. The modules of the runs are imported for that, as by ``holdfast resume``."""
    found = [each for row in _unfinished(hf, workflow) if (each := _looked_at(row)) is not None]
    return sorted(found, key=lambda each: -each.row.no)


def _unfinished(hf: Holdfast, workflow: str | None) -> Iterator[RunRow]:
    for status in UNFINISHED:
        after: int | None = None
        while rows := hf._store.runs(status=status, workflow=workflow, limit=PAGE, after=after):
            after = rows[-1].no
            yield from (row for row in rows if row.workflow)


def _looked_at(row: RunRow) -> Stranded | None:
    """None if a resume would at least begin."""
    try:
        refuse_damaged(row)
        workflow = workflow_of_run(row)
        definition = definition_of(workflow)
        refuse_other_version(row, definition)
        call = call_again(workflow, row)
        call.take()
        refuse_other_work(row, definition, call.inputs())
        if is_other(row, definition):
            revision_of(row, [], definition)
    except Problem as problem:
        return Stranded(row, "NotFound", problem.format_message())
    except HoldfastError as error:
        return Stranded(row, type(error).__name__, str(error))
    return None


def plain(found: Stranded) -> dict[str, object]:
    row = found.row
    return {
        "id": row.id,
        "workflow": row.workflow,
        "version": row.version,
        "python": row.python,
        "schema_version": row.schema_version,
        "module": row.module,
        "file": row.file,
        "status": row.status,
        "arguments": codec.readable(row.inputs) if row.inputs else {},
        "error_type": found.error,
        "why": found.why,
    }


def print_stranded(found: list[Stranded]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("id", "workflow", "version", "status", "why"):
        table.add_column(name, overflow="fold")
    for row, _, why in found:
        table.add_row(
            Text(escaped(row.id), "bold"),
            Text(escaped(row.workflow)),
            Text(escaped(f"{row.version} (Python {row.python})")),
            Text(row.status),
            Text(escaped(" ".join(why.split()))),
        )
    console().print(table)
