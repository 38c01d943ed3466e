"""Run a program, cut its record where a crash could have, resume it with other timings, and compare what happened."""

from __future__ import annotations

import asyncio
import copy
import random
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import programs
from programs import World

from holdfast import branches, codec
from holdfast import run as run_module
from holdfast.app import Holdfast
from holdfast.recall import OPEN
from holdfast.state import replay
from holdfast.store import Checkpoint, Claim, RunRow, Store
from holdfast.store.memory import MemoryStore
from holdfast.store.protocol import end_checksum

HANGS_AFTER_S = 20
INITIAL: dict[str, Any] = {"log": [], "table": {}}
DELIVERED = "-- delivered"


class Wrong(AssertionError):
    """A promise is broken; the message says how to see it again."""


@dataclass
class Record:
    """What a store holds of one run, and what was lived through by the execution that wrote the end of it."""

    run: RunRow
    rows: list[Checkpoint]
    world: World
    result: Any
    error: BaseException | None
    state: dict[str, Any]
    executed: list[tuple[Any, ...]] = field(default_factory=list)
    recalled: list[tuple[Any, ...]] = field(default_factory=list)
    unclaimed: list[str] = field(default_factory=list)
    killed: bool = False  # in the middle: it lived through less than its rows say


def _place(row: Checkpoint) -> tuple[Any, ...]:
    return row.scope, row.branch, row.name, row.key, row.n


def restored(record: Record, cut: int) -> MemoryStore:
    """A store as a crash after ``cut`` committed checkpoints leaves it."""
    store = MemoryStore()
    data, run = store._data, copy.copy(record.run)
    run.status, run.result, run.error, run.owner, run.lease_until_ms = "running", None, None, None, 0
    run.end_checksum = end_checksum("running", None, None)
    data.runs[run.no] = run
    data.numbers[run.id] = data.last_no = run.no
    data.checkpoints[run.no] = {row.seq: copy.copy(row) for row in record.rows[:cut]}
    data.claims[run.no] = [
        Claim(run_no=run.no, epoch=n, owner="killed", claimed_ms=run.created_ms, found="running" if n > 1 else "")
        for n in range(1, run.epoch + 1)
    ]
    return store


async def execute(
    call: Callable[[], Any],
    id: str,
    store: Store,
    timing: int,
    *,
    events: list[tuple[Any, ...]] | None = None,
    observer: Callable[[str, Any, Checkpoint], None] | None = None,
) -> Record:
    """Run it to its end on this loop; what it lives through is appended to ``events``, and ``observer`` is told too."""
    world = programs.worlds[id] = World(timing, events=[] if events is None else events)
    seen: dict[str, list[tuple[Any, ...]]] = {"began": [], "executed": [], "recalled": [], "waiting": [], "kept": []}

    def observe(event: str, run: Any, row: Checkpoint) -> None:
        seen[event].append(_place(row))
        if observer is not None:
            observer(event, run, row)

    hf = Holdfast(store)
    hf._observer = observe
    result, error = None, None
    try:
        async with asyncio.timeout(HANGS_AFTER_S):
            result = await hf.run(call(), id=id, state=INITIAL)
    except TimeoutError:
        row = store.get(id)
        rows = store.load(row.no) if row is not None else []
        raise Wrong("it hangs; its record so far:\n" + table(rows)) from None
    except Exception as raised:
        error = raised
    finally:
        await hf.aclose()
        del programs.worlds[id]
    row = store.get(id)
    assert row is not None
    run = _lived.pop(id)
    return Record(
        run=row,
        rows=store.load(row.no),
        world=world,
        result=result,
        error=error,
        state=copy.deepcopy(run.view.current),
        executed=seen["began"],
        recalled=seen["recalled"],
        unclaimed=[f"{row.seq} {row.branch}: {row.name}#{row.n}" for row in run.records.unclaimed],
    )


_lived: dict[str, run_module.LiveRun] = {}


def tell_of_deliveries() -> Callable[[], None]:
    """Have each world told when an outcome is handed to the run's own body; returns how to undo it."""
    original, begin = run_module.LiveRun.delivering, run_module.LiveRun.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        _lived[self.id] = self

    def delivering(self: Any, row: Checkpoint) -> None:
        here = programs.worlds.get(self.id)
        if here is not None and not row.scope:
            here.events.append((DELIVERED, row.seq, f"{row.branch}: {row.name}#{row.n}", row.status))
        original(self, row)

    run_module.LiveRun.delivering, run_module.LiveRun.__init__ = delivering, __init__  # type: ignore[method-assign]

    def undo() -> None:
        run_module.LiveRun.delivering, run_module.LiveRun.__init__ = original, begin  # type: ignore[method-assign]

    return undo


def lived(events: list[tuple[Any, ...]], cut: int) -> list[tuple[Any, ...]]:
    """What happened up to the moment when the first outcome behind ``cut`` was delivered."""
    for at, event in enumerate(events):
        if event[0] == DELIVERED and event[1] > cut:
            return events[:at]
    return events


def table(rows: list[Checkpoint], mark: int = -1) -> str:
    lines = []
    for row in rows:
        inputs = codec.readable(row.inputs) if row.inputs else None
        lines.append(
            f"  {'>' if row.seq > mark >= 0 else ' '}{row.seq:3} e{row.epoch} [{row.scope}] {row.branch}: "
            f"{row.name}#{row.n} {row.status} {inputs!r:.90}"
        )
    return "\n".join(lines)


def check(before: Record, cut: int, after: Record) -> None:
    """What a resume from the first ``cut`` checkpoints of ``before`` promises about ``after``."""
    kept, rows = before.rows[:cut], after.rows
    if after.error is not None:
        raise Wrong(f"it ended with {after.error!r}") from after.error
    if [row.seq for row in rows] != list(range(1, len(rows) + 1)):
        raise Wrong(f"seq has a gap: {[row.seq for row in rows]}")
    if rows[:cut] != kept:
        raise Wrong("a row from before the crash was changed")
    places = Counter(_place(row) for row in rows if row.kind != "save" and row.status not in OPEN)
    if again := [place for place, times in places.items() if times > 1 and not _is_retried(place, rows)]:
        raise Wrong(f"recorded twice: {again}")
    if after.unclaimed:
        raise Wrong(f"never asked for: {after.unclaimed}")
    standing = {_place(row) for row in kept if row.kind != "save" and row.status not in OPEN}
    standing -= {_place(row) for row in kept if row.status == "failed" and row.scope}  # a new attempt tries these anew
    if again := [place for place in after.executed if place in standing]:
        raise Wrong(f"executed though recorded: {again}")
    _check_ledger(kept, rows, after.world)
    then, now = lived(before.world.events, cut), lived(after.world.events, cut)
    if before.killed:
        now = now[: len(then)]
    if then != now:
        raise Wrong("what was recorded before the crash came about in another way:\n" + difference(then, now))
    told = replay(after.run, rows).state
    if told != after.state:
        raise Wrong(f"the state is {after.state}\n  but a reader of the record arrives at {told}")


def _is_retried(place: tuple[Any, ...], rows: list[Checkpoint]) -> bool:
    """Inside of a call with several attempts a failed record may be followed by a better one."""
    return any(_place(row) == place and row.scope and row.status != "done" for row in rows)


def _check_ledger(kept: list[Checkpoint], rows: list[Checkpoint], world: World) -> None:
    """Told by the bodies of the steps, which know nothing of places."""

    def count(of: list[Checkpoint]) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for row in of:
            if row.kind == "step" and row.status != "cancelled" and row.name in _TELLING:
                inputs = codec.readable(row.inputs or b"")
                found[row.name, next(iter(inputs.values()))] += 1
        return found

    did, recorded = Counter(call for call in world.ended if call[0] in _TELLING), count(rows)
    recorded.subtract(count(kept))
    recorded = +recorded
    if did != recorded:
        raise Wrong(f"executed but not recorded: {did - recorded}, recorded but not executed: {recorded - did}")


# Not ``crunch``: a thread goes on when its call is cancelled. Not ``flaky``: its failed attempts tell nothing.
_TELLING = {"fetch", "parse", "note", "append", "put", "pair", "wide", "broken", "Client.load"}


def difference(then: list[Any], now: list[Any]) -> str:
    at = next((k for k, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
    lines = [f"  both: {each!r:.200}" for each in then[max(0, at - 4) : at]]
    lines += [f"  then: {each!r:.300}" for each in then[at : at + 4]] + [
        f"  now:  {each!r:.300}" for each in now[at : at + 4]
    ]
    return "\n".join(lines)


@dataclass
class Campaign:
    """One program and one seed: every cut of its first record, each resumed and cut again until nothing is left."""

    name: str
    call: Callable[[], Any]
    seed: int
    shown: str = ""
    resumes: int = 0
    id: str = "first"

    async def through(self, *, cuts: int | None = None) -> None:
        chance = random.Random(f"{self.name}/{self.seed}")
        first = await execute(self.call, self.id, MemoryStore(), chance.randrange(1, 10**6))
        story = f"timing {first.world.timing}"
        try:
            check(first, 0, first)
            every = list(range(len(first.rows) + 1))
            if cuts is not None and cuts < len(every):
                every = sorted({*chance.sample(every, cuts), len(first.rows)})
            for cut in every:
                # Seeded for each cut, so that a replay that tries more of them meets the same timings at this one.
                await self._crash_after(first, cut, random.Random(f"{self.name}/{self.seed}/{cut}"), story)
        except Wrong as wrong:
            raise self._told(wrong, story, first.rows) from wrong.__cause__

    async def _crash_after(self, before: Record, cut: int, chance: random.Random, story: str) -> None:
        while True:
            timing = chance.choice([0, chance.randrange(1, 10**6)])
            story += f", cut after {cut}, timing {timing}"
            after: Record | None = None
            try:
                after = await execute(self.call, self.id, restored(before, cut), timing)
                self.resumes += 1
                check(before, cut, after)
                if cut == len(before.rows):
                    self._check_whole(before, after)
            except Wrong as wrong:
                raise self._told(wrong, story, before.rows, cut, after) from wrong.__cause__
            if cut == len(before.rows):
                return
            # Crash again, further on: at last with nothing left to do, so that every record is recalled whole.
            before, cut = after, chance.choice([len(after.rows), chance.randrange(cut, len(after.rows)) + 1])

    def _check_whole(self, before: Record, after: Record) -> None:
        if after.executed or after.world.began:
            raise Wrong(f"nothing was left to do, but executed was {after.executed} {after.world.began}")
        if after.rows != before.rows:
            raise Wrong("nothing was left to do, but the record grew")
        if after.state != before.state:
            raise Wrong(f"the state was {before.state}\n  and recalled it is {after.state}")
        if after.result != before.result:
            raise Wrong(f"the result was {before.result!r}, and recalled it is {after.result!r}")

    def _told(
        self, wrong: Wrong, story: str, rows: list[Checkpoint], cut: int = -1, after: Record | None = None
    ) -> Wrong:
        if "HOLDFAST_ORDER=" in str(wrong):
            return wrong
        lines = [str(wrong), f"program {self.name}, seed {self.seed}: {story}"]
        lines += [f"  {self.shown}"] if self.shown else []
        lines += ["the record before the crash (> is lost):", table(rows, cut)]
        if after is not None:
            lines += ["the record after:", table(after.rows)]
        lines += [f"see it again: HOLDFAST_ORDER={self.name}:{self.seed} pytest tests/order/test_order.py -k replay"]
        return Wrong("\n".join(lines))


def on_loop(which: str, main: Coroutine[Any, Any, Any]) -> Any:
    """Run it on a new loop of this kind."""
    factory: Any = None
    if which == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    undo = tell_of_deliveries()
    try:
        with asyncio.Runner(loop_factory=factory) as runner, warnings.catch_warnings():
            # Calls that a cancelled branch had made and not begun are nothing to warn about here.
            warnings.simplefilter("ignore", RuntimeWarning)
            return runner.run(main)
    finally:
        undo()
        assert not branches.live_runs
