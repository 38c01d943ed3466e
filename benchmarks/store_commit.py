"""What a commit costs beside the least SQLite can do: the same bytes, inserted by the standard library.

    python benchmarks/store_commit.py [folder]

Both sides write 1 KB values with WAL and synchronous=FULL into files of the same folder, warmed up and in
turns, and the medians of the rounds are compared.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from holdfast.journal import Standing
from holdfast.store import Batch, Checkpoint, RunRow, Store, open_store

VALUE = os.urandom(1024)
ROUNDS = 41
RUNS = 500


def checkpoint(run_no: int, seq: int, value: bytes = VALUE) -> Checkpoint:
    row = Checkpoint(
        run_no=run_no, seq=seq, epoch=1, kind="step", scope="", branch="", name="parse_documents", key=None,
        n=seq, version="", status="done", attempts=1, started_ms=1_790_000_000_000, duration_ms=12.5,
        tokens=None, usd=None, fingerprint=VALUE[:16], inputs=None, result=value, delta=None,
    )  # fmt: skip
    row.checksum = row.compute_checksum()
    return row


class Nobody:
    """Whom a journal tells of its leases where there are none."""

    def renewed(self, *_: object) -> None: ...

    def standing(self) -> Standing:
        return Standing({}, {})


class Bare:
    """One autocommit INSERT a row, and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("CREATE TABLE bare (run_no INTEGER, seq INTEGER, value BLOB)")
        self.db.execute("CREATE UNIQUE INDEX bare_place ON bare (run_no, seq)")
        self.seq = 0

    def one(self) -> None:
        self.seq += 1
        self.db.execute("INSERT INTO bare VALUES (?, ?, ?)", (1, self.seq, VALUE))

    def forty(self) -> None:
        for _ in range(40):
            self.one()


def run_rows(count: int) -> list[RunRow]:
    given = {
        "workflow": "w",
        "version": "1",
        "python": "3.11",
        "module": "m",
        "file": "m.py",
        "inputs": b"",
        "state": None,
    }
    lease = {"fingerprint": b"", "seed": b"", "owner": "bench", "lease_until_ms": 600_000}
    return [RunRow(id=f"r{i}", **given, **lease) for i in range(count)]


class Ours:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = open_store(str(path))
        self.nos = [row.no for row in self.store.commit(Batch(creates=run_rows(RUNS))).created.values()]
        self.seq = 0

    def batch(self, size: int) -> Batch:
        """One row each of as many runs: a batch as the journal drains it."""
        self.seq += 1
        return Batch(appends=[checkpoint(no, self.seq) for no in self.nos[:size]])

    def commit(self, batch: Batch) -> None:
        committed = self.store.commit(batch)
        assert not committed.fenced

    def commit_all(self, batches: list[Batch]) -> None:
        for batch in batches:
            self.commit(batch)


def microseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start) / 1000


def compare(bare: Bare, ours: Ours, size: int, rows: int) -> tuple[float, float]:
    """µs a row of both, each round about ``rows`` rows of each, in turns."""
    floor, cost = [], []
    for _ in range(ROUNDS):
        floor.append(microseconds(bare.forty) / 40)
        batches = [ours.batch(size) for _ in range(max(rows // size, 1))]
        cost.append(microseconds(partial(ours.commit_all, batches)) / (size * len(batches)))
    return statistics.median(floor[5:]), statistics.median(cost[5:])


def bytes_a_row(folder: Path, sizes: range) -> tuple[float, float]:
    """File bytes a row, both sides given the same values, of lengths spread evenly over ``sizes``."""
    values = [os.urandom(size) for size in sizes] * (5000 // len(sizes))
    bare, ours = Bare(folder / f"{sizes}-bare.db"), Ours(folder / f"{sizes}-ours.db")
    before = settled_size(bare.path), settled_size(ours.path, ours.store)
    bare.db.execute("BEGIN")
    for seq, value in enumerate(values, 1):
        bare.db.execute("INSERT INTO bare VALUES (?, ?, ?)", (1, seq, value))
    bare.db.execute("COMMIT")
    for start in range(0, len(values), 250):
        rows = [checkpoint(ours.nos[0], start + n, v) for n, v in enumerate(values[start : start + 250], 1)]
        ours.commit(Batch(appends=rows))
    after = settled_size(bare.path), settled_size(ours.path, ours.store)
    bare.db.close()
    return (after[0] - before[0]) / len(values), (after[1] - before[1]) / len(values)


def settled_size(path: Path, store: Store | None = None) -> int:
    """The size of the file once its log is in it."""
    if store is None:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    else:
        store.close()  # closing the last connection does it
    return path.stat().st_size


def load_ms(ours: Ours, *, busy: bool) -> float:
    no = ours.nos[-1]
    while ours.seq < 20_000:
        ours.seq = max(ours.seq, 10_000)
        ours.commit(Batch(appends=[checkpoint(no, ours.seq + i) for i in range(1, 251)]))
        ours.seq += 250
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(200))

    thread = threading.Thread(target=spin)
    if busy:
        thread.start()
    try:
        times = [microseconds(lambda: ours.store.load(no, after=10_000)) for _ in range(3 if busy else 9)]
    finally:
        stop.set()
        if busy:
            thread.join()
    return statistics.median(times) / 1000


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        bare, ours = Bare(folder / "bare.db"), Ours(folder / "ours.db")
        for _ in range(1500):  # a young log is twice as slow
            bare.one()
            ours.commit(ours.batch(1))
        print(f"{'batch':>6} {'bare µs/row':>12} {'holdfast µs/row':>16} {'cost ratio':>11} {'rows/s ×':>9}")
        for size in (1, 2, 10, 50, 100, 500):
            floor, cost = compare(bare, ours, size, 40 if size == 1 else 500)
            print(f"{size:>6} {floor:>12.1f} {cost:>16.1f} {cost / floor:>11.2f} {floor / cost:>9.1f}")
        # Three rows of 1,024 bytes fill a 4 KB page on either side; of 1,000 bytes the bare table fits four and
        # ours three. One length alone says what one likes: the spread of lengths is the figure to quote.
        for sizes in (range(1000, 1001), range(1024, 1025), range(500, 1500), range(50, 300)):
            a, b = bytes_a_row(folder, sizes)
            name = f"{sizes.start}" if len(sizes) == 1 else f"{sizes.start}–{sizes.stop - 1}"
            print(f"file bytes a step of {name} bytes: bare {a:.0f}, holdfast {b:.0f} ({b / a:.2f}×)")
        print(f"load 10,000 rows: {load_ms(ours, busy=False):.1f} ms")
        print(f"load 10,000 rows beside a busy thread: {load_ms(ours, busy=True):.1f} ms")


if __name__ == "__main__":
    main()
