"""Lives of a program on a bad disk, one after the other: each may meet a fault, and end in a power cut or a kill."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast.testing import ledger
from holdfast.testing.zygote import Reply, Request

from .case import Campaign, Case
from .disk import HOW, LASTING, LONG_LOG, SHORT_LOG, Fault, Op, Plan, read_trace, settle_trace
from .looking import problems_of_file, problems_of_runs, syncs_tried_again
from .power import HOW_MUCH, Platter

TARGET, STORE = "tests.torture.scenario:job", "tests.torture.scenario:faulty"


@dataclass
class Life:
    """``cut``: after which part of its calls (0 to 1) the power goes, and what the cut leaves; None: it ends, or is
    killed at an age of ``kill_ms`` and leaves the page cache as it is."""

    fault: Fault | None = None
    attempts: int = 1
    cut: tuple[float, str] | None = None
    kill_ms: float | None = None

    def __str__(self) -> str:
        told = [f"to fail at {self.fault}"] if self.fault is not None else []
        told += [f"ended by a power cut ({self.cut[1]}) after {self.cut[0]:.3f} of its calls"] if self.cut else []
        told += [f"killed after {self.kill_ms:.1f} ms"] if self.kill_ms is not None else []
        return " and ".join(told) or "undisturbed"


@dataclass
class Known:
    """What a process does that nobody disturbs: its outcome, what it did on the disk, and its ledger."""

    reply: Reply
    ops: list[Op]
    book: bytes

    @property
    def calls(self) -> dict[str, int]:
        return {what: sum(op.what == what for op in self.ops) for what in HOW}


def learn(campaign: Campaign) -> Known:
    """Run the program once on a sound disk."""
    known: list[Known] = []

    def lives(campaign: Campaign, folder: Path) -> Generator[Request, Reply, list[str]]:
        Plan().write(folder)
        reply = yield from campaign.life(folder, 1)
        known.append(Known(reply, read_trace(folder), (folder / "ledger.jsonl").read_bytes()))
        problems = problems_of_runs(folder, [reply], reply)
        return problems if reply.failed is None else [reply.failed, *problems]

    campaign.run(iter([Case("the program itself", lives)]))
    if campaign.findings.wrong:
        raise AssertionError(campaign.findings.wrong[0])
    return known[0]


def chain(name: str, lives: list[Life], known: Known, seed: str) -> Case:
    """After the last life all must be done; a power cut then takes nothing of it."""

    def run(campaign: Campaign, folder: Path) -> Generator[Request, Reply, list[str]]:
        chance = random.Random(seed)
        base: dict[str, bytes] = {}
        replies: list[Reply] = []
        problems: list[str] = []
        for process, life in enumerate(lives, 1):
            before = len(read_trace(folder))
            Plan(life.fault, life.attempts, chance.choice((SHORT_LOG, LONG_LOG))).write(folder)
            reply = yield from campaign.life(folder, process, kill_after_ms=life.kill_ms)
            if reply.killed:
                settle_trace(folder)
                campaign.findings.injected["kills"] += 1
            ops = read_trace(folder)
            _count(campaign, life, ops[before:])
            problems += [f"process {process}: {each}" for each in syncs_tried_again(ops[before:])]
            for at in _moments(ops, before, chance):
                problems += _after_cut(campaign, folder, base, ops, at, "none", chance)
            if life.cut is not None:
                share, how_much = life.cut
                at = before + round(share * (len(ops) - before))
                base = cut(folder, base, ops, at, how_much, chance, process)
                reply = Reply(0, killed=True)
                campaign.findings.injected["power cuts"] += 1
            replies.append(reply)
            # Looked at in a copy: SQLite would tidy the log away, beside the trace.
            beside = campaign.new_folder(folder)
            problems += [f"after process {process}: {each}" for each in problems_of_file(beside)]
        problems += _after_cut(campaign, folder, base, ops, len(ops), "none", chance)
        problems += problems_of_runs(folder, replies, known.reply)
        return (
            [*problems, *(f"(process {process} was {life})" for process, life in enumerate(lives, 1))]
            if problems
            else []
        )

    return Case(name, run)


def _moments(ops: list[Op], before: int, chance: random.Random) -> list[int]:
    """When a power cut tells most: right behind the syncs that follow a failed call, before what they rest on is
    written once more; and at any one moment."""
    moments = [chance.randint(before, len(ops))]
    struck = next((at for at in range(before, len(ops)) if ops[at].failed), len(ops))
    synced = [at + 1 for at in range(struck, len(ops)) if ops[at].what == "sync" and not ops[at].failed]
    return moments + synced[1:6:2]


def _count(campaign: Campaign, life: Life, ops: list[Op]) -> None:
    if life.fault is None:
        return
    struck = sum(op.failed for op in ops)
    campaign.findings.injected[f"faults of {life.fault.what}" if struck else "faults whose call never came"] += 1
    campaign.findings.injected["calls failed"] += struck


def cut(
    folder: Path, base: dict[str, bytes], ops: list[Op], at: int, how_much: str, chance: random.Random, process: int
) -> dict[str, bytes]:
    """Put what a power cut before the call ``at`` leaves in the place of the files, and end the ledger there."""
    platter = Platter(base, chance)
    for op in ops[:at]:
        platter.apply(op)
    image = platter.image(how_much, chance)
    for found in folder.glob("sweep.db*"):
        found.unlink()
    for name, content in image.items():
        (folder / name).write_bytes(content)
    book = folder / "ledger.jsonl"
    told = book.read_bytes()[: ops[at].ledger if at < len(ops) else None] if book.exists() else b""
    told = told[: told.rfind(b"\n") + 1]  # another thread may have been in the middle of a line
    killed = ledger.Event(process, "killed", status=f"power cut before call {at}, {how_much}")
    book.write_bytes(told + msgspec.json.encode(killed) + b"\n")
    (folder / "trace").unlink(missing_ok=True)
    return image


def _after_cut(
    campaign: Campaign,
    folder: Path,
    base: dict[str, bytes],
    ops: list[Op],
    at: int,
    how_much: str,
    chance: random.Random,
) -> list[str]:
    """What is wrong with the files were the power cut here: looked at elsewhere, the case goes on."""
    beside = campaign.new_folder(folder)
    cut(beside, base, ops, at, how_much, chance, 0)
    campaign.findings.injected["crash images looked at"] += 1
    return [f"were the power cut before call {at} of {len(ops)}: {each}" for each in problems_of_file(beside)]


# -- which chains ------------------------------------------------------------------------------------------------


def every_fault(known: Known) -> Iterator[tuple[Fault, int]]:
    """Every call of the program, in every way it can fail; the program gives up at once, or says its line again."""
    for what, calls in known.calls.items():
        for n in range(1, calls + 1):
            for how in HOW[what]:
                for lasting in LASTING:
                    for attempts in (1, 2) if lasting == "once" else (1,):
                        yield Fault(what, n, how, lasting), attempts


def of_fault(fault: Fault, attempts: int, known: Known) -> Case:
    name = f"fault {fault} {attempts}"
    return chain(name, [Life(fault, attempts), Life()], known, name)


def of_seed(seed: int, known: Known) -> Case:
    """One to four lives of faults, power cuts and kills, and a last one that nothing disturbs."""
    chance = random.Random(f"chain {seed}")
    lives = []
    for _ in range(chance.randrange(1, 5)):
        fault = None
        if chance.random() < 0.7:
            what = chance.choice(("sync", "write", *known.calls))
            fault = Fault(what, chance.randint(1, known.calls[what]), chance.choice(HOW[what]), chance.choice(LASTING))
        life = Life(fault, chance.randrange(1, 3))
        end = chance.random()
        if end < 0.5:
            life.cut = chance.random(), chance.choice(HOW_MUCH)
        elif end < 0.75 or fault is None:
            life.kill_ms = chance.uniform(5.0, 80.0)
        lives.append(life)
    return chain(f"chain {seed}", [*lives, Life()], known, f"chain {seed}")
