"""What a run is doing, told while it does it: live on a terminal, line by line into a file or a pipe."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from holdfast import codec
from holdfast.cli.printing import console, escaped, lines, seconds, short
from holdfast.cli.waiting import said_of
from holdfast.news import Told
from holdfast.recall import scope_of
from holdfast.records import count, failure_text
from holdfast.run import LiveRun
from holdfast.store import Checkpoint

LINES_A_NAME = 12  # of one step; what comes after is counted
RUNNING_SHOWN = 6
TALLY_EVERY_S = 2.0
PREVIEW_ROOM = 20  # columns beside a preview: sign, name, duration


class Progress:
    """The observer of runs (``Holdfast._observer``), and the handler of their log lines."""

    def __init__(self, target: Console, *, several: bool = False) -> None:
        self.console = target
        self.several = several  # more than one run: each line says whose it is
        self.runs: dict[str, LiveRun] = {}
        self.executed: Counter[str] = Counter()
        self.recalled: Counter[str] = Counter()
        self.recalled_s = 0.0
        self._running: dict[int, tuple[LiveRun, Checkpoint, float]] = {}
        self._bars: dict[tuple[str, str], tuple[float, float]] = {}  # by run and place, how far a step says it is
        self._lines: Counter[tuple[str, str]] = Counter()
        self._began = self._tallied = time.monotonic()
        self._signs = signs(target.encoding)
        self._spinner = Spinner("dots" if self._signs is SIGNS else "line")

    def __call__(self, event: str, run: LiveRun, row: Checkpoint | Told) -> None:
        """Told by the run, on its loop, or, of news, on the thread that tells. Nothing here may raise: it would be the
        run's.
        """
        self.runs[run.id] = run
        if isinstance(row, Told):
            if not isinstance(row.said, bytes):
                self._bars[run.id, row.place] = row.said
            return
        with contextlib.suppress(Exception):
            if event == "began":
                self._running[id(row)] = (run, row, time.monotonic())
                if not self.console.is_terminal:
                    self._line(run, row, event, "")
            elif event == "waiting":
                self._line(run, row, event, "")
            elif event in ("recalled", "kept"):
                self.recalled[row.name] += 1
                if not row.scope:
                    self.recalled_s += row.duration_ms / 1000
                self._line(run, row, event, "recalled" if event == "recalled" else "kept from another version")
            else:
                self.executed[row.name] += row.kind in ("step", "workflow")
                self._running.pop(id(row), None)
                self._bars.pop((run.id, _place_of(row)), None)
                took = seconds(row.duration_ms / 1000)
                again = f" (attempt {row.attempts})" if row.attempts > 1 else ""
                self._line(run, row, row.status, took + again)

    def ended(self, id: str) -> None:
        """Steps that the end of their run cut off are not running any more."""
        for held, (run, _, _) in list(self._running.items()):
            if run.id == id:
                del self._running[held]

    def _line(self, run: LiveRun, row: Checkpoint, event: str, how: str) -> None:
        kind = (row.name, event)
        self._lines[kind] += 1
        if self._lines[kind] > LINES_A_NAME and event != "failed":
            self._tally()
            return
        sign, style = self._signs[event]
        depth = 1 + row.scope.count(" > ") if row.scope else 0
        if event == "waiting":
            said = Text(said_of(row, 2 * self.console.width) or escaped(row.name))
        else:
            said = _outcome(row, how, self.console.width) if how else Text(escaped(row.name))
        text = Text.assemble("  " * (depth + 1), (f"{sign} ", style), said)
        if self.several:
            text = Text.assemble((f"{run.id}", "bold"), text)
        self.console.print(text, soft_wrap=True)

    def _tally(self) -> None:
        """Many calls of one step: now and then a line says how far they are (a terminal has it below all the time)."""
        now = time.monotonic()
        if self.console.is_terminal or now - self._tallied < TALLY_EVERY_S:
            return
        self._tallied = now
        self.console.print(Text(f"  … {self.summary()}"), soft_wrap=True)

    def summary(self) -> str:
        parts = [f"{count(self.executed.total(), 'step')} done"]
        if self.recalled:
            parts.append(f"{self.recalled.total()} recalled")
        if self._running:
            parts.append(f"{len(self._running)} running")
        return ", ".join([*parts, seconds(time.monotonic() - self._began)])

    def __rich__(self) -> Group:
        """What stands below the lines while a terminal watches."""
        running = list(self._running.values())
        now = time.monotonic()
        table = Table.grid(padding=(0, 1))
        for run, row, since in running[-RUNNING_SHOWN:]:
            whose = escaped(f"{run.id}  {row.name}" if self.several else row.name)
            again = f"  attempt {row.attempts}" if row.attempts > 1 else ""
            told = self._bars.get((run.id, _place_of(row)))
            took = Text(seconds(now - since) + again, "dim")
            table.add_row(" ", self._spinner, Text(whose), took, *(bar(*told) if told is not None else ()))
        more = len(running) - RUNNING_SHOWN
        if more > 0:
            table.add_row(" ", " ", Text(f"… and {more} more", "dim"))
        return Group(table, Text(f"  {self.summary()}", "dim"))

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """While this is open, lines and (on a terminal) what is running are shown, and holdfast's log with them."""
        handler = _LogLines(self.console)
        log = logging.getLogger("holdfast")
        before = (log.level, log.propagate)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            if self.console.is_terminal:
                # What the workflow prints goes above the moving part; into a pipe it goes as ever.
                with Live(
                    self,
                    console=self.console,
                    refresh_per_second=8,
                    transient=True,
                    redirect_stdout=sys.stdout.isatty(),
                ):
                    yield
            else:
                yield
        finally:
            log.removeHandler(handler)
            log.setLevel(before[0])
            log.propagate = before[1]


class _LogLines(logging.Handler):
    def __init__(self, target: Console) -> None:
        super().__init__(logging.INFO)
        self._console = target

    def emit(self, record: logging.LogRecord) -> None:
        style = "dim" if record.levelno < logging.WARNING else "yellow"
        self._console.print(Text(lines(record.getMessage()), style), soft_wrap=True)


def bar(done: float, total: float) -> tuple[ProgressBar, Text]:
    """How far something is, as cells of a table: a bar, and the numbers."""
    return ProgressBar(total=max(total, 1e-9), completed=done, width=24), Text(f"{done:g} of {total:g}", "dim")


def _place_of(row: Checkpoint) -> str:
    return scope_of(row.scope, row.branch, row.name, row.key, row.n)


SIGNS = {
    "began": ("▸", "cyan"),
    "done": ("✓", "green"),
    "recalled": ("↻", "blue"),
    "kept": ("↻", "blue"),
    "salvage": ("⇢", "yellow"),
    "restart": ("⇢", "yellow"),
    "failed": ("✗", "bold red"),
    "cancelled": ("⊘", "yellow"),
    "waiting": ("…", "cyan"),
    "refused": ("⊘", "yellow"),
    "intent": ("?", "bold red"),
    "not_done": ("⊘", "yellow"),
    "repair": ("·", "yellow"),
}
_ASCII = {
    "began": (">", "cyan"),
    "done": ("+", "green"),
    "recalled": ("=", "blue"),
    "kept": ("=", "blue"),
    "salvage": (">", "yellow"),
    "restart": (">", "yellow"),
    "failed": ("x", "bold red"),
    "cancelled": ("/", "yellow"),
    "waiting": ("~", "cyan"),
    "refused": ("/", "yellow"),
    "intent": ("?", "bold red"),
    "not_done": ("/", "yellow"),
    "repair": (".", "yellow"),
}


def signs(encoding: str) -> dict[str, tuple[str, str]]:
    try:
        "".join(sign for sign, _ in SIGNS.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return SIGNS


def _outcome(row: Checkpoint, how: str, width: int) -> Text:
    """The step, how it went, and the beginning of what came of it."""
    text = Text.assemble(f"{escaped(row.name)}  ", (how, "dim"))
    room = min(width, 120) - len(text) - PREVIEW_ROOM
    said = preview_of(row, room) if room > 0 else ""
    if said:
        text.append(f"  {said}", "red" if row.status == "failed" else "dim")
    return text


def preview_of(row: Checkpoint, limit: int) -> str:
    """A step's result or failure in one line; nothing for None."""
    if (waits := said_of(row, limit)) is not None:
        return waits
    if row.result is None:
        return ""
    if row.status == "failed":
        return short(failure_text(row.result, "a failure"), limit)
    value: Any = codec.readable(row.result)
    return "" if value is None else short(value, limit)


def on_stderr(*, several: bool = False) -> Progress:
    return Progress(console(sys.stderr), several=several)
