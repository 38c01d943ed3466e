"""One life of a drawn program: in a process of its own, on a real store, or in this one. Imported by the zygote."""

from __future__ import annotations

import random
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from holdfast import CodecError, Diverged, Holdfast, InDoubt, StepFailed, VersionMismatch

from .drawn import Drawn, drawn, without_peeks
from .drawn_steps import INITIAL, World, live
from .edits import Edited, edited

ID = "drawn"
TOLD = "told"


class Plan(msgspec.Struct):
    """The next life. ``cut``: after which part of it (0 to 1) its process dies, None if it comes to its end.

    ``settle``: what a person says of a doubt first, (its seq, what the step has returned or None if it has not)."""

    seed: int
    number: int
    timing: int
    which: Literal["drawn", "before editing", "edited"] = "drawn"
    version: str = "1"
    on_change: str = "salvage"
    cut: float | None = None
    settle: tuple[int, str | None] | None = None

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_bytes(msgspec.json.encode(self))

    @property
    def program(self) -> Drawn:
        if self.which == "edited":
            return edited_of(self.seed).program
        return before_editing(self.seed) if self.which == "before editing" else drawn(self.seed)


def told_in(folder: Path) -> list[list[str]]:
    """The ledger of all lives in this folder."""
    path = folder / TOLD
    return (
        [msgspec.json.decode(line, type=list[str]) for line in path.read_bytes().splitlines()] if path.exists() else []
    )


def before_editing(seed: int) -> Drawn:
    program = drawn(seed)
    return replace(program, tree=without_peeks(program.tree))


def edited_of(seed: int) -> Edited:
    return edited(before_editing(seed), random.Random(f"edits {seed}"))


async def lived(hf: Holdfast, plan: Plan) -> list[Any]:
    """How it ended: [in one word, what there is to say of it]."""
    call = plan.program.call(plan.version, plan.on_change)
    try:
        if plan.settle is not None:
            seq, result = plan.settle
            await hf.resolve(ID, seq, **({"retry": True} if result is None else {"result": result}))
        return ["done", await hf.run(call, id=ID, state=deepcopy(INITIAL))]
    except InDoubt as doubt:
        return ["InDoubt", doubt.seq, doubt.step, doubt.inputs["tag"], str(doubt)]
    except (Diverged, VersionMismatch, CodecError) as loud:
        return [type(loud).__name__, str(loud)]
    except (StepFailed, LookupError, ConnectionError) as failure:
        return ["failed", str(failure)]
    finally:
        call.close()


async def one_life(hf: Holdfast) -> list[Any]:
    store: Any = hf._store
    folder = Path(store.path).parent
    plan = msgspec.json.decode((folder / "plan.json").read_bytes(), type=Plan)
    booked = {(name, tag) for what, name, tag, _ in told_in(folder) if what == "booked"}
    live(World(plan.number, plan.timing, booked, folder / TOLD))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # calls that a cancelled branch made and did not begin
        return await lived(hf, plan)
