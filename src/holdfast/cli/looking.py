"""``holdfast list`` and ``holdfast show``: what is recorded, from outside; no code of the runs is imported."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

import holdfast
from holdfast import codec, lease
from holdfast.app import Holdfast
from holdfast.cli.options import opened, run_named, shared
from holdfast.cli.printing import ago, console, escaped, fields, iso, local, print_json, seconds, short
from holdfast.cli.problems import DONE
from holdfast.cli.progress import preview_of
from holdfast.errors import HoldfastError
from holdfast.failure import Failure
from holdfast.records import Cost, count
from holdfast.state import decode_change, replay
from holdfast.store import Checkpoint, RunRow, Spent

STATUSES = ("running", "waiting", "done", "failed", "cancelled", "parked")
STYLES = {
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
    "parked": "red",
    "running": "cyan",
    "waiting": "cyan",
    "open": "cyan",
    "interrupted": "yellow",
    "stalled": "yellow",
}


def process_of(owner: str) -> str:
    """``pid 4711`` on this machine, ``host pid 4711`` on another."""
    shown = lease.process_of(owner)
    return shown.partition(" ")[2] if owner.split("|")[0] == lease.host() else shown


def owner_of(row: RunRow, now_ms: int) -> str:
    """Who advances a run: a process; "nobody"; or one that is dead, or stalled (its lease lapsed)."""
    if row.status not in ("running", "waiting", "parked"):
        return ""
    if row.owner is None:
        return "nobody"
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


def _resumed(row: RunRow) -> int:
    return row.epoch - 1 if row.status != "cancelled" else max(0, row.epoch - 2)


# -- list --------------------------------------------------------------------------------------------------


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
    shown = [_entry(row, spent[row.no], now_ms) for row in rows]
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


def _entry(row: RunRow, spent: Spent, now_ms: int) -> dict[str, Any]:
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
        "resumed": _resumed(row),
        "deaths": row.deaths,
        "owner": owner_of(row, now_ms),
        "created_at": iso(row.created_ms),
        "updated_at": iso(updated_ms),
        "updated_ms": updated_ms,
    }


# -- show --------------------------------------------------------------------------------------------------


@click.command("show")
@click.argument("id")
@click.option(
    "--limit", type=click.IntRange(min=0), default=200, show_default=True, help="Checkpoints at most; 0: all."
)
@shared
def show_command(id: str, limit: int, store: str | None, as_json: bool) -> int:
    """One run, and which process made each checkpoint.

    How it stands, its state, its cost, its error with the traceback; then one line a checkpoint, oldest first.
    """
    with opened(store) as hf:
        row = run_named(hf, id, store)
        rows = hf._store.load(row.no)
        owners = {claim.epoch: process_of(claim.owner) for claim in hf._store.claims(row.no)}
        header = _header(hf, row, rows)
    if as_json:
        print_json({**header, "checkpoints": [_plain(each, owners) for each in rows]})
        return DONE
    _print_header(row, header)
    if rows:
        _print_rows(rows, owners, limit)
    return DONE


def _header(hf: Holdfast, row: RunRow, rows: list[Checkpoint]) -> dict[str, Any]:
    spent = hf._store.spent([row.no])[row.no]
    now_ms = hf._store.now_ms()
    failure = Failure.decode(row.error, f"run {row.id!r}, its error") if row.error else None
    return {
        **_entry(row, spent, now_ms),
        "store": hf.url,
        "module": row.module,
        "file": row.file,
        "python": row.python,
        "spent": {"tokens": spent.tokens, "usd": spent.usd},
        "arguments": codec.readable(row.inputs) if row.inputs else {},
        "state": _state(row, rows),
        "result": codec.readable(row.result) if row.result else None,
        "error": str(failure) if failure else None,
        "traceback": failure.traceback if failure else None,
    }


def _state(row: RunRow, rows: list[Checkpoint]) -> Any:
    """The state as a reader of the checkpoints arrives at it, as plain data."""
    try:
        where = f"run {row.id!r}, its state"
        initial = codec.decode(row.state, codec.Types.none, where, root="state") if row.state else {}
        return codec.readable(codec.encode(replay(initial, rows), codec.Types.none, where, root="state"))
    except HoldfastError as error:
        return f"(cannot be read: {error})"


def _print_header(row: RunRow, header: dict[str, Any]) -> None:
    out = console()
    what = f"{row.workflow}  version {row.version}" if row.workflow else "session"
    condition = (header["condition"], STYLES.get(header["condition"], ""))
    out.print(Text.assemble((escaped(row.id), "bold"), "  ", condition, f"  {escaped(what)}"))
    times = [f"created {local(row.created_ms)}", f"updated {local(header['updated_ms'])}"]
    if header["resumed"]:
        times.append(f"resumed {header['resumed']}×")
    if row.deaths:
        times.append(f"{count(row.deaths, 'process')} died")
    cost = Cost(**header["spent"])
    if cost.tokens:
        times.append(count(cost.tokens, "token"))
    if cost.usd:
        times.append(f"${cost.usd:.4f}".rstrip("0").rstrip("."))
    out.print(Text("  " + ", ".join(times), "dim"))
    room = max(40, out.width - 15)
    lines = [
        ("owner", header["owner"]),
        ("from", escaped(f"{row.module}  {row.file}") if row.module else ""),
        ("arguments", fields(header["arguments"], room)),
        ("state", fields(header["state"], room)),
        ("result", short(header["result"], room) if header["result"] is not None else ""),
    ]
    for name, said in lines:
        if said:
            out.print(Text.assemble((f"  {name:<11}", "dim"), said), overflow="fold")
    if header["error"]:
        out.print(
            Text.assemble((f"  {'error':<11}", "dim"), (escaped(" ".join(header["error"].split())), "red")),
            overflow="fold",
        )
        for line in own_frames(header["traceback"] or "").splitlines():
            out.print(Text(f"    {escaped(line)}", "dim"), soft_wrap=True)


def own_frames(trace: str) -> str:
    """A recorded traceback without holdfast's own frames, which tell the reader nothing about his program."""
    ours = str(Path(holdfast.__file__).parent)
    kept: list[str] = []
    skipping = False
    for line in trace.splitlines():
        if line.lstrip().startswith('File "'):
            skipping = f'File "{ours}' in line and "demo_job" not in line
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return "\n".join(kept)


def _plain(row: Checkpoint, owners: dict[int, str]) -> dict[str, Any]:
    failed = row.status == "failed"
    return {
        "seq": row.seq,
        "kind": row.kind,
        "name": row.name,
        "n": row.n,
        "key": row.key,
        "scope": row.scope,
        "branch": row.branch,
        "status": row.status,
        "attempts": row.attempts,
        "started_at": iso(row.started_ms),
        "duration": row.duration_ms / 1000,
        "process": owners.get(row.epoch, ""),
        "epoch": row.epoch,
        "tokens": row.tokens,
        "usd": row.usd,
        "inputs": codec.readable(row.inputs) if row.inputs else None,
        "result": codec.readable(row.result) if row.result and not failed else None,
        "error": preview_of(row, 2000) if failed else None,
        "state_changed": _changed(row),
    }


def _changed(row: Checkpoint) -> list[str]:
    try:
        change = decode_change(row)
    except HoldfastError:
        return ["(cannot be read)"]
    return list(dict.fromkeys([*(change.step or {}), *(change.body or {})]))


def _print_rows(rows: list[Checkpoint], owners: dict[int, str], limit: int) -> None:
    out = console()
    left_out = len(rows) - limit if limit and len(rows) > limit else 0
    head = rows[: limit - limit // 2] if left_out else rows
    tail = rows[len(rows) - limit // 2 :] if left_out and limit // 2 else []
    wide = max(16, (out.width - 66) // 2)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("seq", "step", "status", "took", "process", "inputs", "result"):
        table.add_column(name, justify="right" if name in ("seq", "took") else "left", no_wrap=name != "step")
    for each in head:
        table.add_row(*_cells(each, owners, wide))
    if left_out:
        table.add_row("…", f"{left_out} more", "", "", "", "", f"--limit {len(rows)} shows them")
    for each in tail:
        table.add_row(*_cells(each, owners, wide))
    out.print()
    out.print(table)
    if left_out:
        _print_sums(rows)


def _cells(row: Checkpoint, owners: dict[int, str], wide: int) -> tuple[Any, ...]:
    depth = row.scope.count(" > ") + 1 if row.scope else 0
    name = escaped(f"{row.name}[{row.key}]" if row.key is not None else row.name or "(save)")
    where = row.branch.rpartition("<locals>.")[2]
    status = row.status if row.attempts == 1 else f"{row.status} (attempt {row.attempts})"
    result = preview_of(row, wide)
    if row.kind == "save":
        result = short("state: " + ", ".join(_changed(row)), wide)
    return (
        str(row.seq),
        Text.assemble("  " * depth, name, (f"  {where}" if where else "", "dim")),
        Text(status, STYLES.get(row.status, "")),
        seconds(row.duration_ms / 1000) if row.kind != "save" else "",
        owners.get(row.epoch, "?"),
        Text(fields(codec.readable(row.inputs), wide) if row.inputs else "", "dim"),
        Text(result, "red" if row.status == "failed" else ""),
    )


def _print_sums(rows: list[Checkpoint]) -> None:
    """Where there are too many rows to read, how many each step has, and how long they took together."""
    sums: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        sums[row.name or "(save)", row.status].append(row.duration_ms / 1000)
    out = console()
    out.print()
    for (name, status), took in sorted(sums.items(), key=lambda item: -sum(item[1])):
        out.print(Text(f"  {name}  {len(took)} {status}, {seconds(sum(took))} together"))
