"""The zoo: programs that depend on the order in which their steps complete.

Each is a workflow that tells a ``World`` what its steps execute and what its body sees, in which order. A step's value
holds a number that no other execution has, so that a result in the wrong hands shows; and the inputs of later steps are
made of what came before, so that an order that does not repeat is a divergence and not just another log.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import holdfast
from holdfast import branches, step, workflow

# -- what a run tells, outside every store ---------------------------------------------------------------------

worlds: dict[str, World] = {}
_serial = itertools.count(1)


@dataclass
class World:
    """One execution of a run, from its start (or resume) to its end: how long its steps take, and what it did."""

    timing: int  # the seed of its step timings; 0: no step takes any time
    events: list[tuple[Any, ...]] = field(default_factory=list)  # what the body saw, and when outcomes were delivered
    began: list[tuple[str, str]] = field(default_factory=list)  # the ledger: bodies of steps that started …
    ended: list[tuple[str, str]] = field(default_factory=list)  # … and those that came to their end
    flaky: dict[tuple[str, str], int] = field(default_factory=dict)

    def pause_s(self, name: str, tag: str) -> float | None:
        """From the seed and the call alone, so that it does not depend on who asks first."""
        if self.timing == 0:
            return None
        chance = random.Random(f"{self.timing}/{name}/{tag}/{self.began.count((name, tag))}")
        kind = chance.random()
        return None if kind < 0.2 else 0.0 if kind < 0.4 else chance.uniform(0.0, 0.003)

    def enter(self, name: str, tag: str) -> None:
        self.began.append((name, tag))

    def leave(self, name: str, tag: str) -> str:
        self.ended.append((name, tag))
        return f"{tag}@{self.timing}.{next(_serial)}"


def world() -> World:
    return worlds[holdfast.run_id()]


def see(what: str, value: Any = None) -> None:
    """The body of the workflow is here, and this is the state it sees."""
    frame = branches.current_frame()
    assert frame is not None
    if frame.scope:  # the inside of a recorded call is not lived through again
        return
    world().events.append((what, deepcopy(value), deepcopy(dict(holdfast.state))))


async def _work(name: str, tag: str) -> str:
    here = world()
    here.enter(name, tag)
    seconds = here.pause_s(name, tag)
    if seconds is not None:
        await asyncio.sleep(seconds)
    return here.leave(name, tag)


def _work_here(name: str, tag: str) -> str:
    here = world()
    here.enter(name, tag)
    seconds = here.pause_s(name, tag)
    if seconds is not None:
        time.sleep(seconds)
    return here.leave(name, tag)


# -- steps -----------------------------------------------------------------------------------------------------


@step
async def fetch(tag: str) -> str:
    return await _work("fetch", tag)


@step
async def parse(tag: str) -> str:
    return await _work("parse", tag)


@step
async def note(tag: str) -> str:
    """What its input says depends on the order of everything before."""
    return await _work("note", tag)


@step
async def stuck(tag: str) -> str:
    """It only ends when it is cancelled."""
    world().enter("stuck", tag)
    await asyncio.Event().wait()
    return "never"


@step
def crunch(tag: str) -> str:
    return _work_here("crunch", tag)


@step
def crunch_twice(tag: str) -> str:
    """A plain step that calls plain steps, in its thread."""
    return _work_here("crunch_twice", tag) + crunch(f"{tag}.1") + crunch(f"{tag}.2")


@step
async def pair(tag: str) -> str:
    """A step of steps, one after the other."""
    inner = await fetch(f"{tag}.a") + await parse(f"{tag}.b")
    return await _work("pair", tag) + inner


@step
async def wide(tag: str) -> str:
    """A step of steps at the same time."""
    done: list[str] = []

    async def one(k: int) -> None:
        done.append(await fetch(f"{tag}.{k}"))
        done.append(await parse(f"{tag}.{k} {len(done)}"))

    await asyncio.gather(*(one(k) for k in range(3)))
    return await _work("wide", tag) + ",".join(done)


@step(attempts=3, backoff=0.0001)
async def flaky(tag: str) -> str:
    """It fails once in every process, after a step of its own that stays done."""
    inner = await fetch(f"{tag}.kept")
    here = world()
    here.flaky["flaky", tag] = here.flaky.get(("flaky", tag), 0) + 1
    if here.flaky["flaky", tag] == 1:
        raise ValueError("once")
    return await _work("flaky", tag) + inner


@step
async def broken(tag: str) -> str:
    await _work("broken", tag)
    raise LookupError(tag)


@step
async def append(tag: str) -> int:
    here = holdfast.state.setdefault("log", [])
    here.append(tag)
    await _work("append", tag)
    here.append(tag + "'")
    return len(here)


@step
async def put(key: str) -> str:
    value = await _work("put", key)
    holdfast.state.setdefault("table", {})[key] = value
    holdfast.state[f"own {key}"] = [value]
    return value


@workflow(version="1")
async def child(tag: str) -> str:
    a, b = await asyncio.gather(fetch(f"{tag}/a"), parse(f"{tag}/b"))
    at = holdfast.now().isoformat()
    return await note(f"{tag}: {a} {b} {at} {holdfast.uuid4()}") + await _work("child", tag)


class Client:
    """Methods are steps too; ``self`` is no input."""

    def __init__(self, name: str) -> None:
        self.name = name

    @step(name="Client.load")
    async def load(self, tag: str) -> str:
        return await _work("Client.load", tag)

    async def two(self, tag: str) -> str:
        first = await self.load(tag)
        return first + await self.load(tag + "+")


# -- the programs ----------------------------------------------------------------------------------------------

Program = Callable[[], Awaitable[Any]]
ZOO: list[Any] = []


def zoo(function: Program) -> Any:
    made = workflow(version="1")(function)
    ZOO.append(made)
    return made


async def branch(tag: str) -> str:
    a = await fetch(tag)
    see(f"branch {tag}", a)
    b = await parse(f"{tag} of {a}")
    see(f"branch {tag}", b)
    assert a.startswith(tag) and b.startswith(f"{tag} of {a}"), (tag, a, b)
    return b


@zoo
async def sequential() -> str:
    got = ""
    for k in range(5):
        got = await fetch(f"{k} after {got}")
        see("turn", got)
    return got


@zoo
async def swapped_receipts() -> list[str]:
    got = await asyncio.gather(branch("A"), branch("B"))
    see("both", got)
    assert got[0].startswith("A") and got[1].startswith("B"), got
    return got


@zoo
async def nested_gathers() -> Any:
    async def four(tag: str) -> list[str]:
        return await asyncio.gather(branch(f"{tag}0"), branch(f"{tag}1"), fetch(f"{tag}2"))

    got = await asyncio.gather(four("a"), asyncio.gather(four("b"), branch("c")), branch("d"))
    see("all", got)
    return await note(str(got))


@zoo
async def task_group() -> str:
    order: list[str] = []

    async def member(tag: str) -> None:
        order.append(await branch(tag))
        await note(f"{tag} saw {len(order)} {order[-1]}")

    async with asyncio.TaskGroup() as group:
        for k in range(4):
            group.create_task(member(f"m{k}"))
    see("order", order)
    return await note(" ".join(order))


@zoo
async def created_tasks() -> str:
    first = asyncio.create_task(branch("first"))
    here = await branch("here")
    second = asyncio.create_task(branch("second"))
    third = asyncio.create_task(parse(f"third {here}"))  # a step's call is a coroutine
    see("here", here)
    return await note(f"{await third} {await second} {await first}")


@zoo
async def awaited_elsewhere() -> str:
    """A call's place is where it is made, not where it is awaited."""
    calls = [fetch("same"), fetch("same"), fetch("other")]

    async def wait(k: int) -> str:
        got = await calls[k]
        see(f"call {k}", got)
        return await parse(got)

    got = await asyncio.gather(*(wait(k) for k in (2, 0, 1)))
    return await note(str(got))


@zoo
async def waiting_in_time() -> str:
    async with asyncio.timeout(30):
        a = await fetch("a")
    b = await asyncio.wait_for(branch(f"b {a}"), 30)
    c, d = await asyncio.gather(asyncio.wait_for(branch("c"), 30), asyncio.wait_for(parse("d"), 30))
    see("all", [a, b, c, d])
    return await note(f"{a} {b} {c} {d}")


@zoo
async def waiting_too_long() -> str:
    order: list[str] = []

    async def patient(tag: str, seconds: float) -> None:
        try:
            await asyncio.wait_for(stuck(tag), seconds)
        except TimeoutError:
            see("timed out", tag)
            order.append(await note(f"{tag} timed out as {len(order)}"))

    async def busy() -> None:
        for k in range(4):
            order.append(await fetch(f"busy {k} {len(order)}"))

    await asyncio.gather(patient("one", 0.002), busy(), patient("two", 0.004))
    try:
        async with asyncio.timeout(0.001):
            await fetch("before")  # in time or not: whichever it was stays so
            await stuck("three")
    except TimeoutError:
        see("timed out", "three")
    see("order", order)
    return await note(" ".join(order))


@zoo
async def close_call() -> list[str]:
    """A timeout as long as the step: either may win, and the one that did wins again."""
    got = []
    for k in range(5):
        try:
            got.append(await asyncio.wait_for(fetch(f"close {k}"), 0.0015))
        except TimeoutError:
            got.append("late")
        see("turn", got[-1])
        await note(f"{k} {got[-1]}")
    return got


@zoo
async def shielded() -> str:
    kept = asyncio.create_task(branch("kept"))
    try:
        await asyncio.wait_for(asyncio.shield(kept), 0.0005)
    except TimeoutError:
        pass  # In time or late: that depends on a timer of the body alone, so nothing recorded may depend on it.
    got = await asyncio.shield(kept)
    both = await asyncio.gather(asyncio.shield(fetch("x")), asyncio.shield(branch("y")))
    return await note(f"{got} {both}")


@zoo
async def completed_functions() -> str:
    order = []
    for each in asyncio.as_completed([branch(f"f{k}") for k in range(5)]):
        order.append(await each)
        see("next", order[-1])
        await note(f"{len(order)} {order[-1]}")
    return await note(" ".join(order))


@zoo
async def completed_methods() -> str:
    order: list[str] = []
    clients = [Client("a"), Client("b")]
    for each in asyncio.as_completed([clients[k % 2].two(f"m{k}") for k in range(4)]):
        order.append(await each)
        see("next", order[-1])
    for each in asyncio.as_completed([clients[k % 2].load(f"n{k}") for k in range(4)]):
        order.append(await each)
        await note(f"{len(order)} {order[-1]}")
    after = await asyncio.gather(*(clients[0].two(f"after {k}") for k in range(2)))
    return await note(" ".join(order + after))


class Awaits:
    """An awaitable that is no coroutine, as clients of some APIs hand out."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def __await__(self) -> Any:
        return branch(self.tag).__await__()


@zoo
async def completed_awaitables() -> str:
    order = []
    for each in asyncio.as_completed([Awaits(f"w{k}") for k in range(4)]):
        order.append(await each)
        see("next", order[-1])
    both = await asyncio.gather(Awaits("u"), Awaits("v"))
    return await note(" ".join([*order, *both]))


@zoo
async def first_completed() -> str:
    story = []
    for turn in range(3):
        racers = {k: asyncio.create_task(branch(f"{turn}r{k}")) for k in range(3)}
        await asyncio.wait(racers.values(), return_when=asyncio.FIRST_COMPLETED)
        winner = min(k for k, task in racers.items() if task.done())
        for task in racers.values():
            task.cancel()
        await asyncio.gather(*racers.values(), return_exceptions=True)
        fates = ["cancelled" if task.cancelled() else task.result() for task in racers.values()]
        see("winner", [winner, *fates])
        story.append(await note(f"{turn}: {winner} {fates}"))
    return " ".join(story)


@zoo
async def first_of_twins() -> str:
    """The same call twice: which of the two was recorded is known by its place alone."""
    story = []
    for turn in range(3):
        twins = [asyncio.create_task(fetch(f"twin {turn}")) for _ in range(3)]
        done, rest = await asyncio.wait(twins, return_when=asyncio.FIRST_COMPLETED)
        winner = min(k for k, task in enumerate(twins) if task in done)
        see("winner", winner)
        story.append(await note(f"{turn}: {winner}"))
        await asyncio.gather(*rest)
        see("twins", [task.result() for task in twins])
    return " ".join(story)


@zoo
async def worker_pool() -> str:
    queue: asyncio.Queue[str] = asyncio.Queue()
    for k in range(7):
        queue.put_nowait(f"job {k}")
    done: list[str] = []

    async def worker(name: str) -> None:
        while not queue.empty():
            job = await queue.get()
            done.append(await parse(f"{name} does {job}"))
            see(name, done[-1])
            if len(done) == 3:
                queue.put_nowait(f"late job after {done[-1]}")

    await asyncio.gather(*(worker(f"w{k}") for k in range(3)))
    return await note(" ".join(done))


@zoo
async def waits_beside_steps() -> str:
    """Times, a timeout and the steps race; what follows says in which order they came."""
    order: list[str] = []

    async def asleep(tag: str, seconds: float) -> None:
        await holdfast.sleep(seconds)
        order.append(await parse(f"{tag} after {len(order)}"))
        see(tag, order[-1])

    async def unheard() -> None:
        try:
            await holdfast.wait_for("never sent", str, timeout=0.001)
        except TimeoutError:
            order.append(await note(f"unheard after {len(order)}"))
            see("unheard", order[-1])

    async def at_work(tag: str) -> None:
        order.append(await fetch(tag))
        see(tag, order[-1])
        await asleep(f"{tag} asleep", 0)

    times = [asleep("long", 0.003), asleep("short", 0.001), asleep("none", 0)]
    await asyncio.gather(unheard(), *times, at_work("a"), at_work("b"))
    return await note(" ".join(order))


@zoo
async def bounded_queue() -> str:
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=2)
    done: list[str] = []

    async def produce(name: str) -> None:
        for k in range(3):
            await queue.put(await fetch(f"{name}{k} {len(done)}"))
            see(name, k)

    async def consume(name: str) -> None:
        while (job := await queue.get()) is not None:
            done.append(await parse(f"{name} does {job}"))
            see(name, done[-1])

    consumers = [asyncio.create_task(consume(f"c{k}")) for k in range(2)]
    await asyncio.gather(produce("p"), produce("q"))
    for _ in consumers:
        await queue.put(None)
    await asyncio.gather(*consumers)
    return await note(" ".join(done))


@zoo
async def locks() -> str:
    lock, gate, condition = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Condition()
    order: list[str] = []

    async def one(tag: str) -> None:
        ready = await fetch(tag)
        async with lock:
            order.append(ready)
            see("lock", ready)
            await parse(f"{ready} is {len(order)}")
        async with gate:
            order.append(await fetch(f"{tag} gate {len(order)}"))
            see("gate", order[-1])
        async with condition:
            condition.notify_all()

    async def watch(tag: str) -> None:
        async with condition:
            await condition.wait_for(lambda: len(order) >= 5)
            see("watched", len(order))
        await note(f"{tag} {len(order)} {order[-1]}")

    await asyncio.gather(*(one(f"t{k}") for k in range(4)), watch("x"), watch("y"))
    return await note(" ".join(order))


@zoo
async def made_in_completion_order() -> str:
    made: list[asyncio.Task[str]] = []

    async def leaf(tag: str) -> str:
        got = await fetch(tag)
        see("leaf", got)
        return got

    async def root(tag: str) -> None:
        got = await branch(tag)
        spawned = loops.create_task(leaf(f"#{len(made)} by {got}"))
        made.append(spawned)

    async with asyncio.TaskGroup() as loops:
        for k in range(4):
            loops.create_task(root(f"r{k}"))
    see("made", [task.result() for task in made])
    return await note(" ".join(task.result() for task in made))


@zoo
async def hub_spawns() -> str:
    """One task makes all the others, in the order in which things complete: their numbers depend on it."""
    inbox: asyncio.Queue[str] = asyncio.Queue()
    done: list[str] = []

    async def job(tag: str) -> None:
        done.append(await fetch(f"{tag} {len(done)}"))
        inbox.put_nowait(tag)

    running = {asyncio.create_task(job(f"j{k}")) for k in range(3)}
    for k in range(5):
        finished = await inbox.get()
        see("finished", finished)
        running.add(asyncio.create_task(job(f"{finished}>{k}")))
    await asyncio.gather(*running)
    return await note(" ".join(done))


@zoo
async def library_tasks() -> str:
    """A library makes tasks of its own in the body, more or fewer of them each time: nobody else's number shifts."""
    chance = random.Random()

    async def heartbeat() -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)

    beats = []

    def library() -> None:
        beats.extend(asyncio.create_task(heartbeat()) for _ in range(chance.randrange(4)))

    library()
    a = asyncio.create_task(branch("a"))
    library()
    b = asyncio.create_task(branch("b"))
    got = [await branch("c")]
    library()
    got += await asyncio.gather(branch("d"), branch("e"))
    got += [await a, await b]
    await asyncio.gather(*beats)
    see("got", got)
    return await note(" ".join(got))


@zoo
async def threads_in_sequence() -> str:
    got = ""
    for k in range(3):
        got = await asyncio.to_thread(crunch, f"{k} after {got}")
        see("turn", got)
    twice = await asyncio.to_thread(crunch_twice, "pair")
    assert threading.current_thread() is not None
    return await note(got + twice)


@zoo
async def threads_gathered() -> str:
    order: list[str] = []

    async def one(k: int) -> None:
        order.append(await asyncio.to_thread(crunch, f"t{k}"))
        see("thread", order[-1])
        order.append(await asyncio.to_thread(crunch, f"t{k} then {len(order)}"))
        see("thread", order[-1])
        if k == 0:
            order.append(await asyncio.to_thread(crunch_twice, f"t{k} {len(order)}"))

    plain = asyncio.gather(*(asyncio.to_thread(crunch, f"p{k}") for k in range(2)))
    await asyncio.gather(*(one(k) for k in range(3)), branch("async"))
    return await note(" ".join([*order, *(await plain)]))


@zoo
async def nested_steps() -> str:
    order: list[str] = []

    async def one(call: Any) -> None:
        order.append(await call)
        see("done", order[-1])
        await note(f"{len(order)} {order[-1]}")

    await asyncio.gather(one(pair("p")), one(wide("w")), one(fetch("f")), one(pair("q")))
    return await note(" ".join(order))


@zoo
async def nested_workflows() -> str:
    order: list[str] = []

    async def one(tag: str) -> None:
        order.append(await child(tag))
        see("child", order[-1])
        order.append(await fetch(f"{tag} {len(order)}"))

    await asyncio.gather(one("x"), one("y"))
    return await note(" ".join(order) + await child("z"))


@zoo
async def same_inputs() -> str:
    got = await asyncio.gather(*(fetch("same") for _ in range(4)))
    see("gathered", got)
    alone = [await fetch("same"), await fetch("same")]
    see("alone", alone)

    async def again() -> str:
        return await fetch("same") + await fetch("same")

    each = await asyncio.gather(again(), again())
    assert len({*got, *alone}) == 6
    return await note(f"{got} {alone} {each}")


@zoo
async def shared_state() -> str:
    holdfast.state["started"] = True
    order: list[Any] = []

    async def one(tag: str) -> None:
        order.append(await append(tag))
        see("appended", tag)
        holdfast.state.setdefault("body", []).append(tag)
        order.append(await put(f"{tag} {len(order)}"))
        see("put", order[-1])

    held = holdfast.state.setdefault("log", [])
    await asyncio.gather(*(one(f"s{k}") for k in range(4)))
    assert held is holdfast.state["log"]
    see("held", held)
    holdfast.state["after"] = len(held)
    got = await note(f"{order} {holdfast.state['log']}")
    holdfast.state["last"] = got
    return got


@zoo
async def chance_and_time() -> str:
    async def one(tag: str) -> str:
        out = []
        for _ in range(2):
            out.append(await fetch(f"{tag} {holdfast.uuid4()} {holdfast.random()} {holdfast.now().isoformat()}"))
            see("drew", [out[-1], str(holdfast.uuid4()), holdfast.now().isoformat()])
        return " ".join(out)

    got = await asyncio.gather(one("a"), one("b"), pair("c"), wide("d"))
    return await note(f"{got} {holdfast.uuid4()} {holdfast.now().isoformat()}")


@zoo
async def failures() -> str:
    order: list[str] = []

    async def one(tag: str) -> None:
        try:
            await broken(tag)
        except holdfast.StepFailed as failed:
            order.append(failed.message)
            see("failed", str(failed))
        order.append(await flaky(f"{tag} {len(order)}"))
        see("done", order[-1])

    await asyncio.gather(one("a"), one("b"))
    got = await asyncio.gather(broken("c"), fetch("d"), broken("e"), return_exceptions=True)
    see("got", [str(each) for each in got])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(broken("f"))
            group.create_task(stuck("g"))
            group.create_task(stuck("h"))
    except* holdfast.StepFailed as several:
        see("group", [str(each) for each in several.exceptions])
    return await note(" ".join(order))


@workflow(version="1")
async def deep(depth: int) -> str:
    """Two branches whose outcomes pass many levels on their way up, and one that counts what came before it."""
    order: list[str] = []

    async def level(tag: str, left: int) -> str:
        if left == 0:
            return await fetch(tag)
        if left % 4 == 0:
            return (await asyncio.shield(asyncio.gather(level(tag, left - 1))))[0]
        if left % 4 == 1:
            return await asyncio.wait_for(asyncio.shield(level(tag, left - 1)), 30)
        if left % 4 == 2:
            for each in asyncio.as_completed([level(tag, left - 1)]):
                return await each
        async with asyncio.TaskGroup() as group:
            task = group.create_task(level(tag, left - 1))
        return task.result()

    async def top(tag: str, down: int) -> None:
        for k in range(2):
            order.append(await level(f"{tag}{k} {len(order)}", down))
            see("up", order[-1])

    await asyncio.gather(top("a", depth), top("b", depth), top("c", 0))
    return await note(" ".join(order))


# -- generated mixtures ----------------------------------------------------------------------------------------


class Generator:
    """From a seed to a program: a tree of tuples, which ``perform`` interprets. It prints as it is."""

    LEAVES = (
        "fetch",
        "parse",
        "note",
        "thread",
        "pair",
        "wide",
        "child",
        "append",
        "put",
        "flaky",
        "broken",
        "draw",
        "late",
    )
    FORKS = (
        "gather",
        "group",
        "tasks",
        "first",
        "pool",
        "lock",
        "completed",
        "hub",
        "shield",
        "in_time",
        "state",
        "sequence",
    )

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"program {seed}")
        self.tags = itertools.count()
        self.budget = self.chance.randrange(6, 22)

    def tree(self) -> Any:
        return ("sequence", [self.node(3) for _ in range(self.chance.randrange(1, 4))])

    def node(self, depth: int, *, racing: bool = False) -> Any:
        """``racing``: it may be cancelled in the middle.

        Then there is neither a timer of the body's own, which would race with the winner beside the record, nor what
        leaves tasks behind that nobody can wait for: what these do when the run is over is not recorded. Nor is there
        a thread, which may come to its call before the winner is known in one execution, and after in another.
        """
        if depth == 0 or self.budget <= 0 or self.chance.random() < 0.25:
            self.budget -= 1
            leaves = [each for each in self.LEAVES if not (racing and each in ("late", "thread"))]
            return (self.chance.choice(leaves), self.tag())
        kind = self.chance.choice([each for each in self.FORKS if not (racing and each in ("shield", "completed"))])
        wide = self.chance.randrange(2, 5)
        return (kind, [self.node(depth - 1, racing=racing or kind == "first") for _ in range(wide)])

    def tag(self) -> str:
        return f"n{next(self.tags)}"


def tree_of(seed: int) -> Any:
    return Generator(seed).tree()


class Told:
    """What the branches of a generated program tell each other: a list that grows in completion order."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def tell(self, kind: str, value: str) -> str:
        self.order.append(value)
        see(kind, value)
        return value

    def heard(self) -> str:
        return f"{len(self.order)} {self.order[-1][:40] if self.order else ''}"


async def perform(node: Any, told: Told) -> str:
    kind, rest = node
    if isinstance(rest, str):
        return told.tell(kind, await _leaf(kind, rest, told))
    return await _fork(kind, rest, told)


async def _leaf(kind: str, tag: str, told: Told) -> str:
    if kind == "put":
        try:
            return await put(f"{tag} {told.heard()}")
        except holdfast.StateConflict:  # a pool does each thing twice, and may do both at once
            return f"{tag} conflict"
    if kind in ("fetch", "parse", "note", "pair", "wide", "child", "flaky"):
        calls: dict[str, Any] = globals()
        value: str = await calls[kind](f"{tag} {told.heard()}")
        assert tag in value
        return value
    if kind == "thread":
        return await asyncio.to_thread(crunch, f"{tag} {told.heard()}")
    if kind == "append":
        return f"{tag} {await append(f'{tag} {told.heard()}')}"
    if kind == "draw":
        return await fetch(f"{tag} {holdfast.uuid4()} {holdfast.random()} {holdfast.now().isoformat()} {told.heard()}")
    if kind == "late":
        try:
            return await asyncio.wait_for(stuck(f"{tag} {told.heard()}"), 0.002)
        except TimeoutError:
            return f"{tag} late"
    try:
        return await broken(f"{tag} {told.heard()}")
    except holdfast.StepFailed as failed:
        return f"{tag} {failed.message}"


async def _fork(kind: str, nodes: list[Any], told: Told) -> str:
    got: list[str] = []
    if kind == "sequence":
        for each in nodes:
            got.append(await perform(each, told))
    elif kind == "gather":
        got += await asyncio.gather(*(perform(each, told) for each in nodes))
    elif kind == "shield":
        got += await asyncio.gather(*(asyncio.shield(perform(each, told)) for each in nodes))
    elif kind == "in_time":
        got += await asyncio.gather(*(asyncio.wait_for(perform(each, told), 30) for each in nodes))
    elif kind == "group":
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(perform(each, told)) for each in nodes]
        got += [task.result() for task in tasks]
    elif kind == "tasks":
        tasks = []
        for each in nodes:
            tasks.append(asyncio.create_task(perform(each, told)))
            got.append(await fetch(f"between {len(tasks)} {told.heard()}"))
        got += [await task for task in reversed(tasks)]
    elif kind == "completed":
        for done in asyncio.as_completed([perform(each, told) for each in nodes]):
            got.append(await done)
            see("completed", got[-1])
    elif kind == "first":
        racers = [asyncio.create_task(perform(each, told)) for each in nodes]
        await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        for k, task in enumerate(racers):
            got.append(f"{k} {'won' if task.done() else 'lost'}")
            task.cancel()
        await asyncio.gather(*racers, return_exceptions=True)
        see("first", got)
        got.append(await note(" ".join(got)))
    elif kind == "pool":
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for each in nodes * 2:
            queue.put_nowait(each)

        async def worker(name: str) -> None:
            while not queue.empty():
                job = queue.get_nowait()
                got.append(await perform(job, told) + await parse(f"{name} {told.heard()}"))

        await asyncio.gather(worker("v"), worker("w"))
    elif kind == "lock":
        lock, gate = asyncio.Lock(), asyncio.Semaphore(2)

        async def one(k: int, each: Any) -> None:
            got.append(await fetch(f"to the lock {k}"))
            async with lock if k % 2 else gate:
                see("inside", k)
                got.append(await perform(each, told))

        await asyncio.gather(*(one(k, each) for k, each in enumerate(nodes)))
    elif kind == "hub":
        inbox: asyncio.Queue[int] = asyncio.Queue()

        async def job(k: int, each: Any) -> None:
            got.append(await perform(each, told))
            inbox.put_nowait(k)

        running = [asyncio.create_task(job(k, each)) for k, each in enumerate(nodes)]
        for _ in nodes:
            k = await inbox.get()
            running.append(asyncio.create_task(job(k + 10, ("note", f"after {k}"))))
        await asyncio.gather(*running)
    elif kind == "state":
        holdfast.state["turn"] = holdfast.state.get("turn", 0) + 1
        for key in ("log", "body"):
            holdfast.state.setdefault(key, []).append(told.heard())
        got += await asyncio.gather(*(perform(each, told) for each in nodes))
        holdfast.state["told"] = told.heard()
    return " ".join(got)[:200]


async def _end_what_is_left() -> None:
    """Cancelled branches leave tasks behind; what these do after the run is over would not be recorded."""
    here, me = branches.current_frame(), asyncio.current_task()
    while True:
        frames = [(branches.frame_of(task), task) for task in asyncio.all_tasks() if task is not me]
        left = {(each.scope, each.branch): task for each, task in frames if each and each.run is here.run}
        if not left:
            return
        for place in sorted(left):
            left[place].cancel()
        await asyncio.wait(left.values())


@workflow(version="1")
async def generated(seed: int) -> str:
    told = Told()
    got = await perform(tree_of(seed), told)
    await _end_what_is_left()
    see("end", told.order)
    return await note(f"{got[:100]} {told.heard()}")
