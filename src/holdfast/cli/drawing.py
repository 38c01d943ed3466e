"""The timeline of a run as text for a terminal, and as a sequence diagram in Mermaid's words."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from rich.text import Text

from holdfast import codec
from holdfast.cli.printing import dollars, escaped, fields, seconds, short
from holdfast.cli.progress import SIGNS, preview_of, signs
from holdfast.cli.timeline import CALLS, Axis, Line, Process, Saved, changed_keys, process_of
from holdfast.recall import OPEN
from holdfast.records import count
from holdfast.store import Checkpoint

LANES = ("cyan", "magenta", "green", "yellow", "blue")
INDENTS = 6  # lanes drawn side by side; the next one begins at the left again
TIME, TOOK = 11, 11  # columns: as wide as 59 min 59 s
WITH_BARS, WITH_VALUES = 72, 110  # from so many columns on
WIDEST = 160

ENDS = {
    "done": ("✓", "done", "green"),
    "failed": ("✗", "failed", "red"),
    "in_doubt": ("?", "in doubt", "bold red"),
    "parked": ("✗", "parked", "red"),
    "died": ("✗", "died", "bold red"),
    "lapsed": ("?", "let its lease lapse: stopped, or dead", "yellow"),
    "cancelled": ("⊘", "cancelled", "yellow"),
    "interrupted": ("‖", "interrupted, its lease handed back", "yellow"),
    "closed": ("✓", "closed", "dim"),
    "stalled": ("?", "not heard of any more; it may live or not", "yellow"),
    "running": ("▸", "running", "cyan"),
    "waiting": ("▸", "waiting, unloaded", "cyan"),
    "open": ("▸", "open", "cyan"),
    "damaged": ("✗", "damaged: what it came to cannot be told", "red"),
}
LOST = ("died", "lapsed")  # how an owner ends that does not hand its run back
_MERMAID = {"#": "#35;", ";": "#59;", "<": "#lt;", ">": "#gt;"}
_PLAIN = str.maketrans("┏┃┗╋┊━✓✗⊘‖▸↻→·…×–", "/|\\+:=+x/!>=>..x-")


def draw(lines: list[Line], processes: list[Process], began_ms: int, width: int, encoding: str) -> Iterator[Text]:
    """Every line of a timeline, as wide as the terminal (columns) and in signs that ``encoding`` has."""
    page = _Page(lines, processes, began_ms, min(width, WIDEST))
    plain = signs(encoding) is not SIGNS
    for line in lines:
        for text in page.drawn(line):
            if plain:
                text.plain = text.plain.translate(_PLAIN)
            text.rstrip()
            yield text


class _Page:
    def __init__(self, lines: list[Line], processes: list[Process], began_ms: int, width: int) -> None:
        self.processes = processes
        self.began_ms = began_ms
        self.width = width
        self.axis = Axis.of(lines)
        last = max((row.seq for line in lines for row in line.rows[-1:]), default=0)
        self.seq_room = max(3, len(str(last)))
        self.gutter_room = 2 * min(INDENTS, len(processes))
        self.bar_room = 0 if width < WITH_BARS else min(36, width // 5)
        self.left = TIME + 1 + self.seq_room + 1 + self.gutter_room
        rest = width - self.left - 2 - TOOK - (self.bar_room + 2 if self.bar_room else 0)
        self.name_room = max(12, rest if width < WITH_VALUES else min(30, rest))
        self.value_room = rest - self.name_room - 2 if width >= WITH_VALUES else 0

    def drawn(self, line: Line) -> Iterator[Text]:
        match line.kind:
            case "step" | "group" | "folded":
                yield from self._step(line)
            case "flying":
                yield self._flying(line)
            case "version":
                yield from self._wrapped(line, new_version(line.rows[0]), "yellow", "╋", line.ended_ms)
            case _:
                yield from self._said(line)

    # -- the parts of a line -----------------------------------------------------------------------------------

    def _margin(self, line: Line, sign: str, ms: int | None, seq: str = "") -> Text:
        at = "" if ms is None else seconds(max(0, ms - self.began_ms) / 1000)
        text = Text(f"{at:>{TIME}} {seq:>{self.seq_room}} ", "dim")
        lane = line.lane % INDENTS
        text.append(" " * 2 * lane)
        text.append(sign, LANES[line.lane % len(LANES)])
        text.append(" " * (self.left - len(text)))
        return text

    def _bar(self, line: Line) -> tuple[str, str]:
        first = int(self.axis.at(line.began_ms) * (self.bar_room - 1))
        last = int(self.axis.at(line.ended_ms) * (self.bar_room - 1))
        return "  " + " " * first + "━" * (last - first + 1), LANES[line.lane % len(LANES)]

    def _row(self, text: Text, line: Line, name: Text, took: str, value: str) -> Text:
        room = self.left + 2 + self.name_room
        text.append_text(name)
        if len(text) > room:
            text.truncate(room, overflow="ellipsis")
        text.append(" " * (room - len(text)))
        text.append(f"{took:>{TOOK}}")
        if self.bar_room and line.rows[:1] and line.rows[0].kind not in CALLS | {"save"}:
            text.append(" " * (self.bar_room + 2))  # a wait: it may be longer than all the work
        elif self.bar_room:
            text.append(*self._bar(line))
        if value and self.value_room > 8:
            end = room + TOOK + 2 + self.bar_room
            text.append(" " * (end - len(text) + 2))
            text.append(short(value, self.value_room), "dim")
        return text

    # -- the kinds of line -------------------------------------------------------------------------------------

    def _step(self, line: Line) -> Iterator[Text]:
        row, many = line.rows[0], len(line.rows)
        how = row.status if row.attempts or row.status not in SIGNS else "kept"
        sign, style = SIGNS.get(how, SIGNS["failed"]) if row.kind != "save" else ("·", "dim")
        name = Text.assemble((f"{sign} ", style), "  " * depth_of(row), name_of(row, numbered=many == 1))
        if many > 1:
            name.append(f"  ×{many:,}", "bold")
        elif row.attempts > 1:
            name.append(f"  {count(row.attempts, 'attempt')}", "yellow")
        if many == 1 and (where := row.branch.rpartition("<locals>.")[2]):
            name.append(f"  {escaped(where)}", "dim")
        total = sum(each.duration_ms for each in line.rows) / 1000
        seq = str(row.seq) if many == 1 else ""
        margin = self._margin(line, "┃" if line.kind != "folded" else "┊", line.ended_ms, seq)
        took = seconds(total) if row.kind != "save" and row.status not in OPEN else ""
        took = f"kept ({took})" if not row.attempts else took
        yield self._row(margin, line, name, took, self._value(line) if many == 1 else "")
        if many > 1 and row.kind != "save":
            slow = line.slowest
            said = f"{line.rows[0].seq}–{line.rows[-1].seq}; slowest {seconds(slow.duration_ms / 1000)} ({slow.seq})"
            yield from self._wrapped(line, said + _spent(line.rows), "dim")
        if row.status == "failed":
            yield from self._wrapped(line, preview_of(row, 300), "red")
        elif row.status in OPEN and many == 1:
            yield from self._wrapped(line, preview_of(row, 300), "cyan" if row.status == "waiting" else "yellow")

    def _value(self, line: Line) -> str:
        row = line.rows[0]
        if row.kind == "save":
            step, body = changed_keys(row)
            return f"changed {', '.join([*step, *body])}"
        if row.status in OPEN:
            return ""  # it has a line of its own
        given = fields(codec.readable(row.inputs), self.value_room) if row.inputs else ""
        came = "" if row.status == "failed" else preview_of(row, self.value_room)
        return (f"{given} → {came}" if came else given) + _spent(line.rows)

    def _flying(self, line: Line) -> Text:
        over = self.processes[line.lane].is_over
        text = self._margin(line, "┃", line.ended_ms if over else None)
        if line.flying is None:
            return text.append(f"▸ and {line.more} more in flight", "cyan")
        name = Text.assemble(("▸ ", "cyan"), escaped(line.flying.name))
        if line.flying.attempt > 1:
            name.append(f"  attempt {line.flying.attempt}", "yellow")
        name.append("  cut off" if over else "  in flight", "dim")
        return self._row(text, line, name, seconds((line.ended_ms - line.began_ms) / 1000), "")

    def _said(self, line: Line) -> Iterator[Text]:
        process = self.processes[line.lane]
        between = line.ended_ms - line.began_ms
        if line.kind == "nobody":
            yield from self._wrapped(line, _gap(self.processes[line.lane - 1], between), "dim", "┊")
        elif line.kind == "idle":
            yield from self._wrapped(line, f"{seconds(between / 1000)} with no step running", "dim", "┊")
        elif line.kind == "began":
            yield from self._wrapped(line, how_it_began(self.processes, line.lane), "", "┏", line.began_ms)
        else:
            sign, said, style = ENDS.get(process.end, ENDS["damaged"])
            if process.end in LOST:
                said += " some time after this" if process.end == "died" else ", some time after this"
            elif not process.is_over:
                said += f", last heard of {seconds((line.ended_ms - process.ended_ms) / 1000)} ago"
            yield from self._wrapped(line, f"{sign} {said}", style, "┗", line.ended_ms)

    def _wrapped(self, line: Line, said: str, style: str, sign: str = "┃", ms: int | None = None) -> Iterator[Text]:
        room = max(20, self.width - self.left - 2)
        for k, part in enumerate(textwrap.wrap(said, room) or [""]):
            margin = self._margin(line, sign if k == 0 else _below(sign), ms if k == 0 else None)
            yield margin.append(part if sign != "┃" else f"  {part}", style)


def _below(sign: str) -> str:
    return {"┏": "┃", "┗": " ", "╋": "┃"}.get(sign, sign)


def _spent(rows: list[Checkpoint]) -> str:
    tokens, usd = sum(row.tokens or 0 for row in rows), sum(row.usd or 0.0 for row in rows)
    return (f"; {count(tokens, 'token')}" if tokens else "") + (f"; {dollars(usd)}" if usd else "")


def _gap(before: Process, between_ms: int) -> str:
    """When a lost owner ended is not known, only when it was last heard of."""
    return f"{seconds(between_ms / 1000)} {'after its last sign of life' if before.end in LOST else 'with nobody'}"


def new_version(row: Checkpoint) -> str:
    """What the row that begins a new attempt says."""
    told = codec.readable(row.result or b"")
    parts = []
    for name in ("version", "schema_version", "python"):
        if told["from"][name] != told["to"][name]:
            parts.append(f"{name.replace('_', ' ')} {told['from'][name]} → {told['to'][name]}")
    how = {"salvage": "from the top, with what still holds", "restart": "from the top"}[row.status]
    return f"checkpoint {row.seq}, new code: {escaped(', '.join(parts))}; {row.status}: {how}"


def depth_of(row: Checkpoint) -> int:
    return row.scope.count(" > ") + 1 if row.scope else 0


def name_of(row: Checkpoint, *, numbered: bool = True) -> str:
    name = row.name or "save"
    return escaped(f"{name}[{row.key}]" if numbered and row.key is not None else name)


def told(saved: Saved) -> str:
    """``recalled 2 steps: 3.3 s, 1,200 tokens, $0.02 not spent again``; of the costs only what there is."""
    parts = [seconds(saved.seconds)]
    if saved.tokens:
        parts.append(count(saved.tokens, "token"))
    if saved.usd:
        parts.append(dollars(saved.usd))
    return f"recalled {count(saved.steps, 'step')}: {', '.join(parts)} not spent again"


def how_it_began(processes: list[Process], lane: int) -> str:
    process, who = processes[lane], process_of(processes[lane].owner)
    if lane == 0:
        return f"{who} started"
    how = "took over" if processes[lane - 1].end in LOST else "carried on"
    if not process.saved.steps:
        return f"{who} {how}"
    return f"{who} {how}; {told(process.saved)}"


# -- as a sequence diagram ---------------------------------------------------------------------------------


def mermaid(lines: list[Line], processes: list[Process], title: str) -> str:
    """The same lines between the instances and the store, as Mermaid writes it."""
    found = ["sequenceDiagram"]
    for lane, process in enumerate(processes):
        found.append(f"    participant {_letter(lane)} as {_said(process_of(process.owner))}")
        if lane == 0:
            found.append("    participant S as store")
    for line in lines:
        found += [f"    {each}" for each in _messages(line, processes, title)]
    return "\n".join(found)


def _letter(lane: int) -> str:
    """A B C … for the instances; S is the store."""
    return f"P{lane}" if lane > 17 else chr(ord("A") + lane)


def _messages(line: Line, processes: list[Process], title: str) -> Iterator[str]:
    who, process = _letter(line.lane), processes[line.lane]
    match line.kind:
        case "began":
            how = f"start {title}" if line.lane == 0 else how_it_began(processes, line.lane).partition(";")[0]
            yield f"{who}->>S: {_said(how)} (epoch {process.epoch})"
            if process.saved.steps:
                yield f"S-->>{who}: {_said(told(process.saved))}"
        case "nobody":
            yield f"Note over S: {_gap(processes[line.lane - 1], line.ended_ms - line.began_ms)}"
        case "idle":
            yield f"Note over {who}: {seconds((line.ended_ms - line.began_ms) / 1000)} with no step running"
        case "flying":
            what = line.flying.name if line.flying is not None else f"{line.more} more steps"
            yield f"Note over {who}: {_said(what)} {'cut off' if process.is_over else 'in flight'}"
        case "version":
            yield f"Note over {who}: {_said(new_version(line.rows[0]))}"
        case "end":
            if process.end in LOST:
                yield f"Note over {who}: {process.end}"
            else:
                stopped = process.end in ("failed", "parked", "in_doubt")
                _, said, _ = ENDS.get(process.end, ENDS["damaged"])
                yield f"{who}{'-x' if stopped else '->>'}S: {_said(said)}"
        case _:
            yield f"{who}->>S: {_said(_stored(line))}"


def _stored(line: Line) -> str:
    first, last = line.rows[0], line.rows[-1]
    took = seconds(sum(row.duration_ms for row in line.rows) / 1000)
    failed = "" if first.status == "done" else f" {first.status}"
    if len(line.rows) == 1:
        return f"{first.seq} {name_of(first)}{failed} ({took})"
    return f"{first.seq}–{last.seq} {name_of(first, numbered=False)} ×{len(line.rows):,}{failed} ({took})"


def _said(text: str) -> str:
    """Text of ours or of the program's in which Mermaid finds no syntax."""
    return re.sub(r"\bend\b", "e#110;d", "".join(_MERMAID.get(sign, sign) for sign in escaped(text)))
