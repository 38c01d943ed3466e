"""What became of a run, process by process: worked out of its record, and laid out as lines. Nothing here prints.

A process is one epoch of the run: from its claim to its end, or to where it was last heard of. What it recalled is not
in the record, and need not be: a recorded step is recalled, never executed again, so what stood when a process began
is what it did not do again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from holdfast import lease
from holdfast.doubt import open_intents
from holdfast.errors import HoldfastError
from holdfast.flying import decode_doing
from holdfast.past import BEGINS, present
from holdfast.recall import OPEN, enclosing, scope_of
from holdfast.state import decode_change
from holdfast.store import Checkpoint, Claim, RunRow

CALLS = frozenset({"step", "workflow"})  # what takes working time; waits do not
GROUP_MIN = 4  # steps of one name in a row, or turns of several, that become one line each
TURN_MAX = 6  # steps in a turn
IDLE_MS = 5_000  # in which no step ran, and which is worth a line
IDLE_SHARE = 0.05  # of the working time: what any idle time is drawn as, at most


class Saved(NamedTuple):
    """What was not spent again, added up from the record. ``seconds`` of steps, overlapping ones each for itself."""

    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    usd: float = 0.0

    def plus(self, other: Saved) -> Saved:
        return Saved(
            self.steps + other.steps,
            self.seconds + other.seconds,
            self.tokens + other.tokens,
            self.usd + other.usd,
        )


NOTHING = Saved()


class Flying(NamedTuple):
    """A step in flight, as its process last told."""

    name: str
    scope: str
    started_ms: int
    attempt: int


@dataclass
class Process:
    """One epoch. ``end`` is a status of the run, or ``died lapsed interrupted stalled running closed open``;
    ``ended_ms`` is when that was, or when the process was last heard of."""

    epoch: int
    owner: str
    began_ms: int
    ended_ms: int
    end: str
    rows: list[Checkpoint] = field(default_factory=list)
    saved: Saved = NOTHING
    flying: list[Flying] = field(default_factory=list)
    flying_more: int = 0

    @property
    def is_over(self) -> bool:
        return self.end not in ("running", "stalled", "open")


def process_of(owner: str) -> str:
    """``pid 4711`` on this machine, ``host pid 4711`` on another."""
    shown = lease.process_of(owner)
    return shown.partition(" ")[2] if owner.split("|")[0] == lease.host() else shown


# -- what the record says ----------------------------------------------------------------------------------


def processes_of(
    run: RunRow, claims: list[Claim], rows: list[Checkpoint], end: str, tried_anew: set[int]
) -> list[Process]:
    """The processes of a run, oldest first. ``end`` is that of the last one, ``tried_anew`` the failures that the next
    resume does not recall."""
    found = [
        Process(claim.epoch, claim.owner, claim.claimed_ms, claim.claimed_ms, "")
        for claim in sorted(claims, key=lambda claim: claim.epoch)
    ]
    of_epoch = {process.epoch: process for process in found}
    doubts = {row.seq for row in open_intents(rows)}
    for row in rows:
        if row.epoch in of_epoch and (row.status != "intent" or row.seq in doubts):
            of_epoch[row.epoch].rows.append(row)
    behind = [*sorted(claims, key=lambda claim: claim.epoch)[1:], None] if claims else []
    for process, after in zip(found, behind, strict=True):
        if after is None:
            _end(process, end, *_last_seen(run))
        else:
            told = {"running": "interrupted", "waiting": "waiting" if run.workflow else "closed"}
            how = told[after.found] if after.found in told else after.found  # noqa: SIM401 - a type checker takes get() for optional
            _end(process, how, after.seen_ms, after.doing)
    _add_up(found, rows, tried_anew)
    return found


def _last_seen(run: RunRow) -> tuple[int, bytes | None]:
    if run.owner is None:
        return run.updated_ms, None
    return run.heard_ms, run.doing


def _end(process: Process, end: str, seen_ms: int, doing: bytes | None) -> None:
    process.end = end
    recorded = max((_ended_ms(row) for row in process.rows if row.attempts), default=0)
    process.ended_ms = max(process.began_ms, seen_ms, recorded)
    if doing:
        number, steps = decode_doing(doing)
        done = {(row.name, row.scope, row.started_ms) for row in process.rows}  # since it was told
        process.flying = [each for each in (Flying(*step) for step in steps) if each[:3] not in done]
        process.flying_more = number - len(steps)


def changed_keys(row: Checkpoint) -> tuple[list[str], list[str]]:
    """The keys of the state that a step changed, and those that the workflow's body had changed before it, which its
    row carries."""
    try:
        change = decode_change(row)
    except HoldfastError:
        return ["(cannot be read)"], []
    return list(change.step or {}), list(change.body or {})


def stands_for(row: Checkpoint, rows: list[Checkpoint]) -> Checkpoint | None:
    """The call around a row that was finished by the same process: what recalls it recalls the row with it."""
    around = set(enclosing(row.scope)) if row.scope else set()
    for each in reversed(rows):
        if each.epoch == row.epoch and each.kind != "save" and each.seq > row.seq and scope_of_row(each) in around:
            return each
    return None


def scope_of_row(row: Checkpoint) -> str:
    return scope_of(row.scope, row.branch, row.name, row.key, row.n)


def _ended_ms(row: Checkpoint) -> int:
    return row.started_ms + int(row.duration_ms)


def _add_up(processes: list[Process], rows: list[Checkpoint], tried_anew: set[int]) -> None:
    """What each process recalled: the rows of those before it that stand. Of one that died before it did anything it is
    not known how far it came, so nothing is counted."""
    number = {process.epoch: k for k, process in enumerate(processes)}
    sums: dict[tuple[int, int], list[float]] = {}  # (first, behind the last) process that recalled -> what
    later: dict[tuple[Any, ...], int] = {}  # place -> epoch of the row that came in its stead
    finished = {(scope_of_row(row), row.epoch) for row in rows if row.kind != "save"}
    whole, rows = rows, present(rows)  # what an earlier attempt did is not recalled by this one, but what it kept
    _add_up_kept(processes, whole)
    for row in reversed(rows):
        if row.kind not in CALLS or row.status in OPEN or row.epoch not in number or row.attempts == 0:
            continue
        place = (row.scope, row.branch, row.name, row.key, row.n)
        instead = later.get(place)
        later[place] = row.epoch
        if row.seq in tried_anew or (instead is not None and row.status != "done"):
            continue
        until = len(processes) if instead is None else number[instead]
        held = sums.setdefault((number[row.epoch] + 1, until), [0, 0.0, 0, 0.0])
        if not (row.scope and any((scope, row.epoch) in finished for scope in enclosing(row.scope))):
            held[0] += 1
            held[1] += row.duration_ms / 1000
        held[2] += row.tokens or 0
        held[3] += row.usd or 0.0
    for k, process in enumerate(processes):
        if process.rows or process.flying or process.end not in ("died", "lapsed", "interrupted"):
            for (first, until), (steps, seconds, tokens, usd) in sums.items():
                if first <= k < until:
                    process.saved = process.saved.plus(Saved(int(steps), seconds, int(tokens), usd))


def _add_up_kept(processes: list[Process], rows: list[Checkpoint]) -> None:
    """What a process took over from an earlier attempt of the run, and so did not do again."""
    cost_of = {row.seq: row for row in rows}
    for process in processes:
        for row in process.rows:
            if row.attempts == 0 and row.kind in CALLS:
                cost = cost_of.get(kept_from(row), row)
                kept = Saved(0 if row.scope else 1, row.duration_ms / 1000, cost.tokens or 0, cost.usd or 0.0)
                process.saved = process.saved.plus(kept)


def kept_from(row: Checkpoint) -> int:
    """The checkpoint of an earlier attempt that a row was taken from; 0 if it was not."""
    try:
        return decode_change(row).kept
    except HoldfastError:
        return 0


def saved_by(processes: list[Process]) -> Saved:
    """Over all resumes: a step recalled twice was saved twice."""
    total = NOTHING
    for process in processes:
        total = total.plus(process.saved)
    return total


# -- the lines ---------------------------------------------------------------------------------------------


@dataclass
class Line:
    """One line of the timeline. ``kind``: ``began step group folded idle nobody flying`` or ``end``."""

    kind: str
    lane: int  # which process, from 0
    began_ms: int
    ended_ms: int
    rows: list[Checkpoint] = field(default_factory=list)
    flying: Flying | None = None
    more: int = 0  # steps in flight that are not named

    @property
    def slowest(self) -> Checkpoint:
        return max(self.rows, key=lambda row: row.duration_ms)


def laid_out(processes: list[Process], now_ms: int, limit: int) -> list[Line]:
    """The timeline, top to bottom; of the lines of steps at most about ``limit`` (0: all), the middle ones folded."""
    found: list[Line] = []
    before: Process | None = None
    for lane, process in enumerate(processes):
        if before is not None and process.began_ms > before.ended_ms:
            found.append(Line("nobody", lane, before.ended_ms, process.began_ms))
        found.append(Line("began", lane, process.began_ms, process.began_ms))
        found += _with_idle(process, lane)
        until = process.ended_ms if process.is_over else now_ms
        found += [
            Line("flying", lane, each.started_ms, max(until, each.started_ms), flying=each) for each in process.flying
        ]
        if process.flying_more > 0:
            found.append(Line("flying", lane, until, until, more=process.flying_more))
        found.append(Line("end", lane, until, until))
        before = process
    return _folded(found, limit) if limit else found


def _grouped(process: Process, lane: int) -> Iterator[Line]:
    """Steps alike in a row are one line, and steps that take turns are one line each."""
    rows = process.rows
    alike = [
        (row.kind, row.name, row.status, row.scope.count(" > "), bool(row.scope), row.attempts == 0) for row in rows
    ]
    k = 0
    while k < len(rows):
        turn, length = _repeated(alike, k)
        if not length:
            began, ended = _span(process, rows[k : k + 1])
            yield Line("version" if rows[k].kind == BEGINS else "step", lane, began, ended, [rows[k]])
            k += 1
            continue
        for part in range(turn):
            same = rows[k + part : k + length : turn]
            yield Line("group", lane, *_span(process, same), same)
        k += length


def _span(process: Process, rows: list[Checkpoint]) -> tuple[int, int]:
    """From when to when; what was kept of an earlier attempt took no time of this process."""
    if not rows[0].attempts:
        return process.began_ms, process.began_ms
    return min(row.started_ms for row in rows), max(map(_ended_ms, rows))


def _repeated(alike: list[Any], start: int) -> tuple[int, int]:
    """How long a turn is that is repeated from ``start`` on, and how far that goes; (0, 0) if none is, often enough."""
    for turn in range(1, TURN_MAX + 1):
        k = start + turn
        while k < len(alike) and alike[k] == alike[k - turn]:
            k += 1
        length = (k - start) // turn * turn
        if length >= turn * GROUP_MIN:
            return turn, length
    return 0, 0


def _with_idle(process: Process, lane: int) -> list[Line]:
    idle = list(_idle(process))
    found: list[Line] = []
    for line in _grouped(process, lane):
        while idle and idle[0][1] <= line.ended_ms and line.kind != "group":
            began, ended = idle.pop(0)
            found.append(Line("idle", lane, began, ended))
        found.append(line)
    return found


def _idle(process: Process) -> Iterator[tuple[int, int]]:
    """When no step of a process ran, though it lived, and for long."""
    busy = process.began_ms
    spans = [(row.started_ms, _ended_ms(row)) for row in process.rows if row.kind in CALLS and row.attempts]
    spans += [(each.started_ms, process.ended_ms) for each in process.flying]
    for began, ended in sorted(spans):
        if began - busy >= IDLE_MS:
            yield busy, began
        busy = max(busy, ended)


def _folded(lines: list[Line], limit: int) -> list[Line]:
    """The lines of steps between the first and the last ones, as one for each name."""
    steps = [k for k, line in enumerate(lines) if line.kind in ("step", "group", "idle")]
    if len(steps) <= limit:
        return lines
    middle = set(steps[limit - limit // 2 : len(steps) - limit // 2])
    found: list[Line] = []
    open_: dict[tuple[str, str], Line] = {}
    for k, line in enumerate(lines):
        if k not in middle:
            if line.kind == "end":
                open_ = {}
            found.append(line)
            continue
        for row in line.rows:
            known = open_.get((row.name, row.status))
            if known is None:
                known = open_[row.name, row.status] = Line("folded", line.lane, row.started_ms, _ended_ms(row))
                found.append(known)
            known.rows.append(row)
            known.began_ms = min(known.began_ms, row.started_ms)
            known.ended_ms = max(known.ended_ms, _ended_ms(row))
    return found


# -- the axis ----------------------------------------------------------------------------------------------


class Axis:
    """Where a time is drawn, from 0 to 1: working time to scale, idle time as next to nothing."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        busy: list[list[int]] = []
        for began, ended in sorted(spans):
            if busy and began <= busy[-1][1]:
                busy[-1][1] = max(busy[-1][1], ended)
            else:
                busy.append([began, max(ended, began)])
        worked = sum(ended - began for began, ended in busy) or 1
        self._times: list[int] = []
        self._places: list[float] = []
        place = 0.0
        for began, ended in busy:
            if self._times:
                place += min(began - self._times[-1], worked * IDLE_SHARE)
            self._times += [began, ended]
            self._places += [place, place := place + ended - began]
        self._length = place or 1.0

    @classmethod
    def of(cls, lines: list[Line]) -> Axis:
        return cls(
            [
                (line.began_ms, line.ended_ms)
                for line in lines
                if line.kind == "flying"
                or (line.rows and line.rows[0].kind in CALLS | {"save"} and line.rows[0].attempts)
            ]
        )

    def at(self, ms: int) -> float:
        if not self._times:
            return 0.0
        k = bisect_right(self._times, ms) - 1
        if k < 0:
            return 0.0
        if k + 1 == len(self._times):
            return 1.0
        share = (ms - self._times[k]) / ((self._times[k + 1] - self._times[k]) or 1)
        return (self._places[k] + share * (self._places[k + 1] - self._places[k])) / self._length
