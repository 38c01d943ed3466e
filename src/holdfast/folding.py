"""Which rows a resume has to read: a finished turn of a loop is answered by its one row, and the last one of a loop
stands for those before it.

A run knows which of its rows are live. From time to time the row of a turn says so: whatever stands before it, and is
not among the numbers it tells, nobody has to read again. A reader goes back from the last row to the newest one that
tells, and takes those (docs/design/folding.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import msgspec

from . import codec
from .errors import CodecError
from .mailbox import signal_taken_by
from .past import BEGINS
from .recall import enclosing, is_inside
from .store import AFTER_ALL, Checkpoint, Store
from .store.damage import flaw_of
from .watched import GoneThrough

TURN = "turn"  # the kind of row that a finished turn leaves
_PAGE = 32  # rows that are read at first
_TOLD_SHARE = 16  # ranges and numbers that are told, on the average of all turns


class Told(msgspec.Struct, omit_defaults=True):
    """What the row of a turn says of its loop: how many ``turns`` are finished, what their keys come to, how the loop
    has changed the state since it began (``state``, operations; None where that is added up from the rows of the turns
    before), and which rows before it are ``live`` (ranges; None where it does not say). Of ``taken`` only that they
    have taken a signal is of interest still. ``once``: whether a step that is executed once was begun in them."""

    turns: int
    keys: bytes = b""
    state: dict[str, Any] | None = None
    live: list[list[int]] | None = None
    taken: list[int] = []
    once: bool = False

    def encode(self) -> bytes:
        told = msgspec.structs.asdict(self)
        plain = {name: value for name, value in told.items() if value not in (None, b"", [], False)}
        return codec.encode({**plain, "live": self.live}, codec.Types.none, "a turn")


def told_by(row: Checkpoint) -> Told:
    """Raises ``CodecError``."""
    where = f"checkpoint {row.seq}, a turn,"
    try:
        return msgspec.convert(codec.decode(row.result or b"", codec.Types.none, where), Told)
    except msgspec.ValidationError as error:
        raise CodecError(f"{where} cannot be read: {error}. It is kept as it is.") from None


def _telling(row: Checkpoint) -> Told | None:
    """What a row tells of the live ones before it; None if it tells nothing, or is not as it was written."""
    if row.kind != TURN or row.status != "done" or flaw_of(row) is not None:
        return None
    try:
        told = told_by(row)
    except CodecError:
        return None
    return told if told.live is not None else None


def is_irreversible(row: Checkpoint) -> bool:
    """Whether it says that a step is executed once, itself or as the row of a turn."""
    if row.kind != TURN:
        return row.status == "intent"
    try:
        return told_by(row).once
    except CodecError:  # told by who comes to need it
        return False


class Folding:
    """The numbers of a run's live rows, and the turns that are under way. ``rows``: what is recorded, all of it or what
    is live of it."""

    def __init__(self, rows: list[Checkpoint]) -> None:
        self._ranges: list[list[int]] = []
        self._open: dict[str, list[Checkpoint]] = {}  # the rows inside, by the scope of a turn
        self._left: dict[str, list[Checkpoint]] = {}  # the same, of turns that were left: a new attempt may come again
        self._once: set[str] = set()  # the scopes of turns in which steps that are executed once have begun
        self.gone_through: GoneThrough = {}
        self._untold = 0  # turns since the last one that told
        self.taken: list[int] = []  # not live: all that counts of these is that they have taken a signal
        for k in range(len(rows) - 1, -1, -1):
            if rows[k].kind == BEGINS:
                break
            if (told := _telling(rows[k])) is not None:
                self._ranges, self.taken, rows = told.live or [], told.taken, rows[k:]
                break
        for row in rows:
            self._add(row.seq)

    def _add(self, seq: int) -> None:
        if self._ranges and self._ranges[-1][1] == seq - 1:
            self._ranges[-1][1] = seq
        else:
            self._ranges.append([seq, seq])

    def numbered(self, row: Checkpoint) -> None:
        """A row of this process has got its number."""
        self._add(row.seq)
        if self._open and row.scope:
            for outer in enclosing(row.scope):
                if outer in self._open:
                    self._open[outer].append(row)
                    if row.status == "intent":
                        self._once.add(outer)

    def open(self, scope: str, recorded: Iterable[Checkpoint]) -> None:
        """A turn begins; ``recorded`` are rows of which some may be inside it, from another process."""
        left = self._left.pop(scope, None)
        self._open[scope] = [row for row in recorded if is_inside(row.scope, scope)] if left is None else left
        if left is None and any(map(is_irreversible, self._open[scope])):
            self._once.add(scope)

    def has_once(self, scope: str) -> bool:
        """Whether a step that is executed once has begun in this turn, which is open."""
        return scope in self._once

    def close(self, scope: str) -> list[Checkpoint]:
        """The turn is finished; the rows inside it."""
        for inner in [each for each in self._left if is_inside(each, scope)]:
            del self._left[inner]
        self._once = {each for each in self._once if not is_inside(each, scope)} if self._once else self._once
        return self._open.pop(scope, [])

    def leave(self, scope: str) -> None:
        """The turn is left unfinished."""
        self._left[scope] = self._open.pop(scope, [])

    def fold(self, rows: Iterable[Checkpoint]) -> None:
        """Another row stands for these."""
        for row in rows:
            if self._drop(row.seq) and signal_taken_by(row) is not None:
                self.taken.append(row.seq)

    def _drop(self, seq: int) -> bool:
        """Whether it was live until now."""
        k = bisect_right(self._ranges, seq, key=lambda each: each[0]) - 1
        if k < 0 or self._ranges[k][1] < seq:
            return False
        first, last = self._ranges[k]
        self._ranges[k : k + 1] = [each for each in ([first, seq - 1], [seq + 1, last]) if each[0] <= each[1]]
        return True

    def tell(self, told: Told) -> None:
        """In the row of the turn that ends now, unless there is more to tell than turns to share it."""
        self._untold += 1
        if self._untold * _TOLD_SHARE >= len(self._ranges) + len(self.taken):
            self._untold = 0
            told.live, told.taken = self._ranges, self.taken


def live_rows(store: Store, run_no: int) -> tuple[list[Checkpoint] | None, bool]:
    """(what a resume has to read of a run, whether that is a part that a row tells of: else it is all there is). None
    where rows are missing in that part. Blocks on the store."""
    rows: list[Checkpoint] = []
    until, size, looks = AFTER_ALL, _PAGE, True
    while True:
        page = store.load(run_no, until=until, last=size)
        rows = page + rows
        for k in range(len(page) - 1, -1, -1) if looks else ():
            if page[k].kind == BEGINS:
                looks = False  # what stands before may be kept, all of it
                break
            if (told := _telling(page[k])) is not None:
                ranges: list[list[int]] = [*(told.live or []), *([seq, seq] for seq in told.taken)]
                return _with_those(store, run_no, sorted(ranges), rows[k:]), True
        if len(page) < size:
            return rows, False
        until, size = page[0].seq - 1, 2 * size


def _with_those(store: Store, run_no: int, ranges: list[list[int]], rows: list[Checkpoint]) -> list[Checkpoint] | None:
    before: list[Checkpoint] = []
    for first, last in ranges:
        part = store.load(run_no, until=last, last=last - first + 1)
        if [row.seq for row in part] != list(range(first, last + 1)):
            return None
        before += part
    begins = rows[0].seq
    return before + rows if [row.seq for row in rows] == list(range(begins, begins + len(rows))) else None
