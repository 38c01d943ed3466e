"""Agents of Google ADK that are killed at any moment, and resumed by one process, by two at once, or by two workers.

What is recorded when a process dies is begun by no later one; and of two that resume at once, one does nothing."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from holdfast.testing.crash import fast_folder

from .case import Findings

sys.path.append(str(Path(__file__).resolve().parents[1] / "adk"))

from adk_lives import Host, Scene, begun_again, race_is_wrong, wrong_with

KILLS, ROUNDS = 500, 150
SCENE = "mixed"  # with sequential, parallel and loop parts
_LIVES_MAX = 12
_SESSIONS = 3  # that die together, for workers


class Torture:
    """``with Torture() as torture:``, then cases by their names: ``kill 7``, ``race 7``, ``worker 7``."""

    def __enter__(self) -> Torture:
        self.findings = Findings()
        self._host = Host().__enter__()
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-adk-", dir=fast_folder()))
        self._whole: dict[str, tuple[Scene, float]] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._host.__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    def case(self, name: str) -> None:
        kind, seed = name.split()
        chance = random.Random(name)
        service = "holdfast" if kind == "worker" else chance.choice(["adk", "holdfast"])
        whole, lasts_s = self._whole.get(service) or self._lived(service)
        self.findings.cases += 1
        cut = Scene(self._host, self._folder / f"{kind}-{seed}", SCENE, SERVICE=service)
        suffer = {"kill": self._killed, "race": self._raced, "worker": self._worked}[kind]
        if wrong := suffer(cut, whole, lasts_s, chance):
            told = "\n".join([f"adk {name} ({service}):", *wrong, *cut.ledger[-60:], cut.errors[-3000:]])
            self.findings.wrong.append(told)
        shutil.rmtree(cut.folder, ignore_errors=True)

    def _lived(self, service: str) -> tuple[Scene, float]:
        """What a scene does that nothing cuts short, and how long it takes when all it needs has been read once."""
        for name in ("cold", "warm"):
            whole = Scene(self._host, self._folder / f"{service}-{name}", SCENE, SERVICE=service)
            began = time.monotonic()
            if whole.live() != [0]:
                raise RuntimeError(f"the scene fails by itself: {whole.errors}")
            self._whole[service] = whole, time.monotonic() - began
        return self._whole[service]

    def _killed(self, cut: Scene, whole: Scene, lasts_s: float, chance: random.Random) -> list[str]:
        """One life after the other is killed, the first at a call and the others at any time, until one comes to its
        end."""
        recorded: Counter[str] = Counter()
        for life in range(_LIVES_MAX):
            at_call = str(chance.randint(1, 30)) if life == 0 else ""
            kill_after_s = chance.uniform(0.02, lasts_s) if 0 < life < _LIVES_MAX - 1 else 0
            (code,) = cut.live("start", kill_after_s=kill_after_s, DIE_AT=at_call)  # the same message goes on
            if code == 0:
                return wrong_with(cut, whole, recorded)
            self.findings.injected["kills"] += 1
            if code != -9 or (wrong := begun_again(cut, whole, recorded)):
                return wrong if code == -9 else [f"a life ended with {code}"]
            if cut.is_done:  # it was killed on its way out, and the message would be another one now
                return [f"never begun: {call}" for call in whole.begun() - cut.begun()]
            recorded = cut.recorded()
        return [f"no life of {_LIVES_MAX} came to its end"]

    def _raced(self, cut: Scene, whole: Scene, lasts_s: float, chance: random.Random) -> list[str]:
        (code,) = cut.live("start", DIE_AT=str(chance.randint(2, 30)))
        if code != -9:
            return [f"the first life ended with {code}"]
        recorded = cut.recorded()
        self.findings.injected["races"] += 1
        codes = cut.live("resume", beside=2)
        return race_is_wrong(cut, whole, recorded) if codes == [0, 0] else [f"they ended with {codes}"]

    def _worked(self, cut: Scene, whole: Scene, lasts_s: float, chance: random.Random) -> list[str]:
        """Sessions that die together are finished by two workers at once, of which one is killed time and again."""
        cut.env["SESSIONS"] = " ".join(f"s{number}" for number in range(_SESSIONS))
        (code,) = cut.live("many", DIE_AT=str(chance.randint(1, 60)))
        if code != -9:
            return [f"the first life ended with {code}"]
        for life in range(_LIVES_MAX):
            recorded = cut.recorded()
            kill_after_s = chance.uniform(0.1, 2 * lasts_s) if life < 3 else 0
            codes = cut.live("worker", beside=2, kill_after_s=kill_after_s)
            self.findings.injected["workers"] += 2
            self.findings.injected["workers killed"] += codes[0] == -9
            in_flight = _SESSIONS if codes[0] == -9 else 0
            if wrong := begun_again(cut, whole, recorded, times=_SESSIONS, in_flight=in_flight):
                return wrong
            if codes == [0, 0]:
                return cut.unfinished()
            if codes != [-9, 0]:
                return [f"workers ended with {codes}"]
        return [f"no pair of workers of {_LIVES_MAX} came to its end"]


def cases(seed: int) -> Iterator[str]:
    for turn in itertools.count():
        number = seed * 1_000_000 + turn
        yield f"kill {number}"
        yield f"race {number}"
        if turn % 3 == 0:  # they take as long as many of the others
            yield f"worker {number}"


def run(seed: int, until: float, only: str | None = None) -> Findings:
    """At least ``KILLS`` kills and ``ROUNDS`` races, however long they take."""
    began = time.monotonic()
    with Torture() as torture:
        injected = torture.findings.injected
        for name in [only] if only is not None else cases(seed):
            if only is None and time.monotonic() > until and injected["kills"] >= KILLS and injected["races"] >= ROUNDS:
                break
            torture.case(name)
        torture.findings.seconds = time.monotonic() - began
        return torture.findings
