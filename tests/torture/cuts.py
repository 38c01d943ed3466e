"""One undisturbed run, and the power cut before each of its calls: what is found, and what a resume makes of it."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from pathlib import Path

from holdfast.testing.zygote import Reply, Request

from .case import Campaign, Case
from .chain import Known, cut
from .disk import Plan
from .looking import problems_of_file, problems_of_runs
from .power import HOW_MUCH


def every_cut(known: Known) -> Iterator[tuple[int, str]]:
    for at in range(len(known.ops) + 1):
        for how_much in HOW_MUCH:
            yield at, how_much


def of_cut(at: int, how_much: str, seed: int, known: Known, *, resume: bool) -> Case:
    """Every image is looked at; with ``resume`` a process also goes on from it, to the right result."""
    name = f"cut {at} {how_much} {seed}"

    def lives(campaign: Campaign, folder: Path) -> Generator[Request, Reply, list[str]]:
        (folder / "ledger.jsonl").write_bytes(known.book)
        cut(folder, {}, known.ops, at, how_much, random.Random(name), 1)
        campaign.findings.injected[f"images ({how_much} of what was pending)"] += 1
        problems = problems_of_file(campaign.new_folder(folder))
        if not resume or problems:
            return problems
        Plan().write(folder)
        reply = yield from campaign.life(folder, 2)
        campaign.findings.injected["images resumed from"] += 1
        return problems_of_runs(folder, [Reply(0, killed=True), reply], known.reply)

    return Case(name, lives)
