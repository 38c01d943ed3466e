"""``holdfast list``: which runs there are, and how each stands; no code of theirs is imported."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from holdfast import lease
from holdfast.cli.options import opened, shared
from holdfast.cli.printing import ago, console, escaped, iso, local, print_json
from holdfast.cli.problems import DONE, Problem
from holdfast.cli.stranded import plain as plain_stranded
from holdfast.cli.stranded import print_stranded, stranded
from holdfast.cli.timeline import process_of
from holdfast.cli.waiting import plain
from holdfast.expected import text_of
from holdfast.records import count, damage, ms_of, times_resumed, waits_of
from holdfast.store import NEVER_MS, RunRow, Spent, Store
from holdfast.store.damage import flaw_of_run, legible

_UNFINISHED = ("running", "waiting")
# Which of the stored statuses may turn out to be in which condition; the others are what they say.
_STORED = {
    "running": ("running",),
    "waiting": ("waiting",),
    "interrupted": _UNFINISHED,
    "stalled": _UNFINISHED,
    "open": _UNFINISHED,
    "closed": _UNFINISHED,
}
STATUSES = ("queued", *_STORED, "done", "failed", "cancelled", "in_doubt", "parked")
_PAGE = 500  # rows
STYLES = {
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "in_doubt": "bold red",
    "parked": "red",
    "queued": "cyan",
    "running": "cyan",
    "waiting": "cyan",
    "open": "cyan",
    "interrupted": "yellow",
    "stalled": "yellow",
    "damaged": "red",
}


def owner_of(row: RunRow, now_ms: int) -> str:
    """Who advances a run: a process; "nobody"; or one that is dead, or stalled (its lease lapsed)."""
    if row.status not in ("running", "waiting", "in_doubt", "parked"):
        return ""
    if row.owner is None:
        return "nobody" if row.workflow else ""
    if lease.is_dead(row.owner):
        return f"nobody ({process_of(row.owner)} died)"
    return f"{process_of(row.owner)}{' (stalled)' if row.lease_until_ms <= now_ms else ''}"


def condition_of(row: RunRow, now_ms: int) -> str:
    """The status, unless it only says what an owner meant to do: nobody does it now, or nobody can tell.

    "interrupted": handed back, or the owner is dead; "stalled": the lease lapsed, and the owner may live or not.
    A session is "open" or "closed". "damaged": its row is not as it was written.
    """
    if flaw_of_run(row) is not None:
        return "damaged"
    if row.status not in _UNFINISHED:
        return row.status
    if row.owner is None:
        return "interrupted" if row.status == "running" else "waiting" if row.workflow else "closed"
    if lease.is_dead(row.owner):
        return "interrupted"
    if row.lease_until_ms <= now_ms:
        return "stalled"
    return row.status if row.workflow else "open"


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only those, as the list shows them.")
@click.option("--workflow", metavar="NAME", help="Only runs of this one.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@click.option("--waiting", is_flag=True, help="Only those that wait, and what each waits for: who is asked what.")
@click.option(
    "--stranded", "lost", is_flag=True, help="Only unfinished ones that the code at hand cannot go on with, and why."
)
@shared
def list_command(
    status: str | None, workflow: str | None, limit: int, waiting: bool, lost: bool, store: str | None, as_json: bool
) -> int:
    """The runs of a store, newest first."""
    if lost:
        if status is not None or waiting:
            raise Problem("--stranded looks at all unfinished runs; leave out --status and --waiting.")
        return _list_stranded(workflow, limit, store, as_json=as_json)
    if waiting and status not in (None, "waiting"):
        raise Problem(f"--waiting lists the runs that wait, and --status {status} others.")
    with opened(store) as hf:
        now_ms, url = hf._store.now_ms(), hf.url
        found = _in_condition(hf._store, status, workflow, now_ms)
        if waiting:
            found = (row for row in _paged(hf._store, "waiting", workflow) if row.workflow)  # no closed session
        rows = list(itertools.islice(found, limit + 1))
        more, rows = len(rows) > limit, rows[:limit]
        spent = hf._store.spent([row.no for row in rows])
    shown = [entry_of(row, spent[row.no], now_ms) for row in rows]
    rows = [legible(row) for row in rows]
    if as_json:
        print_json({"store": url, "runs": shown, "more": more})
        return DONE
    if not shown:
        which = " like that" if status or workflow else ""
        console().print(f"there are no runs{which} in {escaped(url)}", markup=False)
        return DONE
    if waiting:
        _print_waiting(rows, now_ms)
    else:
        _print_table(rows, shown, now_ms)
    _print_more(more, limit)
    return DONE


def _print_table(rows: list[RunRow], shown: list[dict[str, Any]], now_ms: int) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("id", "workflow", "status", "steps", "resumed", "owner", "updated"):
        table.add_column(name, justify="right" if name == "steps" else "left", overflow="fold")
    for row, entry in zip(rows, shown, strict=True):
        table.add_row(
            Text(escaped(row.id), "bold"),
            Text(escaped(row.workflow)) if row.workflow else Text("session", "dim"),
            Text(entry["condition"], STYLES.get(entry["condition"], "")),
            str(entry["steps"]) if row.workflow else count(entry["saves"], "save"),
            f"{entry['resumed']}×" if entry["resumed"] else "",
            Text(entry["owner"] or "", "yellow" if "died" in entry["owner"] or "stalled" in entry["owner"] else ""),
            Text(ago(entry["updated_ms"], now_ms), "dim"),
        )
    console().print(table)
    for entry in shown:
        if entry["damaged"]:
            what = f"{escaped(entry['id'])}: {damage(entry['damaged'])} `holdfast show ID --raw` shows its bytes."
            console().print(Text(what, "red"))


def _in_condition(store: Store, status: str | None, workflow: str | None, now_ms: int) -> Iterator[RunRow]:
    """The newest first. Which were running when their owner died are "interrupted" ones, not "running"."""
    if status not in _STORED:
        return _paged(store, status, workflow)
    pages = (_paged(store, stored, workflow) for stored in _STORED[status])
    found = heapq.merge(*pages, key=lambda row: -row.no)
    return (row for row in found if condition_of(row, now_ms) == status)


def _paged(store: Store, status: str | None, workflow: str | None) -> Iterator[RunRow]:
    after = None
    while rows := store.runs(status=status, workflow=workflow, limit=_PAGE, after=after):
        yield from rows
        after = rows[-1].no


def _list_stranded(workflow: str | None, limit: int, store: str | None, *, as_json: bool) -> int:
    with opened(store) as hf:
        found, url = stranded(hf, workflow), hf.url
    more = len(found) > limit
    if as_json:
        print_json({"store": url, "runs": [plain_stranded(each) for each in found[:limit]], "more": more})
    elif not found:
        console().print(f"the code at hand can go on with every unfinished run in {escaped(url)}", markup=False)
    else:
        print_stranded(found[:limit])
        _print_more(more, limit)
    return DONE


def _print_more(more: bool, limit: int) -> None:
    if more:
        console().print(Text(f"… and older ones; --limit {limit * 2} shows more", "dim"))


def _print_waiting(rows: list[RunRow], now_ms: int) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("id", "since", "waits for", "type", "until", "ask"):
        table.add_column(name, overflow="fold")
    for row in rows:
        waits, unnamed = waits_of(row)
        for k, wait in enumerate(waits):
            until = local(ms_of(wait.until)) if wait.until is not None else ""
            table.add_row(
                Text(escaped(row.id) if k == 0 else "", "bold"),
                Text(ago(ms_of(wait.since), now_ms), "dim"),
                Text("sleep" if wait.kind == "sleep" else escaped(str(wait)), "cyan"),
                Text(escaped(text_of(wait.expects)) if wait.expects is not None else ""),
                Text(until),
                Text(escaped(wait.ask or "")),
            )
        if unnamed:
            table.add_row("", "", Text(f"and {unnamed:,} more", "dim"))
    console().print(table)


def entry_of(row: RunRow, spent: Spent, now_ms: int) -> dict[str, Any]:
    flaw, condition = flaw_of_run(row), condition_of(row, now_ms)
    if flaw is not None:
        row = legible(row)
    updated_ms = max(row.updated_ms, spent.last_ms)
    return {
        "id": row.id,
        "kind": "run" if row.workflow else "session",
        "workflow": row.workflow,
        "version": row.version,
        "status": row.status,
        "condition": condition,
        "damaged": flaw,
        "steps": spent.steps,
        "saves": spent.saves,
        "resumed": times_resumed(row),
        "deaths": row.deaths,
        "queue": row.queue,
        "priority": row.priority,
        "due_at": iso(row.due_ms) if now_ms < row.due_ms < NEVER_MS else None,
        "owner": owner_of(row, now_ms),
        "created_at": iso(row.created_ms),
        "updated_at": iso(updated_ms),
        "updated_ms": updated_ms,
        "waits": [plain(each) for each in waits_of(row)[0]],
    }
