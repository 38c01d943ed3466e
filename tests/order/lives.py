"""One life of a generated program in a process of its own, on a real store: what the kill fuzz's processes do.

What the body lives through is written down as it happens, so that it outlives the process; the life that comes to the
end compares itself with all the lives before it. Imported by the zygote.
"""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import harness
import msgspec
import programs
from harness import Record

from holdfast import Holdfast

ID = "killed"
WHOLE = "all of it happened, once and in order"


class Plan(msgspec.Struct):
    """A generated program, and how long its steps take in the next process. ``name``: another program of the zoo."""

    seed: int
    process: int = 1
    timing: int = 0
    name: str = "generated"

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_bytes(msgspec.json.encode(self))


class Written(list[tuple[Any, ...]]):
    """Events that are in a file the moment they are appended."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, event: tuple[Any, ...]) -> None:
        os.write(self._fd, pickle.dumps(event))
        super().append(event)


def read_events(path: Path) -> list[tuple[Any, ...]]:
    events = []
    with path.open("rb") as file:
        while file.peek(1):
            events.append(pickle.load(file))
    return events


async def one_life(hf: Holdfast) -> str:
    """Run the program, or go on with it. Raises ``Wrong`` if it does not repeat what the lives before it lived."""
    store: Any = hf._store
    folder = Path(store.path).parent
    plan = msgspec.json.decode((folder / "plan.json").read_bytes(), type=Plan)
    found = store.get(ID)
    if found is not None and found.status == "done":
        return WHOLE
    kept = store.load(found.no) if found is not None else []
    earlier = [read_events(path) for path in sorted(folder.glob("lived-*"))]
    undo = harness.tell_of_deliveries()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # calls that a cancelled branch made and did not begin
            events = Written(folder / f"lived-{plan.process:03}")
            after = await harness.execute(_call(plan), ID, store, plan.timing, events=events, observer=hf._observer)
    finally:
        undo()
    for lived in earlier or [[]]:
        world = programs.World(0, events=lived)
        before = Record(after.run, kept, world, None, None, {}, killed=True)
        harness.check(before, len(kept), after)
    return WHOLE


def _call(plan: Plan) -> Any:
    if plan.name == "generated":
        return lambda: programs.generated(plan.seed)
    return next(made for made in programs.ZOO if made.__name__ == plan.name)
