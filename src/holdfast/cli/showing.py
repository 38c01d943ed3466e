"""``holdfast show``: one run, from outside; no code of it is imported."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
from rich.text import Text

import holdfast
from holdfast import codec, lease
from holdfast.app import Holdfast
from holdfast.cli.drawing import draw, mermaid, name_of, new_version, told
from holdfast.cli.looking import STYLES, condition_of, entry_of
from holdfast.cli.options import opened, run_named, shared
from holdfast.cli.printing import console, dollars, escaped, fields, iso, local, print_json, seconds, short
from holdfast.cli.problems import DONE, Problem
from holdfast.cli.progress import preview_of
from holdfast.cli.raw import print_raw, raw_of
from holdfast.cli.timeline import (
    CALLS,
    Process,
    changed_keys,
    kept_from,
    laid_out,
    process_of,
    processes_of,
    saved_by,
    stands_for,
)
from holdfast.cli.waiting import in_words
from holdfast.doubt import open_intents, told_by
from holdfast.errors import CodecError, HoldfastError
from holdfast.failure import Failure
from holdfast.past import BEGINS, present
from holdfast.recall import OPEN
from holdfast.records import count, origin_of, unclaimed_in, waits_of
from holdfast.repairs import Recorded, recorded
from holdfast.state import replay
from holdfast.store import Checkpoint, RunRow, Signal
from holdfast.store.damage import flaw_of, flaw_of_run, flaw_of_signal, legible

LABEL = 11  # columns
_NAMED_MAX = 5


class Shown:
    """Everything the store holds of one run, read at once."""

    def __init__(self, hf: Holdfast, row: RunRow) -> None:
        self.url = hf.url
        found = recorded(hf._store, row)
        self.now_ms = hf._store.now_ms()
        self.spent = hf._store.spent([row.no])[row.no]
        self.entry = entry_of(row, self.spent, self.now_ms)
        condition = "died" if row.owner is not None and lease.is_dead(row.owner) else condition_of(row, self.now_ms)
        self.flaws = {each.seq: flaw for each in found.rows if (flaw := flaw_of(each)) is not None}
        self.usable = [row for row in found.usable if row.seq not in self.flaws]
        self.damages = damages_of(row, found, self.flaws, hf._store.signals(row.no))
        self.row, self.rows = legible(row), [legible(each) if each.seq in self.flaws else each for each in found.rows]
        self.failure = _failure_of(self.row)
        self.processes = processes_of(
            self.row,
            [legible(claim) for claim in found.claims],
            self.rows,
            condition,
            set(self.failure.seqs) if self.failure else set(),
        )


def damages_of(row: RunRow, found: Recorded, flaws: dict[int, str], signals: list[Signal]) -> list[str]:
    """All that is wrong with what the store holds of a run."""
    told = [flaw] if (flaw := flaw_of_run(row)) is not None else []
    told += [f"checkpoint {seq}: {flaw}" for seq, flaw in flaws.items() if seq not in found.repaired]
    damaged = ((legible(signal), flaw_of_signal(signal)) for signal in signals)
    told += [f"signal {signal.n} ({signal.name}): {flaw}" for signal, flaw in damaged if flaw is not None]
    return told or ([found.damage.what] if found.damage is not None else [])


def _failure_of(row: RunRow) -> Failure | None:
    if not row.error:
        return None
    try:
        return Failure.decode(row.error, f"run {row.id!r}, its error")
    except CodecError as unreadable:
        return Failure("CodecError", str(unreadable))


@click.command("show")
@click.argument("id")
@click.option("--step", "seq", type=click.IntRange(min=1), metavar="N", help="One checkpoint, and why it was run.")
@click.option("--limit", type=click.IntRange(min=0), default=60, show_default=True, help="Lines of steps; 0: all.")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a sequence diagram, for Markdown.")
@click.option("--raw", "as_raw", is_flag=True, help="Every column of every row as it is stored, and what is damaged.")
@shared
def show_command(
    id: str, seq: int | None, limit: int, as_mermaid: bool, as_raw: bool, store: str | None, as_json: bool
) -> int:
    """One run: how it stands, and what each of its processes did.

    Its state, its cost, its error with the traceback; then its timeline, with the processes side by side. Steps of one
    name in a row are one line, time in which nothing ran is drawn short.
    """
    with opened(store) as hf:
        row = run_named(hf, id, store)
        shown = Shown(hf, row)
        raw = raw_of(hf, row) if as_raw else None
    if raw is not None:
        print_json({**raw, "damages": shown.damages}) if as_json else print_raw(raw, shown.damages)
    elif seq is not None:
        found = next((row for row in shown.rows if row.seq == seq), None)
        if found is None:
            raise Problem(f"run {id!r} has no checkpoint {seq}; it has {count(len(shown.rows), 'checkpoint')}.")
        _show_step(shown, found, as_json=as_json)
    elif as_mermaid:
        lines = laid_out(shown.processes, shown.now_ms, limit)
        diagram = mermaid(lines, shown.processes, shown.row.workflow or "session")
        print_json({"mermaid": diagram}) if as_json else print(diagram)
    elif as_json:
        print_json({**_header(shown), "checkpoints": [_plain(each, shown.processes) for each in shown.rows]})
    else:
        _show_run(shown, limit)
    return DONE


def _show_run(shown: Shown, limit: int) -> None:
    out = console()
    _print_header(shown, _header(shown))
    if shown.processes:
        out.print()
        lines = laid_out(shown.processes, shown.now_ms, limit)
        for text in draw(lines, shown.processes, shown.row.created_ms, out.width, out.encoding):
            out.print(text, no_wrap=True, crop=False)
        if any(line.kind == "folded" for line in lines):
            out.print(Text("folded in the middle; --limit 0 shows every line, --step N one checkpoint", "dim"))


# -- how it stands -----------------------------------------------------------------------------------------


def _header(shown: Shown) -> dict[str, Any]:
    row, saved = shown.row, saved_by(shown.processes)
    return {
        **shown.entry,
        "store": shown.url,
        "module": row.module,
        "file": row.file,
        "python": row.python,
        "schema_version": row.schema_version,
        "forked_from": origin_of(row),
        "unclaimed": unclaimed_in(shown.rows)[0],
        "spent": {"tokens": shown.spent.tokens, "usd": shown.spent.usd},
        "not_spent_again": saved._asdict(),
        "arguments": codec.readable(row.inputs) if row.inputs else {},
        "damages": shown.damages,
        "state": "(cannot be read, see what is damaged)" if shown.damages else _state(row, shown.usable),
        "result": codec.readable(row.result) if row.result else None,
        "in_doubt": [_plain_doubt(each) for each in open_intents(shown.rows)],
        "error": str(shown.failure) if shown.failure else None,
        "traceback": shown.failure.traceback if shown.failure else None,
        "processes": [_plain_process(each) for each in shown.processes],
    }


def _plain_doubt(intent: Checkpoint) -> dict[str, Any]:
    return {
        "seq": intent.seq,
        "name": intent.name,
        "inputs": codec.readable(intent.inputs) if intent.inputs else {},
        "idempotency_key": told_by(intent)[0],
    }


def _doubt(told: dict[str, Any]) -> str:
    """A step of which nobody knows whether it took effect; in a run that goes on, it may still come to its end."""
    given = fields(told["inputs"], 300)
    return f"checkpoint {told['seq']}, {escaped(told['name'])}  {given}  idempotency key {told['idempotency_key']}"


def _plain_process(process: Process) -> dict[str, Any]:
    return {
        "epoch": process.epoch,
        "process": process_of(process.owner),
        "began_at": iso(process.began_ms),
        "seen_until": iso(process.ended_ms),
        "end": process.end,
        "checkpoints": len(process.rows),
        "not_spent_again": process.saved._asdict(),
        "in_flight": [
            {"name": each.name, "started_at": iso(each.started_ms), "attempt": each.attempt} for each in process.flying
        ],
    }


def _state(row: RunRow, rows: list[Checkpoint]) -> Any:
    """The state as a reader of the checkpoints arrives at it, as plain data."""
    try:
        where = f"run {row.id!r}, its state"
        return codec.readable(codec.encode(replay(row, rows).state, codec.Types.none, where, root="state"))
    except HoldfastError as error:
        return f"(cannot be read: {error})"


def _print_header(shown: Shown, header: dict[str, Any]) -> None:
    out, row = console(), shown.row
    schema = f"  schema version {row.schema_version}" if row.schema_version else ""
    what = (f"{row.workflow}  version {row.version}" if row.workflow else "session") + schema
    condition = (header["condition"], STYLES.get(header["condition"], ""))
    out.print(Text.assemble((escaped(row.id), "bold"), "  ", condition, f"  {escaped(what)}"))
    room = max(20, out.width - LABEL - 2)
    waits, more = waits_of(row)
    saved = saved_by(shown.processes)
    for name, said in (
        ("created", f"{local(row.created_ms)}, updated {local(header['updated_ms'])}"),
        ("queue", _queue(shown)),
        ("resumed", f"{header['resumed']}×{_deaths(row)}" if header["resumed"] or row.deaths else ""),
        ("spent", _costs(shown)),
        ("recalled", told(saved).removeprefix("recalled ") if saved.steps else ""),
        ("owner", header["owner"]),
        *(("waits for" if k == 0 else "", in_words(wait, shown.now_ms)) for k, wait in enumerate(waits)),
        ("", f"and {count(more, 'more wait')}" if more else ""),
        ("forked", _origin(row)),
        ("unclaimed", _unclaimed(shown.rows)),
        ("from", escaped(f"{row.module}  {row.file}") if row.module else ""),
        ("arguments", fields(header["arguments"], 3 * room)),
        ("state", fields(header["state"], 3 * room)),
        ("result", short(header["result"], 3 * room) if header["result"] is not None else ""),
        *(("in doubt" if k == 0 else "", _doubt(each)) for k, each in enumerate(header["in_doubt"])),
    ):
        _print_field(name, said)
    for each in shown.damages:
        _print_field("damaged", escaped(each), "red")
    if shown.damages:
        _print_field("", "it is kept as it is; --raw shows its bytes", "dim")
    if header["error"] and row.status != "in_doubt":
        _print_field("error", escaped(" ".join(header["error"].split())), "red")
        _print_traceback(header["traceback"] or "")
    if row.status == "in_doubt" and header["in_doubt"]:
        ways = f"holdfast resolve {shlex.quote(row.id)} {header['in_doubt'][0]['seq']} --result JSON | --retry"
        _print_field("", escaped(f"nobody knows whether it took effect; say it: {ways}"), "red")


def _print_field(name: str, said: str, style: str = "") -> None:
    """A labelled text, its further lines set in below the first."""
    if not said:
        return
    out = console()
    for k, line in enumerate(Text(said, style).wrap(out, max(20, out.width - LABEL - 2))):
        line.rstrip()
        out.print(Text(f"  {name if k == 0 else '':<{LABEL - 1}} ", "dim").append_text(line), no_wrap=True, crop=False)


def _queue(shown: Shown) -> str:
    """Where a worker finds a run that nobody has, and from when on."""
    row = shown.row
    if row.owner is not None or row.status not in ("queued", "running") or not row.queue:
        return ""
    priority = f", priority {row.priority}" if row.priority else ""
    left_ms = row.due_ms - shown.now_ms
    due = f"due in {seconds(left_ms / 1000)}, at {local(row.due_ms)}" if left_ms > 0 else "due now"
    return f"{escaped(row.queue)}{priority}, {due}"


def _origin(row: RunRow) -> str:
    origin = origin_of(row)
    return f"from {escaped(origin[0])}, whose first {count(origin[1], 'checkpoint')} it shares" if origin else ""


def _unclaimed(rows: list[Checkpoint]) -> str:
    seqs, number = unclaimed_in(rows)
    if not number:
        return ""
    names = {row.seq: name_of(row) for row in rows}
    named = ", ".join(f"{seq} {escaped(names[seq])}" for seq in seqs[:_NAMED_MAX])
    more = f" and {number - _NAMED_MAX:,} more" if number > _NAMED_MAX else ""
    return f"{count(number, 'checkpoint')} the code did not ask for again when it came to its end: {named}{more}"


def _deaths(row: RunRow) -> str:
    return f", {count(row.deaths, 'process')} died" if row.deaths else ""


def _costs(shown: Shown) -> str:
    own = [row for row in shown.rows if row.kind in CALLS and row.attempts and row.epoch > 0 and not row.scope]
    worked = sum(row.duration_ms for row in own) / 1000
    parts = [f"{seconds(worked)} in steps"] if shown.entry["steps"] else []
    if shown.spent.tokens:
        parts.append(count(shown.spent.tokens, "token"))
    if shown.spent.usd:
        parts.append(dollars(shown.spent.usd))
    return ", ".join(parts)


def _print_traceback(trace: str) -> None:
    for line in own_frames(trace).splitlines():
        console().print(Text(f"    {escaped(line)}", "dim"), soft_wrap=True)


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


# -- one checkpoint ----------------------------------------------------------------------------------------


def _plain(row: Checkpoint, processes: list[Process]) -> dict[str, Any]:
    failed = row.status == "failed"
    owner = next((each.owner for each in processes if each.epoch == row.epoch), None)
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
        "process": process_of(owner) if owner else "",
        "epoch": row.epoch,
        "tokens": row.tokens,
        "usd": row.usd,
        "inputs": codec.readable(row.inputs) if row.inputs else None,
        "result": codec.readable(row.result) if row.result and not failed else None,
        "error": preview_of(row, 2000) if failed else None,
        "state_changed": changed_keys(row)[0],
        "state_changed_before": changed_keys(row)[1],
    }


def _changed(how: str, keys: list[str]) -> str:
    return f"{how} {', '.join(map(escaped, keys))}" if keys else ""


def _show_step(shown: Shown, row: Checkpoint, *, as_json: bool) -> None:
    plain = _plain(row, shown.processes)
    failed = row.status == "failed" and row.result and row.seq not in shown.flaws
    trace = Failure.decode(row.result or b"", "a failure").traceback if failed else ""
    why = _why(shown, row)
    if as_json:
        print_json({**plain, "traceback": trace or None, "why": why})
        return
    out = console()
    title = (f"{escaped(shown.row.id)}, checkpoint {row.seq}", "bold")
    out.print(Text.assemble(title, f"  {name_of(row)}  ", (row.status, STYLES.get(row.status, ""))))
    cost = [count(row.tokens, "token")] if row.tokens else []
    cost += [dollars(row.usd)] if row.usd else []
    for name, said in (
        ("call", f"number {row.n + 1} of its name{'' if row.key is None else ' and key'} there" if row.name else ""),
        ("inside", escaped(row.scope)),
        ("branch", escaped(row.branch)),
        ("started", f"{local(row.started_ms)}, took {seconds(row.duration_ms / 1000)}"),
        ("attempts", str(row.attempts) if row.attempts > 1 else ""),
        ("cost", ", ".join(cost)),
        ("inputs", fields(plain["inputs"], 2000) if plain["inputs"] else ""),
        ("result", short(plain["result"], 2000) if plain["result"] is not None else ""),
        ("state", _changed("changed", plain["state_changed"])),
        ("", _changed("before it, the workflow's body changed", plain["state_changed_before"])),
    ):
        _print_field(name, said)
    if plain["error"]:
        _print_field("error", plain["error"], "red")
        _print_traceback(trace)
    for k, said in enumerate(why):
        _print_field("why" if k == 0 else "", said)


def _why(shown: Shown, row: Checkpoint) -> list[str]:
    """Process by process, whether the step was run or recalled, and for what reason."""
    if row.kind == BEGINS:
        return [new_version(row)]
    attempt = present(shown.rows)
    if row not in attempt:
        after_it = next(each for each in shown.rows if each.kind == BEGINS and each.seq > row.seq)
        return [f"of an earlier attempt, which ended with checkpoint {after_it.seq}: {new_version(after_it)}"]
    if not row.attempts:
        return [f"not run: kept from checkpoint {kept_from(row)}, of an earlier attempt under other code"]
    same = [each for each in attempt if _place(each) == _place(row) and each.kind != "save" and each.status not in OPEN]
    before = [each for each in same if each.seq < row.seq]
    after = [each for each in same if each.seq > row.seq]
    anew = shown.failure is not None and row.seq in shown.failure.seqs
    around = stands_for(row, shown.rows)
    unclaimed = unclaimed_in(shown.rows)[0]
    said: list[str] = []
    for process in shown.processes:
        who = process_of(process.owner)
        if process.epoch < row.epoch:
            continue
        if process.epoch == row.epoch:
            said.append(f"run by {who}: {_reason(row, before)}")
        elif row.kind == "save" or row.status in ("intent", "not_done", "repair"):
            continue
        elif after and process.epoch >= after[0].epoch:
            said.append(f"run again by {who}, as checkpoint {after[0].seq}: a failure that ended the run is tried anew")
            break
        elif anew:
            said.append(f"to be run again by {who}: a failure that ended the run is tried anew")
        elif not process.saved.steps and not process.rows:
            said.append(f"{who} ended before it was certain to have come here")
        elif row.seq in unclaimed and process is shown.processes[-1]:
            said.append(f"not asked for by {who}: the code takes another way now")
        elif around is not None:
            said.append(f"not asked for by {who}: {name_of(around)} (checkpoint {around.seq}) around it is finished")
        else:
            said.append(f"recalled by {who}: its outcome stood at this place, and is never executed again")
    return said


def _place(row: Checkpoint) -> tuple[Any, ...]:
    return row.scope, row.branch, row.name, row.key, row.n


def _reason(row: Checkpoint, before: list[Checkpoint]) -> str:
    if row.kind == "save":
        return "it saved the state"
    if row.status in OPEN:
        return {
            "waiting": "it began to wait there",
            "intent": "it was about to execute it, and wrote that down first",
            "not_done": "what it was about to execute certainly has not happened",
            "repair": "a person has replaced a row that was damaged",
        }.get(row.status, "what came was none of what it waits for")
    if before:
        return f"checkpoint {before[-1].seq}, its failure before, ended the run and was tried anew"
    return "nothing was recorded of this call yet"
