"""``holdfast worker``: advance the runs of a store's queues until told to stop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from holdfast import known, lease
from holdfast.app import Holdfast
from holdfast.cli.agents import Agents, agents_named
from holdfast.cli.finding import LISTED, has_workflows, module_named, modules_of_project
from holdfast.cli.options import opened
from holdfast.cli.problems import DONE, INTERRUPTED, TERMINATED, Problem
from holdfast.definition import DEFAULT_QUEUE, refuse_queue
from holdfast.logs import LogFilter
from holdfast.store.urls import parse_url
from holdfast.worker import Queue, Worker

_log = logging.getLogger("holdfast")


def _queues(_: object, option: click.Parameter, given: tuple[str, ...]) -> list[Queue]:
    """``Q`` or ``Q:LIMIT``, each once."""
    queues: list[Queue] = []
    for text in given:
        name, colon, limit = text.partition(":")
        try:
            refuse_queue(name)
        except ValueError as unfit:
            raise click.BadParameter(f"{text!r}: {unfit}.") from None
        if colon and not (limit.isascii() and limit.isdigit() and int(limit) > 0):
            raise click.BadParameter(f"{text!r}: a limit is a whole number from 1, as in {name}:10.")
        queues.append(Queue(name, int(limit) if colon else None))
    twice = [name for name, times in Counter(queue.name for queue in queues).items() if times > 1]
    if twice:
        raise click.BadParameter(f"queue {twice[0]!r} is named twice.")
    return queues


@click.command("worker")
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@click.option(
    "--adk", metavar="MODULE:APP",
    help="An App or Runner of Google ADK: its abandoned invocations are resumed, in the store of its plugin.",
)  # fmt: skip
@click.option("--concurrency", type=click.IntRange(min=1), default=10, show_default=True, help="Runs at once.")
@click.option(
    "--queue", "queues", multiple=True, metavar="Q[:LIMIT]", callback=_queues,
    help="A queue to serve, the first one first; LIMIT: its runs at once over all workers. [default: default]",
)  # fmt: skip
@click.option(
    "--grace", type=click.FloatRange(min=0), default=25, show_default=True, metavar="SECONDS",
    help="After SIGTERM: how long steps in flight may go on.",
)  # fmt: skip
@click.option(
    "--lease", "lease_s", type=click.FloatRange(lease.SECONDS_MIN, lease.SECONDS_MAX), default=10, show_default=True,
    metavar="SECONDS", help="How long a run stays with this worker when nothing is heard of its machine.",
)  # fmt: skip
@click.option(
    "--alive", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Touched at each heartbeat that reached the store.",
)  # fmt: skip
@click.option("--store", metavar="URL", help="Where the runs are kept. [default: $HOLDFAST_URL, else holdfast.db]")
@click.option("--json", "as_json", is_flag=True, help="Log lines as JSON objects.")
def worker_command(
    modules: tuple[str, ...],
    adk: str | None,
    concurrency: int,
    queues: list[Queue],
    grace: float,
    lease_s: float,
    alive: Path | None,
    store: str | None,
    as_json: bool,
) -> int:
    """Advance the runs of a store, submitted and abandoned ones, until SIGTERM or Ctrl-C.

    MODULE is a module (jobs.loans) or a file (jobs/loans.py): the worker takes runs of the workflows in it, and in what
    it imports. Without one, and without --adk, they are those that pyproject.toml names ([tool.holdfast] modules =
    [...]).
    """
    _log_to_stderr(as_json)
    agents = None
    if adk is not None:
        _refuse_beside_adk("store", "lease_s")
        agents = agents_named(adk)
    if modules or agents is None:
        _import(modules)
    queues = _served(queues, agents, has_modules=bool(modules))
    with opened(store, lease=lease_s) if agents is None else agents.opened() as hf:
        if parse_url(hf.url).kind == "memory":
            raise Problem("a store in memory has no runs but those of its own process; name one that others can reach.")
        if alive is not None:
            _touch(alive)

        async def work() -> int:
            loop = asyncio.get_running_loop()
            # The default is a few more than there are processors; plain def steps wait for more than those.
            threads = concurrent.futures.ThreadPoolExecutor(
                max(32, concurrency + 4), thread_name_prefix="holdfast-step"
            )
            loop.set_default_executor(threads)
            beat = partial(_touch_quietly, alive) if alive is not None else None
            adapted = {} if agents is None else agents.adapted
            worker = Worker(hf, queues, concurrency=concurrency, grace_s=grace, alive=beat, adapted=adapted)
            code = TERMINATED
            asked = 0

            def end(number: int) -> None:
                nonlocal code, asked
                asked += 1
                code = INTERRUPTED if number == signal.SIGINT else TERMINATED
                worker.drain()

            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(NotImplementedError):  # Windows
                    loop.add_signal_handler(number, end, number)
            async with hf, agents.runner if agents is not None else contextlib.nullcontext():
                _log.info("worker: %s", _described(hf, queues, concurrency, worker.names))
                finished = await worker.serve()
            _log.info("worker: %s", "ended" if finished else "ended, with steps in flight that are executed again")
            if not finished:
                _leave_at_once(code)  # a step in a thread cannot be stopped, and must not keep the process
            return DONE

        return _driven(work)


def _refuse_beside_adk(*options: str) -> None:
    context = click.get_current_context()
    for name in options:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.partition('_')[0]}"
            raise Problem(f"{option} does not go with --adk: the app's HoldfastPlugin says which store, and how long.")


def _served(named: list[Queue], agents: Agents | None, *, has_modules: bool) -> list[Queue]:
    queues = named or ([Queue(DEFAULT_QUEUE)] if has_modules or agents is None else [])
    if agents is None or any(queue.name == agents.queue for queue in queues):
        return queues
    return [*queues, Queue(agents.queue)]


def _described(hf: Holdfast, queues: list[Queue], concurrency: int, served: set[str]) -> str:
    named = ", ".join(queue.name + (f" (at most {queue.limit} at once)" if queue.limit else "") for queue in queues)
    names = sorted(served)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{lease.process_of(hf.owner)} serves {named} of {hf.url}, {concurrency} runs at once: " + (
        ", ".join(names[:LISTED]) + more
    )


def _import(modules: tuple[str, ...]) -> None:
    given = modules or tuple(modules_of_project())
    if not given:
        raise Problem(
            "name the modules (or files) with the workflows to serve: `holdfast worker jobs.loans`; or name them in "
            'pyproject.toml: [tool.holdfast] modules = ["jobs.loans"].'
        )
    for name in given:
        before = known.names()
        module = module_named(name)
        if known.names() == before and not has_workflows(module):
            raise Problem(f"{name} has no workflow that a worker could run. Mark a function of it with @workflow.")


def _touch(path: Path) -> None:
    try:
        path.touch()
    except OSError as error:
        raise Problem(f"--alive {path} cannot be written: {error}.") from None


def _touch_quietly(path: Path) -> None:
    """The probe sees that it is not touched; the log says why."""
    try:
        path.touch()
    except OSError as error:
        _log.warning("worker: %s cannot be touched: %s", path, error)


# -- the loop, and its end ---------------------------------------------------------------------------------


def _driven(work: Callable[[], Any]) -> int:
    with asyncio.Runner() as runner:
        working: asyncio.Task[int] | None = None

        async def joined() -> int:
            nonlocal working
            if working is None:
                working = asyncio.create_task(work())
            return await asyncio.shield(working)

        while True:
            try:
                return runner.run(joined())
            except (SystemExit, KeyboardInterrupt) as left:
                # Of a run's own code: asyncio lets it end the loop, and the others go on. (Ctrl-C is a signal that is
                # handled; where it cannot be, the runner raises it in the place of a cancellation.)
                if working is None or working.done() or isinstance(left.__context__, asyncio.CancelledError):
                    raise
                _log.error("worker: a run raised %r in its own code", left)


def _leave_at_once(code: int) -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


# -- log lines ---------------------------------------------------------------------------------------------


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "run": getattr(record, "run_id", ""),
            "step": getattr(record, "step", ""),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _log_to_stderr(as_json: bool) -> None:
    """Before the modules are imported: what they set up for themselves stands beside it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(LogFilter())
    handler.setFormatter(_Json() if as_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    _log.setLevel(logging.INFO)
