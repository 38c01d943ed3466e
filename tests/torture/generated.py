"""Generated programs crashed at a random point and resumed: unchanged, and edited.

Most crashes are images: of the store in memory as it was at a point of a life, with what the bank had booked by then.
The others are processes that are killed. What must hold is the same.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import random
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast import Holdfast, codec, once, patience
from holdfast.failure import Failure
from holdfast.recall import OPEN
from holdfast.store import Batch, Checkpoint, Committed, RunRow, open_store
from holdfast.store.memory import MemoryStore
from holdfast.testing.zygote import Reply, Request

from . import drawn
from .case import Campaign, Case, Findings
from .drawn import Drawn, nodes_of
from .drawn_lives import ID, Plan, edited_of, lived, told_in
from .drawn_steps import World, live, value_of

import harness  # isort: skip - drawn has put its folder on the path

TARGET = "tests.torture.drawn_lives:one_life"
HANGS_AFTER_S = 60.0
LONGEST_MS = 60.0  # of a process that is killed
LIVES_MAX = 60
KILLED_EACH = 20
CUTS_UNTIL = 12  # the number of a life
LOUD = {"Diverged", "VersionMismatch", "InDoubt"}
LOOPS = ("asyncio", "uvloop")


@dataclass
class Lived:
    """A life: what stood in the store before it, what it told until it was cut, and how it ended if it did."""

    rows: list[Checkpoint]
    has_failed: bool  # the run, before
    events: list[Any]
    outcome: list[Any] | None

    def told(self, what: str) -> list[tuple[str, str]]:
        return [(event[1], event[2]) for event in self.events if event[0] == what]


Story = Generator[Plan, Lived, list[str]]


# -- what must hold ----------------------------------------------------------------------------------------------


def unchanged(seed: int, counted: Counter[str]) -> Story:
    """Whatever it was cut by, it gives what it gives without holdfast, and pays what it pays; what was acknowledged is
    not executed again."""
    chance, program = random.Random(f"unchanged {seed}"), drawn.drawn(seed)
    plain, books = program.without()
    cuts, bank, keys = chance.choice((1, 1, 2, 3)), Counter[tuple[str, str]](), {}
    failures, settle = 0, None
    for number in range(1, LIVES_MAX):
        plan = Plan(seed, number, chance.choice((0, chance.randrange(1, 10**6))), settle=settle)
        plan.cut = chance.random() if number <= cuts else None
        life = yield plan
        bank.update(life.told("booked"))
        if again := _acknowledged(life).intersection(life.told("began")):
            return [f"life {number} executed again what was acknowledged: {sorted(again)}"]
        for _, name, tag, key in (event for event in life.events if event[0] == "booked"):
            if keys.setdefault(key, (name, tag)) != (name, tag):
                return [f"life {number}: {name} {tag} has the idempotency key of {keys[key]}"]
        settle = None
        if life.outcome is None:
            counted["crashes"] += 1
            continue
        counted[f"unchanged: {life.outcome[0]}"] += 1
        if life.outcome[0] == "InDoubt":
            settle = _settled(life.outcome, bank)
            if life.outcome[2].startswith("pay, verified"):
                failures += 1  # the program has failed before it came to it; the next life tries that anew
                if "ended with" not in life.outcome[4] or failures > 3:
                    return [f"life {number} is in doubt of what can be verified: {life.outcome}"]
                settle = settle if plain is None else None
            continue
        failures += life.outcome[0] == "failed"
        if life.outcome[0] == "failed" and failures < 4:
            continue
        told = life.outcome[1] if life.outcome[0] == "done" else None
        if told != plain or life.outcome[0] not in ("done", "failed"):
            failed = [
                f"{row.name}, checkpoint {row.seq}, failed with {Failure.decode(row.result or b'', 'the failure')}"
                for row in life.rows
                if row.status == "failed"
            ]
            return [f"life {number} ended with {life.outcome}, and without holdfast it gives {plain}", *failed]
        return [] if bank == Counter(books) else [f"paid was {_difference(bank, Counter(books))}"]
    return ["it does not come to its end"]


def edited(seed: int, counted: Counter[str]) -> Story:
    """Nothing is paid twice, and it gives what the edited program gives, or says loudly that it does not."""
    chance, (program, what) = random.Random(f"edited {seed}"), edited_of(seed)
    how = chance.choice(("same version", "salvage", "salvage", "restart", "refuse"))
    version = "1" if how == "same version" else "2"
    after = Plan(seed, 1, 0, "edited", version=version, on_change=how if version == "2" else "salvage")
    bank = Counter[tuple[str, str]]()

    def told(problem: str) -> list[str]:
        return [problem, f"({how}; {', '.join(what)}: {program})"]

    life = yield Plan(seed, 1, chance.choice((0, chance.randrange(1, 10**6))), "before editing", cut=chance.random())
    bank.update(life.told("booked"))
    if life.outcome is not None and life.outcome[0] == "done":
        counted["done before it was edited"] += 1
        return []
    if not life.events:
        counted["killed before it began"] += 1
        return []
    ended = yield from _to_its_end(after, program, chance, bank, counted)
    counted[f"{how}: {ended[0]}"] += 1
    if problem := _of_edited(ended, program, how, bank):
        return told(problem)
    if how in ("same version", "salvage") and ended[0] == "Diverged":  # put back as it was
        back = Plan(seed, ended[-1], 0, "before editing", version="1" if version == "1" else "3")
        original = back.program
        ended = yield from _to_its_end(back, original, chance, bank, counted)
        counted[f"{how}, put back: {ended[0]}"] += 1
        if problem := _of_edited(ended, original, "salvage", bank, edited_had=program.options):
            return told(f"put back: {problem}")
    return []


def _to_its_end(
    plan: Plan, program: Drawn, chance: random.Random, bank: Counter[tuple[str, str]], counted: Counter[str]
) -> Generator[Plan, Lived, list[Any]]:
    """[how it ended, what there is to say of it, the number of the last life]. Doubts are settled on the way."""
    is_once = all(node[0] != "pay, once no longer" for _, node in nodes_of(program.tree))
    failures = 0
    for number in range(plan.number + 1, plan.number + LIVES_MAX):
        plan.number, plan.timing = number, chance.choice((0, chance.randrange(1, 10**6)))
        # What is not executed once any more is executed at least once.
        plan.cut = (
            chance.random() if is_once and number < CUTS_UNTIL and failures == 0 and chance.random() < 0.3 else None
        )
        life = yield plan
        bank.update(life.told("booked"))
        plan.settle = None
        if plan.version != "1" and plan.on_change == "salvage":
            kept = {each for each in _acknowledged(life, done_only=True) if not each[0].startswith("report")}
            if again := kept.intersection(life.told("began")):
                return ["executed again", f"what a salvage keeps: {sorted(again)}", number]
        if plan.on_change == "refuse" and plan.version != "1" and life.events and life.told("began"):
            return ["executed", f"although it refuses: {life.told('began')}", number]
        if life.outcome is None:
            counted["crashes of edited ones"] += 1
        elif life.outcome[0] == "InDoubt":
            counted["doubts of edited ones"] += 1
            plan.settle = _settled(life.outcome, bank)
        elif life.outcome[0] != "failed" or failures == 4:
            return [life.outcome[0], life.outcome[1], number]
        else:
            failures += 1
    return ["endless", "", LIVES_MAX]


def _of_edited(
    ended: list[Any],
    program: Drawn,
    how: str,
    bank: Counter[tuple[str, str]],
    edited_had: frozenset[str] = frozenset(),
) -> str | None:
    """What is wrong with how an edited program has ended. ``edited_had``: the options of the one before it."""
    plain, books = program.without()
    if twice := {each: times for each, times in bank.items() if times > 1}:
        return f"paid more than once: {twice}"
    if ended[0] in ("done", "failed"):
        if how == "refuse":
            return f"it was not refused, it ended with {ended}"
        if (ended[1] if ended[0] == "done" else None) != plain:
            return f"it ended with {ended}, and without holdfast it gives {plain}"
        if ended[0] == "done" and (unpaid := set(books) - set(bank)):
            return f"it is done, and never paid {sorted(unpaid)}"
        return None
    grown = "grown" in program.options and "fields new ['words']" in ended[1]
    grown |= "grown" in edited_had and "fields gone ['words'], fields new []" in ended[1]
    return None if (ended[0] == "CodecError" and grown) or ended[0] in LOUD else f"it ended with {ended}"


def _acknowledged(life: Lived, *, done_only: bool = False) -> set[tuple[str, str]]:
    """The calls whose outcome stood in the store when it began, and which are not to be tried anew."""
    stand = {"done"} if done_only or life.has_failed else {"done", "failed"}
    calls = [row for row in life.rows if row.kind in ("step", "workflow") and row.status not in OPEN]
    return {
        (row.name, codec.readable(row.inputs or b"").get("tag", ""))
        for row in calls
        if row.status == "done" or (row.status in stand and not row.scope)
    }


def _tries_anew(run: RunRow) -> bool:
    """Whether whoever goes on with it executes again what it failed with."""
    return run.error is not None and bool(Failure.decode(run.error, "its error").seqs)


def _settled(doubt: list[Any], bank: Counter[tuple[str, str]]) -> tuple[int, str | None]:
    """What a person says who has looked into the books of the bank."""
    _, seq, name, tag, _ = doubt
    return seq, value_of(name, tag) if bank[name, tag] else None


def _difference(bank: Counter[tuple[str, str]], books: Counter[tuple[str, str]]) -> str:
    return f"{dict(bank - books)} more and {dict(books - bank)} less than without holdfast"


@contextmanager
def impatient() -> Iterator[None]:
    """An edited program is waited for in vain: its code is not slow, it does not ask any more."""
    before = patience.PATIENCE_S, once._PATIENCE_S
    patience.PATIENCE_S, once._PATIENCE_S = 0.05, 0.0
    try:
        yield
    finally:
        patience.PATIENCE_S, once._PATIENCE_S = before


STORIES = {"unchanged": unchanged, "edited": edited}


# -- images --------------------------------------------------------------------------------------------------------


@dataclass
class Image:
    """What is left of a run when its process is gone, and what the bank knows."""

    run: RunRow | None = None
    rows: list[Checkpoint] = field(default_factory=list)
    booked: set[tuple[str, ...]] = field(default_factory=set)

    def store(self) -> MemoryStore:
        if self.run is None:
            return MemoryStore()
        record: Any = self
        store = harness.restored(record, len(self.rows))
        run = store._data.runs[self.run.no] = copy.copy(self.run)
        run.owner, run.lease_until_ms = None, 0
        return store


class Watched:
    """A store that tells the world of each commit, with the image of it."""

    def __init__(self, store: MemoryStore, world: World) -> None:
        self._store = store
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, batch: Batch) -> Committed:
        committed = self._store.commit(batch)
        self._tell()
        return committed

    def claim(self, *args: Any, **options: Any) -> Any:
        claimed = self._store.claim(*args, **options)
        self._tell()
        return claimed

    def _tell(self) -> None:
        run = self._store.get(ID)
        if run is not None:
            self._world.events.append(("image", run, self._store.load(run.no)))


def in_memory(name: str, seed: int, counted: Counter[str]) -> list[str]:
    """What is wrong with a story whose crashes are images."""
    with impatient() if name == "edited" else nullcontext():
        return _in_memory(STORIES[name](seed, counted), LOOPS[seed % 2])


def _in_memory(story: Story, loop: str) -> list[str]:
    image = Image()
    try:
        plan = next(story)
        while True:
            life, image = _live(plan, image, loop)
            plan = story.send(life)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _live(plan: Plan, image: Image, loop: str) -> tuple[Lived, Image]:
    world = live(World(plan.number, plan.timing, set(image.booked)))
    store: Any = Watched(image.store(), world)

    async def main() -> list[Any]:
        async with asyncio.timeout(HANGS_AFTER_S), Holdfast(store) as hf:
            return await lived(hf, plan)

    factory: Any = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    outcome: list[Any] | None
    try:
        with asyncio.Runner(loop_factory=factory) as runner, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # calls that a cancelled branch made and did not begin
            outcome = runner.run(main())
    except Exception as error:
        outcome = [type(error).__name__, str(error)]
    events = list(world.events)
    if plan.cut is not None and (at := 1 + int(plan.cut * len(events))) < len(events):
        events, outcome = events[:at], None
    life = Lived(image.rows, image.run is not None and _tries_anew(image.run), events, outcome)
    images = [event for event in events if event[0] == "image"]
    run, rows = images[-1][1:] if images else (image.run, image.rows)
    return life, Image(run, rows, image.booked.union(life.told("booked")))


# -- processes -------------------------------------------------------------------------------------------------------


def killed(name: str, seed: int) -> Case:
    """A story in processes of their own, on a file."""

    def lives(campaign: Campaign, folder: Path) -> Generator[Request, Reply, list[str]]:
        story = STORIES[name](seed, campaign.findings.injected)
        try:
            plan = next(story)
            while True:
                plan.write(folder)
                life = yield from _process(campaign, folder, plan)
                plan = story.send(life)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    return Case(f"generated killed {name} {seed}", lives)


# -- campaigns -------------------------------------------------------------------------------------------------------


def run(first: int, until: float, *, programs: int = 0, stop_at_first: bool = False) -> Findings:
    """Programs numbered from ``first``, until the time is over and there were so many; one in twenty is killed."""
    with Campaign(TARGET, None, stop_at_first=stop_at_first) as campaign:
        findings, began = campaign.findings, time.monotonic()
        killed_ones = (killed(name, number) for number in itertools.count(first, KILLED_EACH) for name in STORIES)
        for number in itertools.count(first):
            is_over = number - first >= programs and time.monotonic() >= until
            if is_over or (stop_at_first and findings.wrong):
                findings.injected["programs"] = number - first
                findings.seconds = time.monotonic() - began
                return findings
            if (number - first) % KILLED_EACH == 0:
                campaign.run(itertools.islice(killed_ones, len(STORIES)))
                continue
            for name in STORIES:
                _try_in_memory(name, number, findings)
    raise AssertionError("it ends when its time does")


def replay(how: str, name: str, seed: int) -> Findings:
    with Campaign(TARGET, None) as campaign:
        if how == "killed":
            return campaign.run(iter([killed(name, seed)]))
        _try_in_memory(name, seed, campaign.findings)
        return campaign.findings


def _try_in_memory(name: str, seed: int, findings: Findings) -> None:
    findings.cases += 1
    log = logging.getLogger("holdfast")
    before = log.level
    log.setLevel(logging.CRITICAL)  # a doubt is no news here
    try:
        problems = in_memory(name, seed, findings.injected)
    finally:
        log.setLevel(before)
    if problems:
        told = [f"generated memory {name} {seed}:", *(f"  - {each}" for each in problems), f"  {drawn.drawn(seed)}"]
        findings.wrong.append("\n".join(told))


def _process(campaign: Campaign, folder: Path, plan: Plan) -> Generator[Request, Reply, Lived]:
    rows, has_failed, before = *_stands(folder), len(told_in(folder))
    after = None if plan.cut is None else 2.0 * (LONGEST_MS / 2.0) ** plan.cut
    loop = random.Random(f"loop {plan.seed} {plan.number}").choice(LOOPS)
    reply = yield from campaign.life(folder, plan.number, kill_after_ms=after, loop=loop)
    outcome: Any = None
    if not reply.killed:
        campaign.findings.injected["processes that ended"] += 1
        outcome = codec.readable(reply.result) if reply.result is not None else ["lost", str(reply)]
    else:
        campaign.findings.injected["kills"] += 1
    return Lived(rows, has_failed, told_in(folder)[before:], outcome)


def _stands(folder: Path) -> tuple[list[Checkpoint], bool]:
    if not (folder / "sweep.db").exists():
        return [], False
    store = open_store(folder / "sweep.db")
    try:
        run = store.get(ID)
        return ([], False) if run is None else (store.load(run.no), _tries_anew(run))
    finally:
        store.close()
