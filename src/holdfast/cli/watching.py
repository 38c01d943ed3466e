"""``holdfast watch``: a run as it goes on, whichever process advances it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from holdfast.app import Holdfast
from holdfast.cli.looking import condition_of, owner_of
from holdfast.cli.options import opened, shared
from holdfast.cli.printing import console, escaped, print_json, seconds, short
from holdfast.cli.problems import DONE, FAILED, STOPPED
from holdfast.cli.progress import SIGNS, TALLY_EVERY_S, bar, signs
from holdfast.cli.waiting import said_of_wait
from holdfast.past import BEGINS
from holdfast.recall import OPEN
from holdfast.records import Checkpoint, Emitted, Event, Progress, Run, Skipped, count

CODES = {"done": DONE, "failed": FAILED}
LOOK_EVERY_S = 1.0
LINES_SHOWN = 6  # of unfinished lines and bars, below the rest


@click.command("watch")
@click.argument("id")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only what comes after this checkpoint.")
@shared
def watch_command(id: str, after: int, store: str | None, as_json: bool) -> int:
    """Watch a run, live, until it ends.

    Checkpoints as they are committed, how far steps are, and what they emit. With --json one object a line, the last
    one of the event "end".
    """
    shown = _Objects() if as_json else _Lines(console())
    with opened(store) as hf, shown.shown():

        async def work() -> Run:
            async with hf:
                looking = asyncio.create_task(_look_after(hf, id, shown))
                try:
                    async for event in hf.watch(id, after=after):
                        shown.show(event)
                finally:
                    looking.cancel()
                return await hf.get(id)

        run = asyncio.run(work())
    shown.end(run)
    return CODES.get(run.status, STOPPED)


async def _look_after(hf: Holdfast, id: str, shown: _Objects | _Lines) -> None:
    """Say so when nobody advances the run any more: nothing else would happen then."""
    before = ""
    while True:
        row = await hf._read(hf._store.get, id)
        now = "" if row is None or not row.workflow else condition_of(row, hf._store.now_ms())
        if row is not None and now != before and now in ("interrupted", "stalled"):
            shown.left(id, now, owner_of(row, hf._store.now_ms()))
        before = now
        await asyncio.sleep(LOOK_EVERY_S)


class _Objects:
    """One JSON object a line."""

    def shown(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def show(self, event: Event) -> None:
        values = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        if isinstance(event, Checkpoint):
            values["started_at"] = event.started_at.isoformat(timespec="milliseconds")
        print_json({"event": type(event).__name__.lower(), **values})

    def left(self, id: str, condition: str, owner: str) -> None:
        print_json({"event": condition, "id": id, "owner": owner})

    def end(self, run: Run) -> None:
        print_json({"event": "end", "id": run.id, "status": run.status, "result": run.result, "error": run.error})


class _Lines:
    """Lines for what is finished; on a terminal, below them, bars and the lines that are still growing."""

    def __init__(self, target: Console) -> None:
        self._console = target
        self._signs = signs(target.encoding)
        self._spinner = Spinner("dots" if self._signs is SIGNS else "line")
        self._bars: dict[str, Progress] = {}
        self._growing: dict[str, tuple[str, str]] = {}  # by place: name, and a line without its end
        self._telling: dict[str, tuple[int, int]] = {}  # by place: the epoch and attempt that told last
        self._tallied: dict[str, float] = {}
        self._epoch = 0
        self._checkpoints = 0

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(self, console=self._console, refresh_per_second=8, transient=True):
            yield

    def show(self, event: Event) -> None:
        if self._epoch and event.epoch > self._epoch:
            self._print(Text("  another process goes on with the run", "dim"))
        self._epoch = max(self._epoch, event.epoch)
        match event:
            case Checkpoint():
                self._show_checkpoint(event)
            case Progress():
                self._begin_again(event)
                self._bars[event.place] = event
                self._tally(event)
            case Emitted():
                self._begin_again(event)
                self._show_chunk(event)
            case Skipped():
                self._print(Text(f"  … {event.count:,} told too fast to be shown", "dim"))

    def left(self, id: str, condition: str, owner: str) -> None:
        self._bars.clear()
        self._print(Text(f"  {condition}: {owner}; `holdfast resume {escaped(id)}` carries on", "yellow"))

    def _show_checkpoint(self, event: Checkpoint) -> None:
        self._checkpoints += 1
        self._end_line(event.place)
        for kept in (self._bars, self._telling, self._tallied):
            kept.pop(event.place, None)
        sign, style = self._signs.get(event.status, self._signs["failed"])
        again = f" (attempt {event.attempts})" if event.attempts > 1 else ""
        how = seconds(event.duration) + again if event.kind != "save" else ""
        how = how if event.attempts else "kept from another version"
        depth = event.scope.count(" > ") + 1 if event.scope else 0
        name = f"{event.name}[{event.key}]" if event.key is not None else event.name or "(save)"
        text = Text.assemble("  " * (depth + 1), (f"{sign} ", style), f"{escaped(name)}  ", (how, "dim"))
        if event.kind == BEGINS:
            said_so = f"{event.status}: new code goes on with it, from the top (version {event.version} before)"
            self._print(Text.assemble("  ", (f"{sign} ", style), escaped(said_so)))
            return
        waits = said_of_wait(event.kind, event.name, event.key, event.status, event.result, 2 * self._console.width)
        if event.status == "intent":
            return  # the outcome tells it, and if none comes, the end does
        if event.status in OPEN and event.kind != "step":
            text = Text.assemble("  " * (depth + 1), (f"{sign} ", style), waits or "")
            self._print(text)
            return
        said = event.error if event.error is not None else waits if event.status in OPEN else event.result
        room = min(self._console.width, 120) - len(text) - 4
        if said is not None and room > 0:
            text.append(f"  {short(said, room)}", "red" if event.error is not None else "dim")
        self._print(text)

    def _begin_again(self, event: Progress | Emitted) -> None:
        """Another attempt, or another owner's, tells from the beginning: what was told before counts no more."""
        telling = (event.epoch, event.attempt)
        if self._telling.setdefault(event.place, telling) != telling:
            self._telling[event.place] = telling
            self._bars.pop(event.place, None)
            self._end_line(event.place)
            self._print(Text(f"  {escaped(event.name)} begins again", "dim"))

    def _show_chunk(self, event: Emitted) -> None:
        if not isinstance(event.chunk, str):
            self._end_line(event.place)
            self._print_line(event.name, short(event.chunk, max(20, self._console.width - len(event.name) - 8)))
            return
        name, line = self._growing.get(event.place, (event.name, ""))
        *lines, line = (line + event.chunk).split("\n")
        for each in lines:
            self._print_line(name, each)
        self._growing[event.place] = name, line

    def _end_line(self, place: str) -> None:
        name, line = self._growing.pop(place, ("", ""))
        if line:
            self._print_line(name, line)

    def _print_line(self, name: str, line: str) -> None:
        self._print(Text.assemble("    ", (f"{escaped(name)}: ", "dim"), escaped(line.rstrip("\r"))))

    def _tally(self, event: Progress) -> None:
        """Into a file a bar is a line now and then."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._tallied.get(event.place, 0.0) >= TALLY_EVERY_S:
            self._tallied[event.place] = now
            self._print(Text(f"  … {escaped(event.name)}: {event.done:g} of {event.total:g}"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def __rich__(self) -> Group:
        """What stands below the lines on a terminal."""
        table = Table.grid(padding=(0, 1))
        for event in list(self._bars.values())[-LINES_SHOWN:]:
            table.add_row(" ", self._spinner, Text(escaped(event.name)), *bar(event.done, event.total))
        growing = [(name, line) for name, line in list(self._growing.values())[-LINES_SHOWN:] if line]
        room = self._console.width
        lines = [Text.assemble("    ", (f"{escaped(name)}: ", "dim"), escaped(line)[-room:]) for name, line in growing]
        for line in lines:
            line.truncate(self._console.width, overflow="ellipsis")
        return Group(*lines, table, Text(f"  watching, {count(self._checkpoints, 'checkpoint')}", "dim"))

    def end(self, run: Run) -> None:
        for place in list(self._growing):
            self._end_line(place)
        sign, style = self._signs[run.status] if run.status in self._signs else self._signs["failed"]
        text = Text.assemble((f"{sign} ", style), (run.id, "bold"), f"  {run.status}")
        said: Any = run.error if run.error is not None else run.result
        if said is not None:
            text.append(f"  {short(said, max(40, self._console.width - len(text) - 2))}", "dim")
        self._print(text)
