"""``holdfast run`` and ``holdfast resume``: advance runs, and tell how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import click
import msgspec
from rich.text import Text

from holdfast import codec, lease
from holdfast.admission import ID_FORM, is_id
from holdfast.app import Holdfast
from holdfast.cli.arguments import parse_arguments
from holdfast.cli.finding import definition_of, workflow_named, workflow_of_run
from holdfast.cli.options import opened, run_named, shared, store_hint
from holdfast.cli.printing import complain, console, lines, print_json, print_value, short
from holdfast.cli.problems import DONE, FAILED, INTERRUPTED, STOPPED, TERMINATED, USAGE, Problem, code_of
from holdfast.cli.progress import Progress, on_stderr
from holdfast.errors import Busy, HoldfastError, StoreError
from holdfast.failure import Failure
from holdfast.known import call_again
from holdfast.records import count
from holdfast.store import RunRow
from holdfast.workflow import Call

AT_ONCE = 8  # runs that `resume --all` advances concurrently
PAGE = 200


class Outcome(msgspec.Struct):
    """What became of one run in this command; what ``--json`` prints of it."""

    id: str
    workflow: str
    status: str
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    executed: int = 0
    recalled: int = 0
    code: int = DONE


def _printable(_: object, option: click.Parameter, id: str) -> str:
    if not is_id(id):
        raise click.BadParameter(f"{id!r:.200} cannot name a run: an id is {ID_FORM}.")
    return id


@click.command("run")
@click.argument("target", metavar="MODULE:WORKFLOW")
@click.argument("args", nargs=-1, metavar="[ARG | NAME=VALUE]...")
@click.option(
    "--id", "id", required=True, callback=_printable, help="What makes it the same job: the same id resumes it."
)
@click.option("--no-wait", is_flag=True, help="If another process advances the run, say so instead of waiting for it.")
@shared
def run_command(target: str, args: tuple[str, ...], id: str, no_wait: bool, store: str | None, as_json: bool) -> int:
    """Start a run, resume it, or print what it returned: the same line.

    MODULE is a module (jobs.loans) or a file (jobs/loans.py). ARGs are converted by the annotations of the workflow;
    lists, dicts and dataclasses are written as JSON, negative numbers as NAME=-1.
    """
    workflow = workflow_named(target)
    positional, named = parse_arguments(definition_of(workflow), args)
    return _advance_one(lambda _: (id, workflow.bind(*positional, **named)), store, as_json, wait=not no_wait, new=True)


@click.command("resume")
@click.argument("id", required=False)
@click.option("--all", "all_", is_flag=True, help="Every unfinished run that no living process advances.")
@click.option("--failed", is_flag=True, help="With --all: those that failed, too.")
@click.option("--no-wait", is_flag=True, help="If another process advances the run, say so instead of waiting for it.")
@shared
def resume_command(id: str | None, all_: bool, failed: bool, no_wait: bool, store: str | None, as_json: bool) -> int:
    """Carry on with a run whose process died, stopped or failed.

    Its workflow is looked for in the module it was started from, then in the file, then in the modules that
    pyproject.toml names ([tool.holdfast] modules = [...]).
    """
    if (id is None) != all_:
        raise Problem("name the run to resume, or say --all." if id is None else "name one run or say --all, not both.")
    if id is None:
        return _advance_all(store, as_json, failed=failed)
    return _advance_one(lambda hf: _again(hf, id, store), store, as_json, wait=not no_wait, new=False)


def _again(hf: Holdfast, id: str, store: str | None) -> tuple[str, Call[Any] | Outcome]:
    row = run_named(hf, id, store)
    if row.status == "done" and row.workflow:  # its code is not needed for that
        result = codec.readable(row.result or b"")
        return id, Outcome(id=id, workflow=row.workflow, status="done", result=result)
    return id, _call_of(row)


def _call_of(row: RunRow) -> Call[Any]:
    if not row.workflow:
        raise Problem(f"{row.id!r} is a session: the program that opens it again carries on with it.")
    return call_again(workflow_of_run(row), row)


# -- one run -----------------------------------------------------------------------------------------------


def _advance_one(
    wanted: Callable[[Holdfast], tuple[str, Call[Any] | Outcome]],
    store: str | None,
    as_json: bool,
    *,
    wait: bool,
    new: bool,
) -> int:
    progress = on_stderr()
    with opened(store, existing=not new) as hf, progress.shown(), _prints_to_stderr(as_json):
        hf._observer = progress
        id, call = wanted(hf)

        async def work() -> Outcome:
            async with hf:
                return call if isinstance(call, Outcome) else await _advance(hf, id, call, progress, wait=wait)

        outcome: Outcome | Interruption = _driven(work)
    if isinstance(outcome, Interruption):
        return _say_interrupted(outcome, f"run {id}", as_json, {"id": id, "status": "running"})
    if as_json:
        print_json({name: value for name, value in msgspec.structs.asdict(outcome).items() if name != "code"})
    elif outcome.code == DONE:
        print_value(outcome.result)
    else:
        where = f"`holdfast show {shlex.quote(id)}{store_hint(store)}` shows where."
        complain(f"{outcome.error}\n{where}" if outcome.status == "failed" else f"{outcome.error}")
    return outcome.code


async def _advance(hf: Holdfast, id: str, call: Call[Any], progress: Progress, *, wait: bool) -> Outcome:
    """``hf.run``, with whatever comes of it as an ``Outcome``."""
    definition = call.definition
    outcome = Outcome(id=id, workflow=definition.name, status="done")
    try:
        before = await hf._read(hf._store.get, id)
        value = await hf.run(call, id=id, wait=wait)
        outcome.result = codec.readable(codec.encode(value, definition.result_types, f"the result of run {id!r}"))
        if before is not None and before.status == "done":
            progress.console.print(f"run {id}: done before; this is what it returned", style="dim", markup=False)
    except Exception as error:
        await _explain(hf, outcome, error, began=id in progress.runs)
    finally:
        call.close()
        progress.ended(id)
        if (live := progress.runs.get(id)) is not None:
            outcome.executed, outcome.recalled = live.executed, live.recalled
    return outcome


async def _explain(hf: Holdfast, outcome: Outcome, error: Exception, *, began: bool) -> None:
    """Whether the workflow failed, or holdfast could not go on with it."""
    outcome.error, outcome.error_type = str(error) or repr(error), type(error).__name__
    if isinstance(error, Busy):
        outcome.error = outcome.error.replace("wait=False", "--no-wait")
    row = None
    with contextlib.suppress(HoldfastError):
        row = await hf._read(hf._store.get, outcome.id)
    outcome.status = "unknown" if row is None else row.status
    outcome.code = code_of(error) if isinstance(error, HoldfastError) else FAILED
    if began and isinstance(error, StoreError):
        outcome.code = STOPPED
    if row is not None and row.status == "failed" and row.error:
        failure = Failure.decode(row.error, f"run {outcome.id!r}, its error")
        if failure.said == str(error):
            outcome.code = FAILED
            outcome.error = f"run {outcome.id!r} failed: {failure}"
    elif row is None and outcome.code == STOPPED:
        outcome.code = USAGE  # it never began


# -- every run ---------------------------------------------------------------------------------------------


def _advance_all(store: str | None, as_json: bool, *, failed: bool) -> int:
    progress = on_stderr(several=True)
    with opened(store) as hf, progress.shown(), _prints_to_stderr(as_json):
        hf._observer = progress
        calls: list[tuple[str, Call[Any]]] = []
        outcomes: list[Outcome] = []
        for row in _unfinished(hf, failed=failed):
            try:
                calls.append((row.id, _call_of(row)))
            except (Problem, HoldfastError) as problem:
                said = problem.format_message() if isinstance(problem, Problem) else str(problem)
                outcomes.append(Outcome(row.id, row.workflow, row.status, None, said, "NotFound", code=USAGE))

        async def work() -> None:
            limit = asyncio.Semaphore(AT_ONCE)

            async def one(id: str, call: Call[Any]) -> None:
                async with limit:
                    outcomes.append(await _advance(hf, id, call, progress, wait=False))

            async with hf:
                try:
                    await asyncio.gather(*(one(id, call) for id, call in calls))
                finally:
                    for _, call in calls:
                        call.close()

        interruption = _driven(work)
    if interruption is not None:
        return _say_interrupted(interruption, "all of them", as_json, {"runs": _plain(outcomes), "status": "running"})
    _report_all(outcomes, as_json)
    codes = {outcome.code for outcome in outcomes if outcome.error_type != "Busy"}
    return next((code for code in (FAILED, USAGE, STOPPED) if code in codes), DONE)


def _unfinished(hf: Holdfast, *, failed: bool) -> list[RunRow]:
    """Runs to carry on with, oldest first: not finished, and with no living process that advances them."""
    found: list[RunRow] = []
    for status in ("running", "waiting", "parked", "in_doubt", *(["failed"] if failed else [])):
        after: int | None = None
        while rows := hf._store.runs(status=status, workflow=None, limit=PAGE, after=after):
            after = rows[-1].no
            found.extend(row for row in rows if row.workflow and not _is_alive(hf, row))
    return sorted(found, key=lambda row: row.no)


def _is_alive(hf: Holdfast, row: RunRow) -> bool:
    return row.owner is not None and row.lease_until_ms > hf._store.now_ms() and not lease.is_dead(row.owner)


def _plain(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in msgspec.structs.asdict(each).items() if name != "code"} for each in outcomes
    ]


def _report_all(outcomes: list[Outcome], as_json: bool) -> None:
    if as_json:
        print_json({"runs": _plain(outcomes)})
        return
    if not outcomes:
        print(
            "nothing to resume: every run has ended, or a living process advances it (--failed tries failed ones anew)"
        )
    for each in outcomes:
        steps = f"{count(each.executed, 'step')} executed, {each.recalled} recalled"
        print(f"{each.id}  {each.status}  {steps if each.error is None else short(each.error, 500)}")


# -- the loop, and its end ---------------------------------------------------------------------------------


class Interruption(NamedTuple):
    """What ended the loop before the work was done; the leases were handed back."""

    code: int
    how: str
    error_type: str = "Interrupted"


def _driven(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run to its end, or until Ctrl-C, SIGTERM or a ``sys.exit`` in the program: what it returned, or that."""
    terminated = False

    async def main() -> Any:
        task = asyncio.current_task()
        assert task is not None

        def stop() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        with contextlib.suppress(NotImplementedError, AttributeError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await work()

    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        return Interruption(INTERRUPTED, "interrupted")
    except SystemExit as error:
        return Interruption(STOPPED, f"stopped by {error!r} in its own code", "SystemExit")
    except asyncio.CancelledError:
        if not terminated:
            raise
        return Interruption(TERMINATED, "interrupted")


def _say_interrupted(by: Interruption, what: str, as_json: bool, found: dict[str, Any]) -> int:
    if as_json:
        print_json({**found, "error": by.how, "error_type": by.error_type})
    again = Text(f"{lines(by.how)}; {what} can be carried on with: run the same line again")
    console(sys.stderr).print(again, soft_wrap=True)
    return by.code


@contextlib.contextmanager
def _prints_to_stderr(wanted: bool) -> Iterator[None]:
    """With ``--json`` standard output is the object's alone; what the workflow prints goes to standard error."""
    if not wanted:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield
