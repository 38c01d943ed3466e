"""What must hold when a run was killed and resumed: read from the store, and compared with the ledger outside of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise
from math import inf

from holdfast import codec
from holdfast.failure import Failure
from holdfast.past import BEGINS
from holdfast.recall import OPEN
from holdfast.store import Checkpoint, Claim, RunRow, Store

from .ledger import Event, place_of
from .zygote import Reply


def problems_of(store: Store, events: list[Event], replies: Mapping[int, Reply], plain: Reply) -> list[str]:
    """What is wrong, in sentences; empty if all is well. ``replies`` are those of the processes by their numbers,
    ``plain`` is how a run ended that nobody killed."""
    return [*_of_outcomes(events, replies, plain), *problems_of_history(store, events)]


def problems_of_history(store: Store, events: list[Event]) -> list[str]:
    """What is wrong with the runs in the store, all of them ended, by what their processes wrote down meanwhile: one
    epoch at a time, no gap, all there that was acknowledged, nothing of it executed again."""
    problems: list[str] = []
    runs = store.runs(status=None, workflow=None, limit=1_000_000, after=None)
    for run in reversed(runs):
        mine = [event for event in events if event.run_no == run.no]
        rows = store.load(run.no)
        claims = store.claims(run.no)
        found = [*_of_rows(rows), *_of_epochs(run, rows, claims, mine), *_of_takeovers(rows, mine)]
        found += _of_acknowledged(rows, mine)
        found += _of_executions(rows, mine, _retried(rows, run, mine))
        problems += [f"run {run.id!r}: {each}" for each in found]
    known = {run.no for run in runs}
    lost = {event.run_no for event in events if event.run_no and event.what != "began"} - known
    return problems + [f"run number {no} was acknowledged and is not in the store" for no in sorted(lost)]


def _of_outcomes(events: list[Event], replies: Mapping[int, Reply], plain: Reply) -> list[str]:
    problems = []
    meant = {event.process for event in events if event.what == "killed"}
    for process, reply in replies.items():
        if reply.killed and process in meant:
            continue
        if reply.status != 0:
            problems.append(f"process {process} died of its own: exit status {reply.status}")
        elif (reply.result, reply.failed) != (plain.result, plain.failed):
            problems.append(f"process {process} ended with {_told(reply)}; a run nobody killed, with {_told(plain)}")
    return problems


def _told(reply: Reply) -> str:
    if reply.failed is not None:
        return reply.failed
    return "nothing" if reply.result is None else repr(codec.readable(reply.result))


def _of_rows(rows: list[Checkpoint]) -> list[str]:
    problems = []
    seqs = [row.seq for row in rows]
    if seqs != list(range(1, len(rows) + 1)):
        problems.append(f"seq has a gap: {seqs}")
    epochs = [row.epoch for row in rows]
    if epochs != sorted(epochs):
        problems.append(f"epochs fall from one row to the next: {epochs}")
    wrong = [row.seq for row in rows if row.checksum != row.compute_checksum()]
    if wrong:
        problems.append(f"checksums do not fit: seq {wrong}")
    return problems


def _of_epochs(run: RunRow, rows: list[Checkpoint], claims: list[Claim], events: list[Event]) -> list[str]:
    problems = []
    epochs = [claim.epoch for claim in claims]
    if epochs != list(range(1, len(claims) + 1)) or (run.status != "cancelled" and epochs[-1:] != [run.epoch]):
        problems.append(f"the epochs of its claims are {epochs}, the run's is {run.epoch}")
    if rows and rows[-1].epoch > run.epoch:
        problems.append(f"a row has epoch {rows[-1].epoch}, the run {run.epoch}")
    if run.owner is not None:
        problems.append(f"it still has an owner: {run.owner}")
    ended = {event.epoch for event in events if event.what == "finished"}
    # Whoever was followed by another owner without having handed the run back was killed; the same owner claims it
    # again after an error of the store, and a worker also when it let its lease lapse, which counts.
    died = [
        claim.epoch
        for claim, following in pairwise(claims)
        if claim.epoch not in ended and (claim.owner != following.owner or following.found == "lapsed")
    ]
    # One that was still sending the end when it was killed may have handed the run back or not.
    unsure = {event.epoch for event in events if event.what == "finishing"}.intersection(died)
    if not len(died) - len(unsure) <= run.deaths <= len(died):
        problems.append(f"{len(died)} owners of it were killed, it counts {run.deaths} deaths")
    return problems


def _of_takeovers(rows: list[Checkpoint], events: list[Event]) -> list[str]:
    """Who takes a run over reads its rows once; whatever an owner before it writes later is a zombie's."""
    problems = []
    for event in events:
        late = (
            [row for row in rows if row.epoch < event.epoch and row.seq > event.seq] if event.what == "loaded" else []
        )
        for row in late:
            problems.append(
                f"{place_of(row)} (seq {row.seq}) was written under epoch {row.epoch}, after process {event.process} "
                f"had claimed epoch {event.epoch} and found {event.seq} rows"
            )
    return problems


def _of_acknowledged(rows: list[Checkpoint], events: list[Event]) -> list[str]:
    problems = []
    checksums = {(row.seq, row.epoch): row.checksum for row in rows}
    places = {(place_of(row), row.epoch) for row in rows}
    for event in events:
        if event.what == "committed" and checksums.get((event.seq, event.epoch)) != event.checksum:
            problems.append(f"the commit of seq {event.seq} ({event.place}) was acknowledged, and is lost or changed")
        if event.what == "acked" and (event.place, event.epoch) not in places:
            problems.append(f"{event.place} returned in process {event.process}, and its row is lost")
    return problems


def _retried(rows: list[Checkpoint], run: RunRow, events: list[Event]) -> set[int]:
    """The seqs of failures that may be executed anew: those that ended the run, and those inside an outer step."""
    retried = {row.seq for row in rows if row.scope and row.status != "done"}
    if run.error is not None:
        retried |= set(Failure.decode(run.error, f"run {run.id!r}").seqs)
    failed = [event.epoch for event in events if event.what == "finished" and event.status == "failed"]
    if failed:
        retried |= {row.seq for row in rows if row.status != "done" and row.epoch <= max(failed)}
    return retried


def _of_executions(rows: list[Checkpoint], events: list[Event], retried: set[int]) -> list[str]:
    problems = []
    began = Counter((event.place, event.epoch) for event in events if event.what == "began")
    attempts: Counter[tuple[str, int]] = Counter()
    epochs: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row.kind != "save" and row.status not in OPEN:
            attempts[place_of(row), row.epoch] += row.attempts
    intents = Counter((place_of(row), row.epoch) for row in rows if row.status == "intent")
    for place, epoch in began:
        epochs[place].append(epoch)
    for (place, epoch), times in began.items():
        if any(where == place for where, _ in intents) and times > intents[place, epoch]:
            problems.append(
                f"{place} was executed {times} times under epoch {epoch}, with {intents[place, epoch]} intents"
            )
    begins = [row for row in rows if row.kind == BEGINS]
    for row in rows:
        if row.kind not in ("step", "workflow") or row.status in OPEN:  # a save, a wait, a note: none executes anything
            continue
        # Other code, in an attempt after it, may ask for something else at this place.
        until = next((each.epoch for each in begins if each.seq > row.seq), inf)
        place = place_of(row)
        told = f"{place} (seq {row.seq}, {row.status})"
        is_once = any(where == place for where, _ in intents)  # its outcome may have been found out outside
        if began[place, row.epoch] != attempts[place, row.epoch] and row.seq not in retried and not is_once:
            problems.append(
                f"{told} was recorded under epoch {row.epoch} with {attempts[place, row.epoch]} attempts, and "
                f"executed {began[place, row.epoch]} times"
            )
        again = [epoch for epoch in epochs[place] if row.epoch < epoch < until]
        if again and row.seq not in retried:
            problems.append(f"{told} was committed under epoch {row.epoch}, and executed again under epoch {again[0]}")
    return problems
