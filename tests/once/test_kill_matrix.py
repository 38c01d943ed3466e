"""Killed at every moment of a payment: how often it is made, by the books of a bank outside the store."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.once.paying import PAYING, Plan, booked
from tests.torture.case import Campaign, Case

from holdfast import codec
from holdfast.testing.zygote import Reply, Request

pytestmark = pytest.mark.crash

KILLS = ("before intent", "after intent", "during", "after effect", "after outcome")
TROUBLES = ("timeout", "timeout, nothing done", "error", "error, nothing done", "refused")
DONE_IN_TIME = {"after effect", "after outcome", "timeout", "error"}  # when the bank had made the transfer


def expected(kind: str, moment: str) -> tuple[bool, int]:
    """(whether the run is in doubt, how many transfers there are at the end)."""
    made = moment in DONE_IN_TIME
    if kind == "default":
        return False, made + (moment != "after outcome")
    if moment in ("before intent", "after outcome") or kind == "once with verify":
        return False, 1
    if moment == "refused" and kind == "once with not_done":
        return False, 1
    return True, int(made)


def of(kind: str, moment: str, url: str | None) -> Case:
    def lives(campaign: Campaign, folder: Path) -> Generator[Request, Reply, list[str]]:
        plan = Plan(url or str(folder / "sweep.db"), f"{kind}, {moment}", kind, moment)
        plan.write(folder)
        reply = yield from campaign.life(folder, 1)
        problems = [] if reply.killed is (moment in KILLS) else [f"the first process: {reply}"]
        in_doubt, transfers = expected(kind, moment)
        told = []
        if reply.killed or in_doubt:
            plan.moment = ""
            plan.write(folder)
            for process in (2, 3):  # a second one that is not told anything must not change what is
                reply = yield from campaign.life(folder, process)
                told.append(_said(reply))
            campaign.findings.injected["kills" if moment in KILLS else "troubles"] += 1
        keys = booked(folder)
        if in_doubt:
            if [each[:8] for each in told] != ["in doubt"] * 2 or len({*told}) != 1:
                problems.append(f"told {told}, and it is in doubt")
            if len(keys) != transfers or any(not told[0].endswith(key) for key in keys):
                problems.append(f"{keys} in the books, and {told[0]}")
            plan.resolve = True
            plan.write(folder)
            reply = yield from campaign.life(folder, 4)
            keys, transfers = booked(folder), 1
        if not _said(reply).startswith("receipt ") or not _said(reply).endswith(keys[-1] if keys else "?"):
            problems.append(f"at the end: {_said(reply)}")
        if len(keys) != transfers or (len({*keys}) != 1 and not (kind == "default" and moment in TROUBLES)):
            problems.append(f"{transfers} expected in the books: {keys}")
        return problems

    return Case(f"{kind}, {moment}", lives)


def _said(reply: Reply) -> str:
    return str(codec.readable(reply.result)) if reply.result is not None else f"(nothing: {reply})"


def cases(url: str | None) -> Iterator[Case]:
    for kind in PAYING:
        for moment in (*KILLS, *TROUBLES):
            yield of(kind, moment, url)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_never_more_than_promised(store: str, request: pytest.FixtureRequest) -> None:
    new_schema: Callable[..., Any] | None = request.getfixturevalue("new_schema") if store == "postgres" else None
    url = None if new_schema is None else str(new_schema())
    with Campaign("tests.once.paying:one_life", "tests.once.paying:store_in") as campaign:
        findings = campaign.run(cases(url))
    print(findings)
    assert not findings.wrong, "\n\n".join(findings.wrong[:4])
    assert findings.cases == 40 and findings.injected["kills"] == 20
