"""Where the machines' store is, and what happens to it, and to the way there, while they work."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.servers.cluster import Cluster
from tests.servers.postgres import Mode, PostgresServer
from tests.servers.proxy import Proxy

APPENDS = ".checkpoint ("  # what the SQL has in it that writes checkpoints
HOUR_S = 3600.0
LONGEST_S = 1.0  # after which nothing more happens


@dataclass
class Ground(ABC):
    """``urls`` has the way of each machine to the store, ``url`` that of who looks from outside."""

    url: str = ""
    urls: list[str] = field(default_factory=list)
    ahead_s: list[float] = field(default_factory=list)  # the wall clock of each machine
    happened: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @abstractmethod
    def open(self, folder: Path, machines: int, chance: random.Random) -> None:
        """An empty store, and what will happen to it, drawn from ``chance``."""

    @abstractmethod
    def close(self) -> None:
        """Nothing happens any more; the store can be looked at."""

    @abstractmethod
    def leave(self) -> None:
        """It was looked at, or something went wrong on the way there."""


class File(Ground):
    """One SQLite file is one machine's, whose clock all of its processes share."""

    def open(self, folder: Path, machines: int, chance: random.Random) -> None:
        self.url = f"sqlite:///{folder / 'sweep.db'}"
        self.urls = [self.url] * machines
        self.ahead_s = [0.0] * machines

    def close(self) -> None:
        pass

    def leave(self) -> None:
        pass


class Network(Ground):
    """Each machine has its own way to one server, and its own idea of what time it is."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self.server = server
        self._databases = 0
        self._timers = Timers()

    def open(self, folder: Path, machines: int, chance: random.Random) -> None:
        self._databases += 1
        name = f"machines_{self._databases}"
        self.server.sql(f"CREATE DATABASE {name}")
        self.url = self.server.url_of(name)
        self._ways = ExitStack()
        proxies = [self._ways.enter_context(Proxy(self.server.port)) for _ in range(machines)]
        self.urls = [proxy.url_of(name) for proxy in proxies]
        self.ahead_s = [chance.choice([-HOUR_S, 0.0, HOUR_S]) for _ in range(machines)]
        self._cuts = [
            proxy.cut(APPENDS, turns=chance.randrange(30), when=chance.choice(["answered", "answered", "asked"]))
            for proxy in proxies
            for _ in range(chance.randrange(3))
        ]
        for proxy in proxies:
            part, cut_all = (self._at(chance, 0.3) for _ in range(2))
            self._timers.add(part, partial(self._part, proxy, chance.uniform(0.1, 0.9)))
            self._timers.add(cut_all, partial(self._cut_all, proxy))
        self._timers.add(self._at(chance, 0.4), partial(self._crash, chance.uniform(0.0, 0.3)))
        self._timers.add(self._at(chance, 0.2), partial(self._freeze, chance.uniform(0.2, 1.5)))

    def _at(self, chance: random.Random, likely: float) -> float | None:
        """When something happens (seconds), if it does."""
        at = chance.uniform(0.0, LONGEST_S)
        return at if chance.random() < likely else None

    def _part(self, proxy: Proxy, seconds: float) -> None:
        self.happened["machines parted from the store"] += 1
        proxy.pause()
        time.sleep(seconds)
        proxy.resume()

    def _cut_all(self, proxy: Proxy) -> None:
        self.happened["connections cut"] += proxy.cut_all()

    def _crash(self, seconds: float) -> None:
        self.happened["crashes of the server"] += 1
        self.server.stop("immediate")
        time.sleep(seconds)
        self.server.start()

    def _freeze(self, seconds: float) -> None:
        self.happened["freezes of the server"] += 1
        self.server.pause()
        time.sleep(seconds)
        self.server.resume()

    def close(self) -> None:
        self._timers.join()
        self._ways.close()
        for cut in self._cuts:
            self.happened[f"connections cut when a commit was {cut.when}"] += cut.done.is_set()
        self._cuts.clear()

    def leave(self) -> None:
        self.close()
        self.server.sql(f"DROP DATABASE machines_{self._databases} WITH (FORCE)")


class Standby(Ground):
    """The primary is lost while the machines work, and its synchronous standby promoted."""

    def open(self, folder: Path, machines: int, chance: random.Random) -> None:
        self._cluster = Cluster(folder / "cluster")
        self._cluster.start()
        self.url = self._cluster.url
        self.urls = [self.url] * machines
        self.ahead_s = [chance.choice([-HOUR_S, 0.0, HOUR_S]) for _ in range(machines)]
        self._timers = Timers()
        how: list[Mode | None] = ["immediate", "fast", None]
        self._timers.add(chance.uniform(0.05, 0.6), partial(self._lose, chance.choice(how)))

    def _lose(self, how: Mode | None) -> None:
        self._cluster.lose_primary(how)
        self._cluster.promote()
        self.happened["primaries lost"] += 1

    def close(self) -> None:
        self._timers.join()

    def leave(self) -> None:
        self.close()
        self._cluster.stop()


@contextmanager
def one_server() -> Iterator[PostgresServer]:
    """In a folder that its own user can reach; it syncs to the disk, since it is made to crash."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-grounds-"))
    server = PostgresServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder)


@contextmanager
def grounds() -> Iterator[dict[str, Ground]]:
    """Every kind by its name."""
    with one_server() as server:
        yield {each.name: each for each in (File(), Network(server), Standby())}


class Timers:
    """What is to be done at its time, each in a thread of its own; an error in one is raised when all are over."""

    def __init__(self) -> None:
        self._timers: list[threading.Timer] = []
        self._errors: list[BaseException] = []

    def add(self, after_s: float | None, work: Callable[[], object]) -> None:
        if after_s is None:
            return

        def done() -> None:
            try:
                work()
            except BaseException as error:
                self._errors.append(error)

        timer = threading.Timer(after_s, done)
        timer.start()
        self._timers.append(timer)

    def join(self) -> None:
        for timer in self._timers:
            timer.join()
        self._timers.clear()
        if self._errors:
            raise self._errors.pop()
