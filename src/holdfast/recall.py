"""Which call each record belongs to.

On resume, the same version: (a) the record at the place of the call, if its inputs are the same; (b) where that place
is taken by a record with other inputs, an unclaimed record of the same name and inputs in the same branch and scope;
(c) else the program has diverged; (d) where there is no record, the call was in flight and is executed. A record never
moves to another branch (docs/design/order.md)."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, TypeAlias

from . import clock
from .branches import Frame
from .diverging import Asked, diverged
from .store import Checkpoint

# Rows that are no outcome. Of a wait: since when it waits and for what, and which signals it has set aside. Of a step
# that is executed once: that an attempt begins, and that the attempt certainly has not happened.
OPEN = frozenset({"waiting", "refused", "intent", "not_done", "repair"})

# Of a call: scope, branch, name, key, n.
Place: TypeAlias = tuple[str, str, str, str | None, int]


class Items(NamedTuple):
    """What is recorded of the items of a map, by (key, n): their outcomes, and which were begun and have none."""

    rows: dict[tuple[str, int], Checkpoint]
    begun: set[tuple[str, int]]


class Records:
    """The checkpoints a run began with (and those of nested scopes since), by the place of their call."""

    def __init__(self, run_id: str, rows: list[Checkpoint], ignored: set[int]) -> None:
        self.run_id = run_id
        self.rows = rows
        self._claimed: set[int] = set()
        self._asked_for: set[int] = set()  # claimed at some time, by an attempt that failed since, say
        self._at: dict[Place, Checkpoint] = {}
        self._of_name: dict[tuple[str, str, str], list[Checkpoint]] | None = None
        self._missing: list[Checkpoint] | None = None
        self._retried = {place_of(row) for row in rows if row.seq in ignored}
        self._retried_from = min(ignored, default=None)
        self._recorded_until = rows[-1].seq if rows else 0
        self._behind: list[Checkpoint] = []  # done, and another row has taken their place since
        # Waits, and steps that are executed once, without outcome.
        self._begun: dict[Place, Checkpoint] = {}
        self._intended: dict[Place, list[int]] = {}  # the numbers of the intents there ever were
        self._irreversible: set[str] = set()  # the names of their steps
        self._not_met: set[Place] = set()  # those of the places that no call stands at yet
        self._last = 0
        self._entered: set[str] = set()  # the scopes that rows are in
        # (scope, from, until) of rows that followed a failure which was tried anew, so may not be asked for again
        self._detours: list[tuple[str, int, int]] = []
        self._asked_anew: dict[int, str] = {}  # asked for by an attempt that failed, in the call with this scope
        for row in rows:
            if row.kind != "save":
                self._put(row)
        for row in rows if ignored else ():
            # The last row of a place speaks for it: behind a failure tried anew stands no earlier failure.
            if row.seq in ignored and self._at.get(place_of(row)) is row:
                self._drop(row)

    def add(self, row: Checkpoint) -> None:
        """A row that was recorded for a call just now."""
        self._put(row)
        self._of_name = None
        self._claim(row)

    def _claim(self, row: Checkpoint) -> None:
        self._claimed.add(row.seq)
        self._asked_for.add(row.seq)
        if self._intended and self._at.get(place := place_of(row)) is row:
            self._not_met.discard(place)

    def _put(self, row: Checkpoint) -> None:
        """A later row of the same place (a failure tried anew) replaces the earlier one. A success that is replaced by
        changed code stays a record of its inputs."""
        place = place_of(row)
        self._last = row.seq
        if row.scope and row.scope not in self._entered:
            self._entered.update(enclosing(row.scope))
        if row.status in OPEN:
            if row.status in ("waiting", "intent"):
                self._begun[place] = row
            elif row.status == "not_done":
                self._begun.pop(place, None)
            if row.status == "intent":
                self._intended.setdefault(place, []).append(row.seq)
                self._irreversible.add(row.name)
                self._not_met.add(place)
            return
        self._begun.pop(place, None)
        before = self._at.get(place)
        if before is not None and before.status == "done":
            self._behind.append(before)
        elif before is not None:
            self._drop(before)
        self._at[place] = row

    def _drop(self, row: Checkpoint) -> None:
        """A failure that is tried anew."""
        self._detours.append((row.scope, row.seq, self._last))
        del self._at[place_of(row)]

    def retries(self, frame: Frame, name: str, key: str | None, n: int) -> bool:
        """Whether this call is tried anew because its recorded failure ended the run."""
        return bool(self._retried) and (frame.scope, frame.branch, name, key, n) in self._retried

    def find(
        self,
        frame: Frame,
        name: str,
        key: str | None,
        n: int,
        version: str,
        inputs: bytes,
        fingerprint: bytes,
        older: Collection[str] = (),
    ) -> Checkpoint | None:
        """The record of this call, now claimed by it; None if it has none. ``older``: versions of the step whose
        records fit too. Raises ``Diverged``."""
        if not self._at:
            return None
        versions = (version, *older) if older else (version,)
        here = self._at.get((frame.scope, frame.branch, name, key, n))
        if here is not None and _fits(here, versions, fingerprint) and here.seq not in self._claimed:
            self._claim(here)
            return here
        if here is None:
            return None  # it was in flight; a later call with the same inputs keeps its own record
        for row in self._named(frame.scope, frame.branch, name):
            if row.seq not in self._claimed and _fits(row, versions, fingerprint):
                self._claim(row)
                return row
        if not _fits(here, versions, fingerprint):
            raise diverged(self.run_id, here, Asked(frame, version, inputs, fingerprint))
        return None

    def begun(
        self, frame: Frame, name: str, key: str | None, n: int, version: str, inputs: bytes, digest: bytes
    ) -> Checkpoint | None:
        """What tells since when this wait waits, or that this step was about to be executed, if another process has
        begun it. Raises ``Diverged``."""
        row = self._begun.get((frame.scope, frame.branch, name, key, n))
        if row is not None:
            if not _fits(row, (version,), digest):
                raise diverged(self.run_id, row, Asked(frame, version, inputs, digest))
            self._claim(row)
        return row

    def items(self, scope: str, branch: str, name: str, ids: Collection[tuple[str, int]]) -> Items:
        """Of a map, whose items are calls of ``name``, each known by its (key, n). Nothing waits for what is recorded
        of others: these items are no longer there."""
        self._expect_no_others(scope, branch, name, ids)
        rows: dict[tuple[str, int], Checkpoint] = {}
        begun: set[tuple[str, int]] = set()
        for each in ids if self._at or self._begun else ():
            place = (scope, branch, name, *each)
            row = self._at.get(place)
            if row is not None and row.seq not in self._claimed:
                rows[each] = row
            elif place in self._begun or scope_of(*place) in self._entered:
                begun.add(each)
        return Items(rows, begun)

    def _expect_no_others(self, scope: str, branch: str, name: str, ids: Collection[tuple[str, int]]) -> None:
        if self._missing is None:
            self._missing = self._expected()
        if not self._missing:
            return
        inside = {scope_of(scope, branch, name, *each) for each in ids}
        start = scope_of(scope, branch, name, "", 0).removesuffix("]#0")

        def is_expected(row: Checkpoint) -> bool:
            if (row.scope, row.branch, row.name) == (scope, branch, name):
                return (row.key, row.n) in ids
            return not row.scope.startswith(start) or not inside.isdisjoint(enclosing(row.scope))

        self._missing = [row for row in self._missing if is_expected(row)]

    def has_entered(self, scope: str) -> bool:
        """Whether anything is recorded inside it."""
        return scope in self._entered

    def turns(self, scope: str, branch: str) -> list[Checkpoint]:
        """The recorded turns of a loop, now claimed by it, in the order of ``seq``."""
        if not self._at:
            return []
        rows = [row for row in self._named(scope, branch, "turn") if row.seq not in self._claimed]
        for row in rows:
            self._claim(row)
        return sorted(rows, key=lambda row: row.seq)

    def must_be_met(self, turn: Checkpoint) -> None:
        """Steps that are executed once have taken effect in the turns that this row stands for."""
        place = place_of(turn)
        self._intended[place] = [turn.seq]
        if turn.seq not in self._claimed:
            self._not_met.add(place)

    def without_unmet(self, rows: list[Checkpoint]) -> list[Checkpoint]:
        """Without those of irreversible steps that took effect, or may have, and that the program went past."""
        kept = {place for place in self._not_met if place in self._begun or place in self._at}
        if not kept:
            return rows
        # A recalled call stands for what is inside it. A turn does so only for what its code has asked for.
        finished = {scope_of(*place_of(row)) for row in rows if row.seq in self._claimed and row.kind != "turn"}
        return [row for row in rows if place_of(row) not in kept or not finished.isdisjoint(enclosing(row.scope))]

    def fold(self, rows: list[Checkpoint]) -> None:
        """A finished turn stands for these from now on; nobody asks for them again."""
        for row in rows:
            place = place_of(row)
            if self._at.get(place) is row:
                del self._at[place]
            self._intended.pop(place, None)
            self._not_met.discard(place)
            self._claimed.discard(row.seq)
            self._asked_for.discard(row.seq)
            self._entered.discard(row.scope)
        if rows:
            self._of_name = None

    def begun_at(self, row: Checkpoint) -> Checkpoint | None:
        """The row that stands at the place of ``row`` and is no outcome, if nothing closes it."""
        return self._begun.get(place_of(row)) if self._begun else None

    def is_irreversible(self, name: str) -> bool:
        """Whether a step of this name was executed once, whatever the code says now."""
        return name in self._irreversible

    @property
    def intents(self) -> list[Checkpoint]:
        """Of steps that are executed once, and of which it is not known what came of them."""
        return sorted((row for row in self._begun.values() if row.status == "intent"), key=lambda row: row.seq)

    def unmet(self, asked: Checkpoint) -> Checkpoint | None:
        """The first irreversible step that took effect, or may have, and that the program has not asked for again,
        now that it asks for another one."""
        found = [row for row in self.intents if row.seq not in self._claimed]
        done = [self._at[place] for place in self._not_met if place in self._at]
        done = [row for row in done if row.status == "done" and row.seq not in self._claimed]
        if done:
            calls = {scope_of(*place): row for place, row in self._at.items()}
            found += [row for row in done if self._must_be_met(row, asked, calls)]
        return min(found, key=lambda row: row.seq, default=None)

    def _must_be_met(self, row: Checkpoint, asked: Checkpoint, calls: dict[str, Checkpoint]) -> bool:
        """``calls``: the recorded ones, by the scope they open."""
        if row.seq in self._asked_anew and not is_inside(asked.scope, self._asked_anew[row.seq]):
            return False  # what is beside the call that is attempted anew does not depend on how that goes
        finished = (calls.get(each) for each in enclosing(row.scope))
        around = [call for call in finished if call is not None and call.seq > row.seq]  # not what was resolved since
        recorded = [row, *(call for call in around if call.seq <= self._recorded_until)]
        if any(call.seq in self._claimed for call in around) and any(each.seq in self._asked_for for each in recorded):
            return False  # a finished call stands for all inside it, but one executed anew has to have asked for that
        if (row.name, row.fingerprint) == (asked.name, asked.fingerprint):
            return True  # whatever way the program goes now, this would be the very same once more
        return not all(self._followed_a_failure(row.scope, seq) for seq in self._intended[place_of(row)])

    def _followed_a_failure(self, scope: str, seq: int) -> bool:
        return any(failed < seq <= until and is_inside(scope, around) for around, failed, until in self._detours)

    def _named(self, scope: str, branch: str, name: str) -> list[Checkpoint]:
        if self._of_name is None:
            self._of_name = {}
            for row in sorted([*self._at.values(), *self._behind], key=lambda row: row.n):
                self._of_name.setdefault((row.scope, row.branch, row.name), []).append(row)
        return self._of_name.get((scope, branch, name), [])

    def try_anew(self, scope: str) -> None:
        """A new attempt of the call whose scope this is: what succeeded inside it is recalled again, what failed is
        not.
        """
        for row in list(self._at.values()):
            if is_inside(row.scope, scope):
                if row.seq in self._claimed:
                    self._asked_anew[row.seq] = scope
                    self._claimed.discard(row.seq)
                    if place_of(row) in self._intended:
                        self._not_met.add(place_of(row))
                if row.status != "done":
                    self._drop(row)
        self._of_name = None

    def _expected(self) -> list[Checkpoint]:
        """The records the program will ask for, last first."""
        return sorted(
            (row for row in self._still_expected() if row.seq <= self._recorded_until), key=lambda row: -row.seq
        )

    def _still_expected(self) -> list[Checkpoint]:
        """Not those inside a finished call, which stands for them. Behind a failure that ended the run everything may
        go another way, now that it is tried anew."""
        closed = {scope_of(row.scope, row.branch, row.name, row.key, row.n) for row in self._at.values()}
        return [
            row
            for row in self._at.values()
            if (self._retried_from is None or row.seq < self._retried_from)
            and not (row.scope and any(scope in closed for scope in enclosing(row.scope)))
        ]

    def missing_before(self, seq: int) -> Checkpoint | None:
        """The first record before ``seq`` that the program has not asked for yet."""
        if self._missing is None:
            self._missing = self._expected()
        while self._missing:
            row = self._missing[-1]
            if row.seq >= seq:
                return None
            if row.seq not in self._claimed and self._at.get(place_of(row)) is row:
                return row
            self._missing.pop()
        return None

    def expect_nothing_inside(self, scope: str) -> None:
        """The call that opens this scope is not executed, so nothing waits for what is recorded inside it."""
        if self._missing is None:
            self._missing = self._expected()
        self._missing = [row for row in self._missing if scope not in enclosing(row.scope)]

    def give_up(self, row: Checkpoint) -> None:
        """The program seems not to ask for ``row`` any more; nothing waits for it."""
        if self._missing and self._missing[-1] is row:
            self._missing.pop()

    def left_over(self, *, is_over: bool) -> tuple[list[Checkpoint], list[Checkpoint]]:
        """(records that the program has passed without asking for them, those it has not come to yet). It has passed
        all of them when it is over, and else those before the last one that the same code, or the code that began its
        task, has asked for."""
        if is_over:
            return self.unclaimed, []
        last: dict[tuple[str, str], int] = {}
        for row in self._at.values():
            if row.seq in self._claimed:
                last[row.scope, row.branch] = max(row.seq, last.get((row.scope, row.branch), 0))
        passed: list[Checkpoint] = []
        ahead: list[Checkpoint] = []
        for row in reversed(self._expected()):
            if row.seq not in self._claimed:
                reached = max(last.get((row.scope, branch), 0) for branch in ["", *enclosing(row.branch, "/")])
                (passed if reached > row.seq else ahead).append(row)
        return passed, ahead

    @property
    def unclaimed(self) -> list[Checkpoint]:
        """The outcomes recorded before this process that the program has not asked for, in the order of ``seq``; not
        those inside a call that was finished then."""
        recorded = [row for row in self._at.values() if row.seq <= self._recorded_until]
        closed = {scope_of(row.scope, row.branch, row.name, row.key, row.n) for row in recorded}
        left = [row for row in recorded if row.seq not in self._claimed and closed.isdisjoint(enclosing(row.scope))]
        return sorted(left, key=lambda row: row.seq)


def blank_row(run_no: int, epoch: int, *, kind: str) -> Checkpoint:
    return Checkpoint(
        run_no=run_no,
        seq=0,
        epoch=epoch,
        kind=kind,
        scope="",
        branch="",
        name="",
        key=None,
        n=0,
        version="",
        status="done",
        attempts=1,
        started_ms=clock.now_ms(),
        duration_ms=0.0,
        tokens=None,
        usd=None,
        fingerprint=b"",
        inputs=None,
        result=None,
        delta=None,
    )


def place_of(row: Checkpoint) -> Place:
    return row.scope, row.branch, row.name, row.key, row.n


def scope_of(scope: str, branch: str, name: str, key: str | None, n: int) -> str:
    """The name of the scope that the body of a call opens."""
    here = f"{name}#{n}" if key is None else f"{name}[{key}]#{n}"
    if branch:
        here = f"{branch}: {here}"
    return f"{scope} > {here}" if scope else here


def is_inside(scope: str, around: str) -> bool:
    """Whether code in ``scope`` runs in the scope ``around``, or in a call made there."""
    return not around or scope == around or scope.startswith(around + " > ")


def enclosing(scope: str, sign: str = " > ") -> list[str]:
    """``scope`` (or, with "/", a branch) and all that it is inside of, outermost first."""
    parts = scope.split(sign)
    return [sign.join(parts[: k + 1]) for k in range(len(parts))]


def _fits(row: Checkpoint, versions: Collection[str], fingerprint: bytes) -> bool:
    return row.fingerprint == fingerprint and row.version in versions
