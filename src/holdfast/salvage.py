"""What a new version's attempt keeps of those before it.

A step recorded with the same name, step version and inputs keeps its result: the one of the same place, else one of
the same branch and scope, else one of any branch, if the step has arguments. Each is kept once. A finished call stands
for all inside it; where it does not fit, what is inside may fit by itself. Failures and cancellations are not kept.
What was recorded of a ``once`` step is kept wherever it is called, by a restart too; and while it is not, a call in its
place with other inputs diverges (docs/design/versions.md).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import codec
from .branches import Frame
from .diverging import Asked, called, diverged
from .doubt import open_intents
from .errors import Diverged
from .past import Attempt, attempts_of
from .recall import Place, enclosing, place_of, scope_of
from .state import decode_change
from .store import Checkpoint

INTENT = "intent"  # the note of a once step that is about to be executed, or was
_BEGUN = "begun "  # before the kind of a wait that has begun
_NO_INPUTS = codec.fingerprint(codec.encode_inputs({}, "no inputs"))


class Sought(NamedTuple):
    """A call that looks for what is kept for it. ``older``: versions of the step whose results it can turn."""

    frame: Frame
    kind: str
    name: str
    key: str | None
    n: int
    version: str
    inputs: bytes
    fingerprint: bytes
    older: tuple[str, ...] = ()


_What = tuple[str, str, str, bytes]  # kind, name, version and fingerprint


class Pool:
    """``rows``: all of the run, those of the present attempt last, which may have kept some already. ``schema`` is the
    schema version of its state."""

    def __init__(self, run_id: str, rows: list[Checkpoint], schema: int) -> None:
        self._run_id = run_id
        self._claimed: set[int] = set()
        self._at: dict[tuple[Place, _What], Checkpoint] = {}
        self._in_branch: dict[tuple[str, str, _What], deque[Checkpoint]] = defaultdict(deque)
        self._anywhere: dict[_What, deque[Checkpoint]] = defaultdict(deque)
        self._irreversible: dict[tuple[str, str, str], list[Checkpoint]] = defaultdict(list)  # by scope, branch, name
        self._rows: dict[int, tuple[int, Checkpoint]] = {}  # by seq, with the number of its attempt
        self._inside: dict[tuple[int, str], list[Checkpoint]] = defaultdict(list)  # by that number and the scope
        self._misshapen: set[int] = set()  # rows that changed a state of another shape
        attempts = list(attempts_of(rows))
        sources = {row.seq: kept for row in rows if (kept := decode_change(row).kept)}
        self._once = _once_of(attempts, sources)
        self._open = {row.seq for row in open_intents(rows)}
        self._index(attempts, schema)
        for source in sources.values():
            self._claim(source)

    def _index(self, attempts: list[Attempt], schema: int) -> None:
        keeps = True
        for number in range(len(attempts) - 2, -1, -1):  # newest first
            begins = attempts[number + 1].begins
            assert begins is not None
            keeps = keeps and begins.status == "salvage"
            other_shape = codec.readable(begins.result or b"")["from"]["schema_version"] != schema
            for row in attempts[number].rows:
                self._rows[row.seq] = number, row
                for scope in enclosing(row.scope) if row.scope else ():
                    self._inside[number, scope].append(row)
                if other_shape and row.delta is not None and decode_change(row).step:
                    self._misshapen.add(row.seq)
            for row in sorted(attempts[number].rows, key=lambda row: row.n):
                if row.seq in self._once or (keeps and row.seq not in self._misshapen):
                    self._add(row)

    def _add(self, row: Checkpoint) -> None:
        begun = row.status == "waiting" and row.kind in ("sleep", "signal")
        # A signal lies in the mailbox again, and is taken again: what was sent first is received first.
        is_open = row.seq in self._open
        if not (begun or is_open or (row.status == "done" and row.kind in ("step", "workflow", "sleep", "run"))):
            return
        what = (_BEGUN + row.kind if begun else row.kind, row.name, row.version, row.fingerprint)
        if self._at.setdefault((place_of(row), what), row) is not row:
            return  # the same call again, in an earlier attempt
        self._in_branch[row.scope, row.branch, what].append(row)
        if row.seq in self._once:
            self._irreversible[row.scope, row.branch, row.name].append(row)
        if row.seq in self._once or (row.kind != "signal" and row.fingerprint != _NO_INPUTS):
            self._anywhere[what].append(row)

    # -- asked by calls ------------------------------------------------------------------------------------

    def find(self, sought: Sought) -> Checkpoint | None:
        """The row whose outcome this call keeps, now claimed by it; None if it is to be executed. Raises
        ``Diverged``."""
        row = self._fitting(sought, sought.kind)
        if row is None:
            self._refuse_repetition(sought)
            return None
        if row.seq in self._misshapen:
            raise Diverged(
                f"run {self._run_id!r}, checkpoint {row.seq}: {called(row)} is never done twice, and what it changed "
                "in the state is of another schema version. Give the workflow the schema version it was recorded with, "
                "or start the work again under a new id."
            )
        self._claim(row.seq)
        return row

    def begun(self, sought: Sought) -> Checkpoint | None:
        """The row that says since when this wait waits, if an earlier attempt has begun it."""
        row = self._fitting(sought, _BEGUN + sought.kind)
        if row is not None:
            self._claim(row.seq)
        return row

    def give_back(self, row: Checkpoint) -> None:
        """What was kept could not be recorded: it is there for the next who asks."""
        self._claimed.discard(row.seq)
        what = (row.kind, row.name, row.version, row.fingerprint)
        self._in_branch[row.scope, row.branch, what].appendleft(row)
        if row.seq in self._once or row.fingerprint != _NO_INPUTS:
            self._anywhere[what].appendleft(row)

    def _fitting(self, sought: Sought, kind: str) -> Checkpoint | None:
        scope, branch = sought.frame.scope, sought.frame.branch
        place = (scope, branch, sought.name, sought.key, sought.n)
        whats = [(kind, sought.name, version, sought.fingerprint) for version in (sought.version, *sought.older)]
        for what in whats:
            row = self._at.get((place, what))
            if row is not None and row.seq not in self._claimed:
                return row
        queues = [self._in_branch.get((scope, branch, what)) for what in whats]
        queues += [self._anywhere.get(what) for what in whats]
        for queue in queues:
            while queue and queue[0].seq in self._claimed:
                queue.popleft()
            if queue:
                return queue[0]
        return None

    def _refuse_repetition(self, sought: Sought) -> None:
        """A call that nothing is kept for, where a once step stands that no call has asked for yet."""
        for row in self._irreversible.get((sought.frame.scope, sought.frame.branch, sought.name), ()):
            if row.seq not in self._claimed and sought.key in (None, row.key):
                asked = Asked(sought.frame, sought.version, sought.inputs, sought.fingerprint)
                raise diverged(self._run_id, row, asked)

    def _claim(self, seq: int) -> None:
        """It is kept, and stands for all that is inside it."""
        self._claimed.add(seq)
        number, row = self._rows[seq]
        inside = self._inside.get((number, scope_of(row.scope, row.branch, row.name, row.key, row.n)), ())
        self._claimed.update(each.seq for each in inside)

    # -- what is left --------------------------------------------------------------------------------------

    @property
    def left(self) -> list[Checkpoint]:
        """The outcomes that may be kept, and no call has asked for; not those inside another one."""
        return sorted(self._left(), key=lambda row: row.seq)

    def _left(self) -> Iterator[Checkpoint]:
        finished = {
            (self._rows[row.seq][0], scope_of(row.scope, row.branch, row.name, row.key, row.n))
            for (_, what), row in self._at.items()
            if not what[0].startswith(_BEGUN)
        }
        for (_, what), row in self._at.items():
            if row.seq in self._claimed or what[0].startswith(_BEGUN):
                continue
            number = self._rows[row.seq][0]
            if not any((number, scope) in finished for scope in (enclosing(row.scope) if row.scope else ())):
                yield row

    @property
    def doubts(self) -> list[Checkpoint]:
        """The intents of earlier attempts without outcome, that no call has asked for."""
        return [self._rows[seq][1] for seq in sorted(self._open) if seq in self._rows and seq not in self._claimed]


def _once_of(attempts: Iterable[Attempt], sources: dict[int, int]) -> set[int]:
    """The rows of once steps: those at whose place an intent stands, and what was kept of such. The intent may be of an
    attempt before, and its outcome told by a person since."""
    found: set[int] = set()
    intents: set[tuple[Place, bytes]] = set()
    for attempt in attempts:
        intents |= {(place_of(row), row.fingerprint) for row in attempt.rows if row.status == INTENT}
        for row in attempt.rows:
            if (place_of(row), row.fingerprint) in intents or sources.get(row.seq) in found:
                found.add(row.seq)
    return found
