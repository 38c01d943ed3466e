"""What the rows share: the floor, figures with their spread, and the machine."""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

KB = 1024
VALUE = os.urandom(KB)
WARM = 1500  # rows written before anything is timed: a young write-ahead log is twice as slow


class Floor(ABC):
    """The least that can be done with a database: one row of 1 KB inserted after the other, each of them committed."""

    def __init__(self) -> None:
        self.seq = 0

    @abstractmethod
    def insert(self, value: bytes = VALUE) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def warm(self, rows: int = WARM) -> None:
        for _ in range(rows):
            self.insert()

    def median_us(self, rows: int) -> float:
        """The median of ``rows`` inserts."""
        times = []
        for _ in range(rows):
            start = time.perf_counter()
            self.insert()
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    def mean_us(self, rows: int) -> float:
        """What one of ``rows`` inserts took of the whole: for rates."""
        start = time.perf_counter()
        self.warm(rows)
        return (time.perf_counter() - start) * 1e6 / rows


class SQLiteFloor(Floor):
    """The standard library, WAL, synchronous=FULL."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("CREATE TABLE floor (run_no INTEGER, seq INTEGER, value BLOB)")
        self.db.execute("CREATE UNIQUE INDEX floor_place ON floor (run_no, seq)")

    def insert(self, value: bytes = VALUE) -> None:
        self.seq += 1
        self.db.execute("INSERT INTO floor VALUES (?, ?, ?)", (1, self.seq, value))

    def close(self) -> None:
        self.db.close()


@dataclass
class Figure:
    """One number of a row. ``low`` and ``high`` are the 10th and 90th percentile of the rounds."""

    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    low: float | None = None
    high: float | None = None

    @property
    def unsettled(self) -> bool:
        """The rounds differ so much that their median says nothing: something else used the machine."""
        return self.low is not None and self.high is not None and self.high > 2 * self.low

    @property
    def met(self) -> bool | None:
        if self.target is None or self.unsettled:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def missed_by(self) -> str:
        """How far from the target, as a part of it."""
        assert self.target is not None
        away = abs(self.value - self.target)
        return f"{away / self.target:.0%}" if self.target else f"{away:g}"


@dataclass
class Result:
    figures: list[Figure]
    raw: dict[str, Any] = field(default_factory=dict)  # the rounds behind the figures, rounded

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def figure(
    what: str, rounds: Sequence[float], unit: str = "×", target: float | None = None, *, at_least: bool = False
) -> Figure:
    """The median of ``rounds`` with its spread."""
    low, high = percentile(rounds, 10), percentile(rounds, 90)
    return Figure(what, statistics.median(rounds), unit, target, at_least, low, high)


def percentile(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round((len(ordered) - 1) * percent / 100))]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round: what slows the machine down slows both sides of one round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 3) for value in values]


def settled_size(path: Path) -> int:
    """The size of the file once its log is in it."""
    with closing(sqlite3.connect(path)) as db:
        busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
    return path.stat().st_size


async def microseconds(work: Callable[[], Awaitable[Any]]) -> float:
    start = time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1e6


async def until_cancelled() -> None:
    await asyncio.get_running_loop().create_future()


# -- the machine -----------------------------------------------------------------------------------------------


def machine(folder: Path) -> dict[str, str]:
    """What the figures depend on, without a date or a name."""
    import apsw
    import msgspec

    floor = SQLiteFloor(folder / "machine.db")
    floor.warm()
    commit = floor.median_us(400)
    floor.close()
    return {
        "processor": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {_filesystem(folder)}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, msgspec {msgspec.__version__}",
        "sqlite": f"{apsw.sqlite_lib_version()} in holdfast (apsw), {sqlite3.sqlite_version} in the floor (sqlite3)",
        "load": f"{os.getloadavg()[0]:.1f} processes at work in the minute before",
        "floor": f"one committed INSERT of 1 KB: {commit:.0f} µs",
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _filesystem(folder: Path) -> str:
    best, kind = "", "unknown file system"
    try:
        for line in Path("/proc/mounts").read_text().splitlines():
            _, at, name, *_ = line.split()
            if folder.resolve().is_relative_to(at) and len(at) >= len(best):
                best, kind = at, name
    except OSError:  # not Linux
        pass
    return kind
