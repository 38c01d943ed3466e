"""A session of 10,000 events read from the store, whole and as a window that can still be resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from measure import Figure, Result, figure, microseconds, rounded
from server import server

from adk import EVENTS, NAMES, Open, event, fill, opened, ours, reloaded, theirs_on_file, theirs_on_postgres

TITLE = "Reading an ADK session of 10,000 events"
FLOOR = "There is no floor: these are the targets of the design, for this machine. A window is the last 20 events."
HELD_BY = (
    "What holds it: pydantic validates each event into some fifteen objects; the rows themselves take a tenth of it."
)

WINDOW = 20


def measure(folder: Path, quick: bool) -> Result:
    files = {"ours": ours(str(folder / "ours.db")), **theirs_on_file(folder)}
    found = {"SQLite": asyncio.run(_measured(files, quick))}
    with server(folder) as url:
        found["PostgreSQL"] = asyncio.run(_measured({"ours": ours(url), **theirs_on_postgres(url)}, quick))
    figures: list[Figure] = []
    for database, sides in found.items():
        for whose, (whole, window) in sides.items():
            named = database if whose == "ours" else f"{database}, {whose}"
            mine = whose == "ours"
            figures.append(figure(f"all of it, {named}", [us / 1e6 for us in whole], "s", 0.25 if mine else None))
            figures.append(figure(f"a window, {named}", [us / 1e3 for us in window], "ms", 10.0 if mine else None))
    raw = {f"{on} {whose}": rounded(whole) for on, sides in found.items() for whose, (whole, _) in sides.items()}
    return Result(figures, raw)


async def _measured(sides: Mapping[str, Open], quick: bool) -> dict[str, tuple[list[float], list[float]]]:
    found = {}
    for whose, make in sides.items():
        async with opened(make) as service:
            session = await service.create_session(**NAMES, session_id="long", state={"n": 1})
            await fill(service, session, EVENTS)
            if whose == "ours":  # it is broken off in its last turn
                await service.append_event(session, event(1))
            whole, window = partial(reloaded, service, "long"), partial(reloaded, service, "long", window=WINDOW)
            wholes = [await microseconds(whole) for _ in range(3 if quick else 11)]
            found[whose] = (wholes, [await microseconds(window) for _ in range(21)])
    return found
