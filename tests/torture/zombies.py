"""An owner that does not know it was fenced goes on writing while another claims its runs, and afterwards."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from holdfast.store import Batch, Checkpoint, RunRow, Store, open_store
from holdfast.testing.store_suite import checkpoint, claim, create

RUNS = 40
ROUNDS = 10  # with the same runs: their rows are read again by each new owner
BATCHES = 6  # that the old owner writes around a takeover, and as many behind it
TTL_MS = 600_000


@dataclass
class Tally:
    """``refused`` and ``accepted`` are rows of an epoch that was over when they were written, ``written`` those of the
    run's owner."""

    refused: int = 0
    accepted: int = 0
    written: int = 0
    takeovers: int = 0
    scenes: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        return self.refused + self.accepted

    def __str__(self) -> str:
        return (
            f"{self.attempts} writes by zombies, {self.accepted} accepted; {self.takeovers} takeovers, "
            f"{self.written} writes by owners"
        )


def campaign(url: str, attempts: int, seed: int, until: float | None = None) -> Tally:
    """Zombies try to write until they tried ``attempts`` times or the time (monotonic seconds) is over."""
    chance = random.Random(seed)
    tally = Tally()
    old, new = open_store(url), open_store(url)
    try:
        began = time.monotonic()
        while tally.attempts < attempts and (until is None or time.monotonic() < until):
            tally.scenes += 1
            scene = _Scene(old, new, [f"zombies {seed} {tally.scenes} {n}" for n in range(RUNS)], tally)
            for _ in range(ROUNDS):
                scene.play(chance)
        tally.seconds = time.monotonic() - began
    finally:
        old.close()
        new.close()
    return tally


class _Scene:
    def __init__(self, old: Store, new: Store, ids: list[str], tally: Tally) -> None:
        self._old, self._new, self._tally = old, new, tally
        self._runs = {run.no: run for run in create(old, *ids, owner="old", ttl_ms=TTL_MS)}
        self._seqs = dict.fromkeys(self._runs, 0)  # as far as the old owner knows

    def play(self, chance: random.Random) -> None:
        """Some of the runs are taken from the old owner while it writes to all of them; then it gets them back."""
        taken = chance.sample(sorted(self._runs), RUNS // 2)
        found: dict[int, tuple[RunRow, int]] = {}
        taking = threading.Thread(target=self._take, args=(taken, chance.random() / 100, found))
        taking.start()
        acknowledged = [self._write(list(self._runs)) for _ in range(BATCHES)]
        taking.join()
        acknowledged += [self._write(taken) for _ in range(BATCHES)]
        self._judge(found, [row for rows in acknowledged for row in rows])
        for no in taken:
            row = claim(self._old, found[no][0], owner="old", ttl_ms=TTL_MS)
            assert row is not None
            self._runs[no], self._seqs[no] = row, len(self._old.load(no))

    def _take(self, runs: list[int], wait_s: float, found: dict[int, tuple[RunRow, int]]) -> None:
        time.sleep(wait_s)  # so that it is not always the first batch that meets it
        for no in runs:
            row = claim(self._new, self._runs[no], owner="new", ttl_ms=TTL_MS)
            assert row is not None
            found[no] = row, len(self._new.load(no))

    def _write(self, runs: list[int]) -> list[Checkpoint]:
        """One batch of the old owner's with the next row of each run; what of it was acknowledged."""
        rows = [checkpoint(no, self._seqs[no] + 1, epoch=self._runs[no].epoch) for no in runs]
        fenced = self._old.commit(Batch(appends=rows)).fenced
        written = [row for row in rows if row.run_no not in fenced]
        for row in written:
            self._seqs[row.run_no] += 1
        self._tally.refused += len(fenced)
        return written

    def _judge(self, found: dict[int, tuple[RunRow, int]], acknowledged: list[Checkpoint]) -> None:
        tally = self._tally
        standing = {(row.run_no, row.seq): row for no in self._runs for row in self._new.load(no)}
        for no, (run, before) in found.items():
            late = [row for row in standing.values() if row.run_no == no and row.epoch < run.epoch and row.seq > before]
            tally.accepted += len(late)
            if late:
                tally.wrong.append(
                    f"run {no}: {len(late)} rows of epoch {late[0].epoch} were accepted after epoch {run.epoch} had "
                    f"read {before} rows"
                )
        lost = [row for row in acknowledged if standing.get((row.run_no, row.seq)) != row]
        tally.wrong += [f"run {row.run_no}: seq {row.seq} was acknowledged and is lost" for row in lost]
        tally.written += len(acknowledged)
        tally.takeovers += len(found)
