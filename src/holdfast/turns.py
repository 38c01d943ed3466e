"""``each``: a loop whose finished turns are not gone through again.

A turn is a scope. What it called, and all it changed in the state, is answered by the one row it leaves, and the row
of the last finished turn says where the loop goes on. So code in the loop must not leave anything else to later turns:
what they find there in a first execution, they would not find in a resume. Locals bound before the loop are watched.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sized
from itertools import chain, islice
from types import FrameType
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from . import branches, clock, codec, delta, threads
from .branches import Frame, current_frame
from .calls import arrive, checked_key, recalled, recorded, refuse_second_call
from .delivery import Stop
from .errors import CodecError, Diverged, HoldfastError, StateConflict
from .folding import TURN, Told, told_by
from .past import present
from .recall import blank_row, scope_of
from .state import Change, decode_change
from .store import AFTER_ALL, Checkpoint
from .store.damage import flaw_of
from .views import View
from .watched import Watched, is_loop_at
from .weights import SLACK

T = TypeVar("T")
_SLICED = (list, tuple, range)
_TOLD_EVERY_S = 0.5  # how far it is, to those who watch


def each(items: Iterable[T], *, key: Callable[[T], str] | None = None) -> Each[T]:
    """The items one after the other: ``async for item in each(items):``, or ``for …`` in a plain ``def``. Each turn is
    a scope; a finished one is not gone through again on a resume, which goes on with the first unfinished one.

    Without ``key=`` turns are known by their number, so ``items`` must begin the same on every resume. With it, by the
    key of their item: an item that was added or removed since shifts nothing. ``items`` may be without end.

    What outlives a turn belongs in ``holdfast.state``: a turn that rebinds or changes a local bound before the loop
    raises ``HoldfastError``, naming it. A task that is begun in a turn must end in it. Outside a run
    it is a plain loop.
    """
    return Each(items, key)


class Each(Generic[T]):
    """What ``each`` gives: each loop over it is a loop of its own."""

    __slots__ = ("_items", "_key")

    def __init__(self, items: Iterable[T], key: Callable[[T], str] | None) -> None:
        self._items = items
        self._key = key

    def __aiter__(self) -> AsyncIterator[T]:
        frame = current_frame()
        if frame is not None:
            _refuse_handing_on(sys._getframe(1))
        return _AsyncLoop(self._items, self._key, frame)

    def __iter__(self) -> Iterator[T]:
        frame = current_frame()
        if frame is None:
            return iter(self._items)
        if frame.task is not None and frame.task is _task_here():
            raise HoldfastError(
                "each: in an async def, write `async for … in each(…)`: a plain for would block the loop"
            )
        _refuse_handing_on(sys._getframe(1))
        return _PlainLoop(self._items, self._key, frame)


def _refuse_handing_on(code: FrameType) -> None:
    if not is_loop_at(code.f_code, code.f_lasti):
        raise HoldfastError(
            f"each, in {code.f_code.co_name}: a resume skips finished turns, so a comprehension, enumerate, list or a "
            "generator would hand on less than the first time. Write a `for` (or `async for`) statement over each(…) "
            "itself, in no generator, and keep in holdfast.state what is gathered; or use holdfast.map."
        )


def _task_here() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread
        return None


class _Turn:
    """A turn that is under way."""

    __slots__ = ("began_ms", "frame", "key", "n", "since")

    def __init__(self, key: str | None, n: int, frame: Frame) -> None:
        self.key = key
        self.n = n
        self.frame = frame
        self.began_ms = clock.now_ms()
        self.since = clock.monotonic()


class _Loop(Generic[T]):
    """One loop of a run, at a place of its own."""

    def __init__(self, items: Iterable[T], key: Callable[[T], str] | None, frame: Frame) -> None:
        refuse_second_call(frame, "each")
        self.frame = frame
        self.in_thread = False
        self.branch = frame.branch_of("each")
        self._items = items
        self._key = key
        self._rest: Iterator[T] | None = None  # once it has begun
        self._turn: _Turn | None = None
        self._watched: Watched | None = None
        self._turns = 0  # finished
        self._keys = b""  # what their keys come to
        self._once = False  # whether a step that is executed once was begun in them
        self._seen: Counter[str] = Counter()  # the keys that were come to
        self._done_before: Counter[str] = Counter()  # of turns finished in another order than that of the items
        self._rows: list[Checkpoint] = []  # of finished turns, that are live
        self._base = frame.view.begin(alone=False).current  # the state before the first turn
        self._alone = True  # at the end of every turn: else others may have seen the state in between
        self._changed: dict[str, None] = {}
        self._whole = 0  # the seq of the last row that told the whole change
        self._size = self._since = 0  # bytes: of the whole change when it was told last, and of those told since
        self._told_at = clock.monotonic()

    async def _go_on(self) -> Any:
        """End the turn under way, and begin the next, if there is one; its item."""
        self._alone = self._alone and self._is_alone
        if self._rest is None:
            await arrive(self.frame)
            self._rest = await self._first_unfinished()
        elif self._turn is not None:
            turn, self._turn = self._turn, None
            await arrive(self.frame)
            await self._finish(turn)
        for item in self._rest:
            key = self._key_of(item)
            if key is None or self._is_new(key):
                self._turn = self._begun(key)
                return item
        self._tell()
        return None

    @property
    def _is_alone(self) -> bool:
        return self.frame.run.alone and (not self.in_thread or self.frame.task is None)

    def _key_of(self, item: T) -> str | None:
        if self._key is None:
            return None
        return checked_key("each", self._key(item))

    def _is_new(self, key: str) -> bool:
        self._seen[key] += 1
        return self._seen[key] > self._done_before[key]

    # -- where it goes on ----------------------------------------------------------------------------------

    async def _first_unfinished(self) -> Iterator[T]:
        rows = self.frame.run.records.turns(self.frame.scope, self.branch)
        if not rows:
            return iter(self._items)
        if (rows[-1].key is None) != (self._key is None):
            raise self._counted_otherwise(rows[-1])
        tells = [told_by(row) for row in rows]
        whole = max((k for k, each in enumerate(tells) if each.state is not None), default=-1)
        for k, (row, told) in enumerate(zip(rows, tells, strict=True)):
            await recalled(self, row if k > whole else replace(row, delta=None))
            if k == whole:
                self._apply(row, told.state or {})
            elif k > whole:
                self._note_change(row)
        self._turns, self._keys, self._once = tells[-1].turns, tells[-1].keys, tells[-1].once
        self._whole = rows[whole].seq if whole >= 0 else 0
        self._rows = rows
        return await self._behind_finished()

    def _counted_otherwise(self, row: Checkpoint) -> Stop:
        was, now = ("by number", "by key=") if row.key is None else ("by key=", "by number")
        return self.frame.run.poison(
            Diverged(
                f"run {self.frame.run.id!r}, checkpoint {row.seq}: the turns of this loop were known {was}, and are "
                f"known {now} now, so it cannot be told which are finished. Nothing was executed. Put key= back as it "
                "was, or give the workflow another version."
            )
        )

    def _apply(self, row: Checkpoint, ops: dict[str, Any]) -> None:
        delta.refuse_malformed(ops, f"the state change of checkpoint {row.seq}")
        self.frame.view.apply(Change(step=ops), row.seq)
        self._changed.update(dict.fromkeys(ops))
        self._size = len(row.result or b"")

    def _note_change(self, row: Checkpoint) -> None:
        self._changed.update(dict.fromkeys(decode_change(row).step or ()))
        self._since += len(row.delta or b"")

    async def _behind_finished(self) -> Iterator[T]:
        if self._key is None:
            items: Any = self._items
            behind: Any = items[self._turns :] if isinstance(items, _SLICED) else islice(items, self._turns, None)
            return iter(behind)
        rest = iter(self._items)
        first = list(islice(rest, self._turns))
        keys = [self._key_of(item) or "" for item in first]
        came_to = b""
        for key in keys:
            came_to = _come_to(came_to, key)
        if came_to == self._keys:
            self._seen.update(keys)
            self._done_before.update(keys)
            return rest
        # The items are others than they were, or in another order: each finished turn has to be asked for its key.
        home, run = self.frame.run.home, self.frame.run
        rows = present(await home._read(home._store.load, run.no))
        here = [row for row in rows if (row.scope, row.branch, row.kind) == (self.frame.scope, self.branch, TURN)]
        for row in here:
            if (flaw := flaw_of(row)) is not None:
                raise run.cannot_read(row, CodecError(flaw))
        self._done_before = Counter(row.key for row in here if row.key is not None)
        return chain(first, rest)

    # -- a turn --------------------------------------------------------------------------------------------

    def _begun(self, key: str | None) -> _Turn:
        frame, run = self.frame, self.frame.run
        n = self._turns if key is None else self._seen[key] - 1
        scope = scope_of(frame.scope, self.branch, TURN, key, n)
        inside = Frame(run, scope, "", frame.view.begin(alone=self._is_alone), depth=frame.depth, step=frame.step)
        inside.task = frame.task
        run.folding.open(scope, run.records.rows if run.records.has_entered(scope) else ())
        return _Turn(key, n, inside)

    async def _finish(self, turn: _Turn) -> None:
        run, scope = self.frame.run, turn.frame.scope
        self._refuse_left(scope)
        self._once = self._once or run.folding.has_once(scope)
        inside = run.records.without_unmet(run.folding.close(scope))
        run.folding.fold(inside)
        run.records.fold(inside)
        change = turn.frame.view.change()
        row = blank_row(run.no, run.epoch, kind=TURN)
        row.scope, row.branch, row.name, row.key, row.n = self.frame.scope, self.branch, TURN, turn.key, turn.n
        row.started_ms, row.duration_ms = turn.began_ms, (clock.monotonic() - turn.since) * 1000
        self._turns += 1
        if turn.key is not None:
            self._keys = _come_to(self._keys, turn.key)
        state = self._whole_change(turn.frame.view, change)
        self._fold_turns(AFTER_ALL if state is not None else self._whole)
        told = Told(self._turns, self._keys, state, once=self._once)
        run.folding.tell(told)
        row.result = told.encode()
        try:
            await recorded(self, row, change)  # what it tells of other rows is true now, and not later
        except CodecError as unfit:  # the rows it was to stand for count as folded already: no other may tell so
            raise run.poison(unfit) from None
        if self._once and row.scope:  # another attempt of what is around may not come to the loop again
            run.records.must_be_met(row)
        if state is not None:
            self._size, self._since, self._whole = len(row.result), 0, row.seq
        else:
            self._since += len(row.delta or b"")
        self._changed.update(dict.fromkeys(change or ()))
        self._rows.append(row)
        if clock.monotonic() - self._told_at > _TOLD_EVERY_S:
            self._tell()

    def _refuse_left(self, scope: str) -> None:
        run = self.frame.run
        if not run.alone and (left := run.tasks_inside(scope)):
            raise HoldfastError(
                f"run {run.id!r}: a turn of each is over, and a task that it began is still under way "
                f"({', '.join(sorted(task.get_name() for task in left))}). What it does would be lost on a resume, "
                "which skips the turn: await it in the turn, or create it outside of the loop."
            )

    def _whole_change(self, view: View, change: dict[str, Any] | None) -> dict[str, Any] | None:
        """What the loop has changed so far, if the rows of its turns weigh more than that; no others have seen what the
        state was in between."""
        if not self._alone or self._since <= SLACK * self._size:
            return None
        keys = {**self._changed, **dict.fromkeys(change or ())}
        return delta.diff(self._base, view.current, keys, overlaps=False) or {}

    def _fold_turns(self, whole: int) -> None:
        """Another turn has ended. Of those before it the rows are live that have changed the state since the one
        numbered ``whole``, which tells the whole change; that one; and those that carry what the body changed before.
        """
        live: list[Checkpoint] = []
        folded: list[Checkpoint] = []
        for row in self._rows:
            (live if row.seq == whole or _carries(row, whole) else folded).append(row)
        self.frame.run.folding.fold(folded)
        self.frame.run.records.fold(folded)
        self._rows = live

    def _tell(self) -> None:
        self._told_at = clock.monotonic()
        if isinstance(self._items, Sized):
            self.frame.run.tell(self.frame, (self._turns, len(self._items)))

    # -- being left ----------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """By break, return or an exception: the turn stays unfinished, and what its code changed in the state is its
        workflow's own change."""
        turn, self._turn = self._turn, None
        if turn is not None:
            self.frame.run.folding.leave(turn.frame.scope)
            try:
                if (change := turn.frame.view.change()) is not None:
                    self.frame.view.make(change)
            except StateConflict as conflict:
                self.frame.run.poison(conflict)


def _refuse_changed(watched: Watched | None, frame: Frame, *, is_in_turn: bool) -> None:
    if is_in_turn and watched is not None and watched.changed is not None:
        name, how, held = watched.changed
        if not frame.run.alone and any(held is value for value in frame.view.current.values()):
            return  # a list of the state, which may have grown by what others did meanwhile
        raise HoldfastError(
            f"run {frame.run.id!r}: a turn of each has {how} {name!r}, which was bound before the loop. A resume skips "
            f"finished turns, and would not find that change: keep it in holdfast.state, or bind {name!r} in each turn "
            "anew (under another name than before the loop)."
        )


def _carries(row: Checkpoint, whole: int) -> bool:
    return row.delta is not None and (row.seq > whole or bool(decode_change(row).body))


def _come_to(before: bytes, key: str) -> bytes:
    return codec.fingerprint(before + key.encode())


class _AsyncLoop(_Loop[T]):
    """The loop of an ``async for``. Nobody else holds it, so it is gone as soon as the loop is left."""

    def __init__(self, items: Iterable[T], key: Callable[[T], str] | None, frame: Frame | None) -> None:
        self._plain = iter(items) if frame is None else None
        self._task: asyncio.Task[Any] | None = None
        if frame is not None:
            super().__init__(items, key, frame)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        if self._plain is None:
            self._watched = Watched.of(self._watched, sys._getframe(1), self.frame.run.folding.gone_through)
        return self._next()

    async def _next(self) -> T:
        if self._plain is not None:
            for item in self._plain:
                return item
            raise StopAsyncIteration
        self._task = asyncio.current_task()
        branches.move_to(self.frame, self._task)
        _refuse_changed(self._watched, self.frame, is_in_turn=self._turn is not None)
        item = await self._go_on()
        if self._turn is None:
            if self._watched is not None:
                self._watched.end()
            raise StopAsyncIteration
        branches.move_to(self._turn.frame, self._task)
        if self._watched is not None:
            self._watched.go_on()
        return item

    def __del__(self) -> None:
        turn = getattr(self, "_turn", None)
        if turn is not None:
            if branches.frame_of(self._task) is turn.frame:
                branches.move_to(self.frame, self._task)
            self._leave()


class _PlainLoop(_Loop[T]):
    """The loop of a ``for`` in plain ``def`` code."""

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        self._watched = Watched.of(self._watched, sys._getframe(1), self.frame.run.folding.gone_through)
        branches.move_to(self.frame, None)
        _refuse_changed(self._watched, self.frame, is_in_turn=self._turn is not None)
        item: T = threads.ask_the_loop(self, lambda _: self._go_on())
        if self._turn is None:
            self._watched.end()
            raise StopIteration
        branches.move_to(self._turn.frame, None)
        self._watched.go_on()
        return item

    def __del__(self) -> None:
        if getattr(self, "_turn", None) is not None:
            branches.move_to(self.frame, None)
            self._leave()
