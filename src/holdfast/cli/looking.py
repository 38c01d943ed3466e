"""``holdfast list``: which runs there are, and how each stands; no code of theirs is imported."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from holdfast import lease
from holdfast.cli.options import opened, shared
from holdfast.cli.printing import ago, console, escaped, iso, print_json
from holdfast.cli.problems import DONE
from holdfast.cli.timeline import process_of
from holdfast.records import count, times_resumed
from holdfast.store import NEVER_MS, RunRow, Spent

STATUSES = ("queued", "running", "waiting", "done", "failed", "cancelled", "parked")
STYLES = {
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "parked": "red",
    "queued": "cyan",
    "running": "cyan",
    "waiting": "cyan",
    "open": "cyan",
    "interrupted": "yellow",
    "stalled": "yellow",
}


def owner_of(row: RunRow, now_ms: int) -> str:
    """Who advances a run: a process; "nobody"; or one that is dead, or stalled (its lease lapsed)."""
    if row.status not in ("running", "waiting", "parked"):
        return ""
    if row.owner is None:
        return "nobody" if row.workflow else ""
    if lease.is_dead(row.owner):
        return f"nobody ({process_of(row.owner)} died)"
    return f"{process_of(row.owner)}{' (stalled)' if row.lease_until_ms <= now_ms else ''}"


def condition_of(row: RunRow, now_ms: int) -> str:
    """The status, unless it only says what an owner meant to do: nobody does it now, or nobody can tell.

    "interrupted": handed back, or the owner is dead; "stalled": the lease lapsed, and the owner may live or not.
    A session is "open" or "closed".
    """
    if row.status not in ("running", "waiting"):
        return row.status
    if row.owner is None:
        return "interrupted" if row.status == "running" else "waiting" if row.workflow else "closed"
    if lease.is_dead(row.owner):
        return "interrupted"
    if row.lease_until_ms <= now_ms:
        return "stalled"
    return row.status if row.workflow else "open"


@click.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only those.")
@click.option("--workflow", metavar="NAME", help="Only runs of this one.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@shared
def list_command(status: str | None, workflow: str | None, limit: int, store: str | None, as_json: bool) -> int:
    """The runs of a store, newest first."""
    with opened(store) as hf:
        rows = hf._store.runs(status=status, workflow=workflow, limit=limit + 1, after=None)
        more, rows = len(rows) > limit, rows[:limit]
        spent = hf._store.spent([row.no for row in rows])
        now_ms, url = hf._store.now_ms(), hf.url
    shown = [entry_of(row, spent[row.no], now_ms) for row in rows]
    if as_json:
        print_json({"store": url, "runs": shown, "more": more})
        return DONE
    if not shown:
        which = " like that" if status or workflow else ""
        console().print(f"there are no runs{which} in {escaped(url)}", markup=False)
        return DONE
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
    if more:
        console().print(Text(f"… and older ones; --limit {limit * 2} shows more", "dim"))
    return DONE


def entry_of(row: RunRow, spent: Spent, now_ms: int) -> dict[str, Any]:
    updated_ms = max(row.updated_ms, spent.last_ms)
    return {
        "id": row.id,
        "kind": "run" if row.workflow else "session",
        "workflow": row.workflow,
        "version": row.version,
        "status": row.status,
        "condition": condition_of(row, now_ms),
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
    }
