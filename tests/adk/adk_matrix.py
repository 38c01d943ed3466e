"""Where sessions are × which agents × where it ends: what was finished is never done again.

Six strategies: ours in memory, on SQLite and on PostgreSQL, and ADK's in memory, on a database and on Vertex AI, with
our journal beside. Whatever it is, a scene that was cut short ends as one does that nothing cut short."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from adk_lives import OVER, Host, Scene, wrong_with

import holdfast

IN_MEMORY = ("memory", "adk memory")  # which outlive a task, and no process
KILLED = ("sqlite", "postgres", "adk database", "vertex")
KINDS = ("sequence", "both", "rounds", "parallel_calls", "fan_out", "agent_node")
REAL_ENGINE = "HOLDFAST_TEST_AGENT_ENGINE"  # projects/…/locations/…/reasoningEngines/…, where there are credentials
_numbers = itertools.count(1)


class Cell(Scene):
    """A scene under one strategy. In memory its lives are tasks of this process, and each end is a cancellation."""

    def __init__(self, host: Host, folder: Path, kind: str, strategy: str, **env: str) -> None:
        ours = strategy in ("memory", "sqlite", "postgres")
        super().__init__(host, folder, kind, SERVICE="holdfast" if ours else strategy, **env)
        self._is_task = strategy in IN_MEMORY

    def live(self, how: str = "start", **more: Any) -> list[int]:
        if not self._is_task:
            return super().live(how, **more)
        before = dict(os.environ)
        os.environ.update(self.env | more)
        try:
            return [asyncio.run(self._life(how))]
        finally:
            os.environ.clear()
            os.environ.update(before)
            with Path(self.env["LEDGER"]).open("a") as ledger:
                ledger.write(OVER + "\n")

    async def _life(self, how: str) -> int:
        import adk_program
        import adk_scripted

        adk_scripted.begin_life(asyncio.current_task())
        try:
            await adk_program.main(self.name, how)
        except asyncio.CancelledError:
            return -9
        finally:
            adk_scripted.begin_life(None)
        return 0

    def recorded(self) -> Counter[str]:
        return asyncio.run(_recorded(self.env["HOLDFAST_DB"]))


async def _recorded(url: str) -> Counter[str]:
    found: Counter[str] = Counter()
    async with holdfast.open(url) as hf:
        for run in await hf.runs():
            for row in await hf.history(run.id):
                if row.kind == "step" and row.status == "done":
                    kind = "" if row.name.startswith("model ") else "node " if row.key is None else "tool "
                    found[kind + row.name] += 1
    return found


class Matrix:
    """``new_url`` gives the URL of an empty store on PostgreSQL, ``vertex_url`` that of a server for Vertex AI's."""

    def __init__(self, host: Host, folder: Path, new_url: Callable[[], str], vertex_url: str) -> None:
        self._host, self._folder, self._new_url, self._vertex_url = host, folder, new_url, vertex_url
        self._whole: dict[str, Cell] = {}

    def cell(self, strategy: str, kind: str) -> Cell:
        number = next(_numbers)
        env: dict[str, str] = {}
        if strategy in IN_MEMORY:
            env["HOLDFAST_DB"] = f"memory://matrix-{number}"
        elif strategy == "postgres":
            env["HOLDFAST_DB"] = self._new_url()
        elif strategy == "vertex":
            engine = os.environ.get(REAL_ENGINE)
            env |= {"VERTEX_URL": "real" if engine else self._vertex_url, "VERTEX_ENGINE": engine or str(number)}
            if engine:
                asyncio.run(_delete_last(engine))
        return Cell(self._host, self._folder / f"{kind}-{number}", kind, strategy, **env)

    def whole(self, kind: str) -> Cell:
        """As it is when nothing cuts it short: in memory, with our sessions."""
        if kind not in self._whole:
            cell = self._whole[kind] = self.cell("memory", kind)
            assert cell.live() == [0], kind
        return self._whole[kind]

    def points(self, kind: str) -> int:
        return sum(line.startswith(("begin ", "end ")) for line in self.whole(kind).ledger)

    def case(self, strategy: str, kind: str, at: int) -> list[str]:
        """What is wrong when it ends at point ``at``, and another process, or task, resumes."""
        cut = self.cell(strategy, kind)
        named = f"{strategy}, {kind}, point {at}"
        if (codes := cut.live(DIE_AT=str(at))) != [-9]:
            return [f"{named}: the first life ended with {codes}", cut.errors[-3000:]]
        recorded = cut.recorded()
        if (codes := cut.live("resume")) != [0]:
            return [f"{named}: the second life ended with {codes}", cut.errors[-3000:]]
        return [f"{named}: {each}" for each in wrong_with(cut, self.whole(kind), recorded)]


def cases(seed: int, points: Callable[[str], int]) -> Iterator[tuple[str, str, int]]:
    """One point of each strategy with each kind, and then all the others, in an order drawn from the seed."""
    chance = random.Random(seed)
    every = [
        (strategy, kind, at) for strategy in IN_MEMORY + KILLED for kind in KINDS for at in range(1, points(kind) + 1)
    ]
    chance.shuffle(every)
    first = list({case[:2]: case for case in every}.values())
    chance.shuffle(first)
    yield from first
    yield from (case for case in every if case not in first)


async def _delete_last(engine: str) -> None:
    from adk_vertex import sessions_at

    await sessions_at("real", engine).delete_session(app_name="app", user_id="u", session_id="s")
