"""One event after another in a session of ADK's: a young one, one with a long history, one with a big state."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from measure import Floor, Result, SQLiteFloor, figure, microseconds, ratios, rounded

from adk import EVENTS, NAMES, Open, big_state, event, fill, opened, ours, theirs_on_file
from holdfast.adapters.adk import HoldfastSessionService

TITLE = "One event appended to an ADK session"
FLOOR = (
    "The floor is one committed `INSERT` of 1 KB. An event is that, the session's row, by which it is known that none "
    "came between, and a row for each key it sets: here one in every second event."
)
HELD_BY = (
    "What holds it: an event is serialized by pydantic, and two changes of threads lie between the event loop and the "
    "disk, as with steps. Neither grows with the history or the state."
)

GROUP = 20  # of each side in turn


def measure(folder: Path, quick: bool) -> Result:
    floor = SQLiteFloor(folder / "floor.db")
    return measured(floor, ours(str(folder / "ours.db")), theirs_on_file(folder), quick)


def measured(floor: Floor, our: Open, theirs: Mapping[str, Open], quick: bool) -> Result:
    """Appends of each side in turns with the floor."""
    rounds = asyncio.run(_measured(floor, our, theirs, 3 if quick else 31, 500 if quick else EVENTS))
    floor.close()
    below = rounds["floor"]
    figures = [
        figure(f"an event, {what} ÷ the floor", ratios(rounds[what], below), target=2.0)
        for what in ("in a young session", "behind 10,000 events", "beside 10 MB of state")
    ]
    figures.append(figure("an event, in a young session", rounds["in a young session"], "µs"))
    figures += [
        figure(f"{what} ÷ the floor", ratios(rounds[what], below)) for what in rounds if what.startswith("ADK's")
    ]
    return Result([*figures, figure("the floor", below, "µs")], {what: rounded(each) for what, each in rounds.items()})


async def _measured(
    floor: Floor, our: Open, theirs: Mapping[str, Open], rounds: int, history: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"floor": []}
    async with opened(our) as service:
        sides = {"in a young session": (service, {}, 0), "behind 10,000 events": (service, {}, history)}
        sides["beside 10 MB of state"] = (service, big_state(), 0)
        others = {what: make() for what, make in theirs.items()}
        for what, other in others.items():
            sides[f"{what}, young"] = (other, {}, 0)
            sides[f"{what}, 10,000 events"] = (other, {}, history)
            sides[f"{what}, 10 MB of state"] = (other, big_state(), 0)
        appends = {}
        for n, (what, (kept_by, state, count)) in enumerate(sides.items()):
            session = await kept_by.create_session(**NAMES, session_id=f"{n}", state=state)
            await fill(kept_by, session, count)
            appends[what] = (kept_by, session)
        floor.warm()
        for turn in range(rounds):
            found["floor"].append(floor.median_us(GROUP))
            for what, (kept_by, session) in appends.items():
                some = GROUP if isinstance(kept_by, HoldfastSessionService) else 2
                given = [event(n, step=turn) if n % 2 else event(n) for n in range(some)]
                appended = [partial(kept_by.append_event, session, each) for each in given]
                found.setdefault(what, []).append(statistics.median([await microseconds(each) for each in appended]))
        for other in others.values():
            await other.close()
    return found
