"""``python -m tests.torture [--minutes M] [--seed S] [--only PART …] [--programs N] [--replay CASE]``.

``make torture`` calls it."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator

from . import adk, agents, chain, cuts, flips, generated, grounds, kills, machines, matrix, memory, writers, zombies
from .case import Campaign, Case, Findings
from .disk import Fault


def of_faults(seed: int, until: float) -> Findings:
    """Every call of a short run fails, in every way it can, in an order drawn from the seed; then all over again."""
    with Campaign(chain.TARGET, chain.STORE) as campaign:
        while time.monotonic() < until:
            known = chain.learn(campaign)
            every = list(chain.every_fault(known))
            random.Random(seed).shuffle(every)
            campaign.run((chain.of_fault(*each, known) for each in every), until)
        return campaign.findings


def of_cuts(seed: int, until: float) -> Findings:
    """The power is cut before every call of a run, each time with other remains; every eighth is resumed from."""
    with Campaign(chain.TARGET, chain.STORE) as campaign:
        for turn in itertools.count(seed):
            if time.monotonic() >= until:
                return campaign.findings
            known = chain.learn(campaign)
            every = enumerate(cuts.every_cut(known), turn)
            campaign.run((cuts.of_cut(*each, turn, known, resume=n % 8 == 0) for n, each in every), until)
    raise AssertionError("it ends when its time does")


def of_chains(seed: int, until: float) -> Findings:
    with Campaign(chain.TARGET, chain.STORE) as campaign:
        known = chain.learn(campaign)
        return campaign.run((chain.of_seed(number, known) for number in _numbers(seed)), until)


def of_kills(seed: int, until: float) -> Findings:
    with Campaign(kills.TARGET, None) as campaign:
        return campaign.run((kills.of_seed(number) for number in _numbers(seed)), until)


def of_agents(seed: int, until: float) -> Findings:
    """At least a thousand restores, however long they take."""
    with Campaign(agents.TARGET, None) as campaign:
        campaign.run(agents.of_seed(seed * 1_000_000 + n) for n in range(1000 // agents.RESTORES))
        return campaign.run((agents.of_seed(number) for number in itertools.count(seed * 1_000_000 + 1000)), until)


def of_machines(seed: int, until: float) -> Findings:
    """Machines that share a store: on one server most of all, on one file, and where the primary is lost."""
    with grounds.grounds() as every, Campaign(machines.TARGET, machines.STORE, jobs=1) as campaign:
        plain = machines.learn(campaign)
        turns = itertools.cycle(every[name] for name in ("network", "network", "file", "network", "standby"))
        findings = campaign.run((machines.of_seed(number, next(turns), plain) for number in _numbers(seed)), until)
        for ground in every.values():
            findings.injected += ground.happened
        return findings


def of_zombies(seed: int, until: float) -> Findings:
    with grounds.one_server() as server:
        tally = zombies.campaign(server.url, sys.maxsize, seed, until)
    counted = {"writes by zombies": tally.attempts, "accepted": tally.accepted, "takeovers": tally.takeovers}
    return Findings(tally.scenes, Counter(counted), tally.wrong, tally.seconds)


def of_writers(seed: int, until: float) -> Findings:
    """At least 150 rounds of two writers on each database, and twenty kills, however long they take."""
    with tempfile.TemporaryDirectory(prefix="holdfast-writers-") as folder, grounds.one_server() as server:
        findings = writers.campaign(f"{folder}/writers.db", 150, seed, kills=20)
        other = writers.campaign(server.url, 150, seed, kills=20)
        while time.monotonic() < until:
            more = writers.campaign(server.url, 150, seed := seed + 1, until, kills=20)
            other = Findings(other.cases + more.cases, other.injected + more.injected, other.wrong + more.wrong)
    injected, wrong = findings.injected + other.injected, findings.wrong + other.wrong
    return Findings(findings.cases + other.cases, injected, wrong, findings.seconds + other.seconds)


def _numbers(seed: int) -> Iterator[int]:
    return itertools.count(seed * 1_000_000)


# What each part gets of the time.
PARTS: dict[str, tuple[float, Callable[[int, float], Findings]]] = {
    "fault": (0.3, of_faults),
    "cut": (0.15, of_cuts),
    "chain": (0.25, of_chains),
    "kill": (0.2, of_kills),
    "agent": (0.1, of_agents),
    "adk": (0.2, adk.run),
    "matrix": (0.1, matrix.run),
    "machines": (0.3, of_machines),
    "zombies": (0.05, of_zombies),
    "writers": (0.05, of_writers),
    "flips": (0.05, flips.run),
    "generated": (0.2, lambda seed, until: generated.run(seed * 1_000_000, until)),
    "order": (0.1, lambda seed, until: memory.run(seed * 1_000_000, until)),
}


def replay(name: str) -> Findings:
    """One case by its name. A trace differs a little from run to run, so of a cut it is one very much like it."""
    part, *rest = name.split()
    if part == "order":
        return memory.run(0, 0.0, only=int(rest[0]))
    if part == "generated":
        return generated.replay(rest[0], rest[1], int(rest[2]))
    if part == "adk":
        return adk.run(0, 0.0, only=" ".join(rest))
    if part == "matrix":
        return matrix.run(0, 0.0, only=" ".join(rest))
    if part == "flips":
        return flips.run(0, 0.0, only=int(rest[0]))
    if part == "machines":
        with grounds.grounds() as every, Campaign(machines.TARGET, machines.STORE, jobs=1) as campaign:
            plain = machines.learn(campaign)
            return campaign.run(iter([machines.of_seed(int(rest[1]), every[rest[0]], plain)]))
    if part == "agent":
        with Campaign(agents.TARGET, None) as campaign:
            return campaign.run(iter([agents.of_seed(int(rest[0]))]))
    with Campaign(
        kills.TARGET if part == "kill" else chain.TARGET, None if part == "kill" else chain.STORE
    ) as campaign:
        return campaign.run(iter([_case(part, rest, campaign)]))


def _case(part: str, rest: list[str], campaign: Campaign) -> Case:
    if part == "kill":
        return kills.of_seed(int(rest[0]))
    known = chain.learn(campaign)
    if part == "fault":
        return chain.of_fault(Fault.parsed(" ".join(rest[:4])), int(rest[4]), known)
    if part == "cut":
        return cuts.of_cut(int(rest[0]), rest[1], int(rest[2]), known, resume=True)
    return chain.of_seed(int(rest[0]), known)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--programs", type=int, default=0, help="so many generated ones, however long they take")
    parser.add_argument("--replay", metavar="CASE", help="a case, as its failure names it")
    given = parser.parse_args()
    if given.replay is not None:
        findings = replay(given.replay)
        print(*findings.wrong, findings, sep="\n")
        return 1 if findings.wrong else 0
    print(f"seed {given.seed}: python -m tests.torture --seed {given.seed} does the same again", flush=True)
    whole, wrong = sum(PARTS[part][0] for part in given.only), 0
    for part in given.only:
        share, run = PARTS[part]
        until = time.monotonic() + given.minutes * 60 * share / whole
        if part == "generated" and given.programs:
            findings = generated.run(given.seed * 1_000_000, 0.0, programs=given.programs)
        else:
            findings = run(given.seed, until)
        wrong += len(findings.wrong)
        for each in findings.wrong[:20]:
            print(each, flush=True)
        print(f"{part}: {findings}", flush=True)
    print(f"{wrong or 'nothing'} found" + (": --replay 'CASE' sees one again" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
