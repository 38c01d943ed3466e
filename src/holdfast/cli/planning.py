"""``holdfast plan``: what the code of workflows would do with recorded runs. Nothing is executed or written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import groupby
from types import ModuleType
from typing import Any

import click
from rich.text import Text

from holdfast.app import Holdfast
from holdfast.cli.finding import module_named, workflows_in
from holdfast.cli.looking import STYLES
from holdfast.cli.options import opened, run_named, shared
from holdfast.cli.printing import console, escaped, fields, print_json
from holdfast.cli.problems import Problem
from holdfast.errors import HoldfastError
from holdfast.known import call_again, marked_here, place_of
from holdfast.planning import Plan, plan_run, unwritten, unwritten_blobs
from holdfast.records import count, refuse_damaged
from holdfast.rehearsal import Unrecorded
from holdfast.store import FINISHED, Checkpoint, RunRow
from holdfast.workflow import Workflow

RECALLED, DIVERGES, UNCLAIMED, UNKNOWN, UNUSABLE = 0, 1, 2, 3, 64
WORST = (RECALLED, UNCLAIMED, UNKNOWN, DIVERGES)  # from the best to the worst
SAID = {
    RECALLED: ("recalled", "green"),
    UNCLAIMED: ("unclaimed", "yellow"),
    UNKNOWN: ("unknown", "yellow"),
    DIVERGES: ("diverges", "red"),
}
_LINES_MAX = 20
_PAGE = 200  # runs that are read at once
_INPUTS_MAX = 60


class _Unusable(Problem):
    """2 is one of the answers of a plan, so what is wrong with the line is another number."""

    exit_code = UNUSABLE


class _Misused(click.UsageError):
    exit_code = UNUSABLE


class _Command(click.Command):
    def make_context(self, *args: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise _Misused(error.format_message(), error.ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _Unusable(error.format_message()) from error
        except HoldfastError as error:
            raise _Unusable(str(error)) from error


@click.command("plan", cls=_Command)
@click.argument("id", required=False)
@click.option("--against", "modules", multiple=True, metavar="MODULE", help="The code: a module or file. [repeatable]")
@click.option("--all-live", is_flag=True, help="Plan every unfinished run of the modules' workflows.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Seconds for each run."
)
@shared
def plan_command(
    id: str | None, modules: tuple[str, ...], all_live: bool, timeout: float, store: str | None, as_json: bool
) -> int:
    """What the code in MODULE would do with a run, before it is deployed.

    Runs the workflow's own code against the record: recorded calls are recalled, no step is executed, nothing is
    written, and whoever advances the run is not disturbed.

    Exit codes: 0 all records are recalled, up to where the code would go on; 1 it diverges; 2 records are left that no
    call asked for; 3 the record cannot be read, or the code did not come to rest; 64 nothing was planned. Of several
    runs the worst: 1, 3, 2, 0.
    """
    if (id is None) != all_live:
        raise Problem("Name one run, or say --all-live: `holdfast plan ID --against MODULE`.")
    if not modules:
        raise Problem("Say with --against MODULE (jobs.loans, or jobs/loans.py) which code is to be planned.")
    with redirect_stdout(sys.stderr):
        found = {_name(workflow): workflow for module in map(module_named, modules) for workflow in _of(module)}
    with opened(store) as hf:
        home = Holdfast(unwritten(hf._store), blobs=unwritten_blobs(hf._blobs))
        rows = _live(hf, list(found)) if id is None else iter([run_named(hf, id, store)])
        with redirect_stdout(sys.stderr):  # what the code prints on its way
            plans = [_planned(home, row, found, modules, timeout) for row in rows]
    codes = [_code_of(plan) for plan in plans]
    worst = max(codes, key=WORST.index, default=RECALLED)
    if as_json:
        plain = [_plain(plan, code) for plan, code in zip(plans, codes, strict=True)]
        print_json({"plans": plain, "exit_code": worst} if all_live else plain[0])
    else:
        for plan, code in zip(plans, codes, strict=True):
            _print(plan, code)
        if all_live:
            console().print(_sum(codes))
    if any(plan.hanging for plan in plans):
        sys.stdout.flush()
        os._exit(worst)  # the interpreter would wait for code that does not end
    return worst


# -- which runs, and which code ----------------------------------------------------------------------------


def _name(workflow: Workflow) -> str:
    return workflow._definition.name


def _of(module: ModuleType) -> list[Workflow]:
    """Its workflows, those it imports, and those of the modules in it, if it is a package."""
    below = [each for each in marked_here() if f"{place_of(each)[0]}.".startswith(f"{module.__name__}.")]
    found = [*below, *workflows_in(module)]
    if not found:
        raise Problem(f"{module.__name__} has no workflow; mark one with @workflow, or name the module that has.")
    return found


def _live(hf: Holdfast, names: list[str]) -> Iterator[RunRow]:
    """The unfinished runs of these workflows, newest first."""
    for name in names:
        after: int | None = None
        while rows := hf._store.runs(status=None, workflow=name, limit=_PAGE, after=after):
            yield from (row for row in rows if row.status not in FINISHED)
            after = rows[-1].no


def _planned(
    home: Holdfast, row: RunRow, found: dict[str, Workflow], modules: tuple[str, ...], timeout_s: float
) -> Plan:
    workflow = found.get(row.workflow)
    if workflow is None:
        known = ", ".join(sorted(found))
        raise Problem(
            f"run {row.id!r} is one of workflow {row.workflow!r}, which is not in {', '.join(modules)} ({known})."
        )
    try:
        refuse_damaged(row)
        call = call_again(workflow, row)
    except HoldfastError as unfit:  # its arguments: the run would be parked with this
        return Plan(row, stopped=f"{type(unfit).__name__}: {unfit}")
    return plan_run(home, row, call, timeout_s=timeout_s)


def _code_of(plan: Plan) -> int:
    if plan.diverged is not None:
        return DIVERGES
    if plan.stopped is not None or plan.hanging:
        return UNKNOWN
    return UNCLAIMED if plan.unclaimed else RECALLED


# -- what is said ------------------------------------------------------------------------------------------


def _print(plan: Plan, code: int) -> None:
    out, row = console(), plan.run
    verdict = SAID[code]
    status = (row.status, STYLES.get(row.status, ""))
    out.print(Text.assemble((escaped(row.id), "bold"), "  ", verdict, f"  {escaped(row.workflow)}, ", status))
    for label, said in _told(plan):
        for k, line in enumerate(said.splitlines()):
            out.print(Text(f"  {label if k == 0 else '':<11} ", "dim").append(line, ""), soft_wrap=True)


def _told(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.version:
        yield "version", plan.version
    if plan.run.status == "done":
        yield "done", "its saved result is what it returns, under any code; this is what its code would do anew"
    yield "recalled", count(plan.recalled, "call")
    if plan.kept:
        yield "kept", f"{count(plan.kept, 'result')} of the other version"
    yield from _would(plan.would)
    if plan.ended is not None:
        yield "ends", plan.ended + (f" with {plan.error}" if plan.error else "")
    elif plan.would:
        yield "unknown", "what comes behind what would be run"
    yield from (("unclaimed", _row(row)) for row in plan.unclaimed[:_LINES_MAX])
    if len(plan.unclaimed) > _LINES_MAX:
        yield "", f"and {len(plan.unclaimed) - _LINES_MAX:,} more"
    if plan.unreached:
        names = ", ".join(_row(row) for row in plan.unreached[:3]) + (", …" if len(plan.unreached) > 3 else "")
        yield "unreached", f"{count(len(plan.unreached), 'record')} that what would be run may ask for: {names}"
    if plan.diverged:
        yield "diverges", plan.diverged
    if plan.stopped:
        yield "stops", plan.stopped
    for line in plan.hanging:
        yield "hangs", f"at {line}"
    if plan.hanging:
        yield "", "It waits there for something that is no step, or does not end. Give it more time with --timeout, or"
        yield "", "make what it waits for a step."


def _would(calls: list[Unrecorded]) -> Iterator[tuple[str, str]]:
    """One line for all calls of one name in a row."""
    groups = [
        list(each) for _, each in groupby(calls, key=lambda call: (call.kind, call.name, call.again, call.in_doubt))
    ]
    for group in groups[:_LINES_MAX]:
        first = group[0]
        label = "would wait" if first.kind in ("sleep", "signal") else "in doubt" if first.in_doubt else "would run"
        what = {"sleep": "sleep", "signal": f"for signal {first.name}", "run": f"run of {first.name}"}
        inputs = f"({fields(first.inputs, _INPUTS_MAX)})" if first.kind != "signal" else ""
        many = f" ×{len(group):,}, first" if len(group) > 1 else ""
        again = ", whose failure is tried anew" if first.again else ""
        where = "".join(f", {each}" for each in (first.place, first.line.place if first.line else "") if each)
        yield label, escaped(f"{what.get(first.kind, f'{first.kind} {first.name}')}{many}{inputs}{again}{where}")
    if len(groups) > _LINES_MAX:
        yield "", f"and {sum(map(len, groups[_LINES_MAX:])):,} more calls"


def _row(row: Checkpoint) -> str:
    return escaped(f"checkpoint {row.seq} ({row.key if row.kind == 'run' else row.name})")


def _sum(codes: list[int]) -> str:
    told = [f"{codes.count(code)} {SAID[code][0]}" for code in reversed(WORST) if codes.count(code)]
    return f"{count(len(codes), 'unfinished run')}{': ' if told else ''}{', '.join(told)}"


def _plain(plan: Plan, code: int) -> dict[str, Any]:
    return {
        "id": plan.run.id,
        "workflow": plan.run.workflow,
        "status": plan.run.status,
        "verdict": SAID[code][0],
        "exit_code": code,
        "version": plan.version,
        "recalled": plan.recalled,
        "kept": plan.kept,
        "would_run": [_plain_call(each) for each in plan.would if each.kind not in ("sleep", "signal")],
        "would_wait": [_plain_call(each) for each in plan.would if each.kind in ("sleep", "signal")],
        "ends": plan.ended,
        "error": plan.error,
        "unclaimed": [_plain_row(row) for row in plan.unclaimed],
        "unreached": [_plain_row(row) for row in plan.unreached],
        "diverges": plan.diverged,
        "stops": plan.stopped,
        "hangs": plan.hanging,
    }


def _plain_call(call: Unrecorded) -> dict[str, Any]:
    line = call.line.place if call.line is not None else None
    return {
        "kind": call.kind,
        "name": call.name,
        "call": call.call,
        "place": call.place,
        "inputs": call.inputs,
        "line": line,
        "again": call.again,
        "in_doubt": call.in_doubt,
    }


def _plain_row(row: Checkpoint) -> dict[str, Any]:
    return {"seq": row.seq, "kind": row.kind, "name": row.name, "n": row.n, "key": row.key, "scope": row.scope}
