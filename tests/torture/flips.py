"""One bit of a store is flipped, and everything that reads it is asked again.

``flips_of`` are the values of a small store that holds runs in every condition; a flip changes one bit of one of them.
Nothing may be told wrongly then: the run it belongs to is told to be damaged, or everything is as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import shutil
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

import holdfast
from holdfast import StepFailed, step, workflow
from holdfast.app import Holdfast
from holdfast.cli import _main
from holdfast.errors import HoldfastError
from holdfast.repairs import recorded
from holdfast.store import open_store
from holdfast.watching import Watcher

from .case import Findings

TABLES = ("run", "checkpoint", "claim", "signal", "news", "blob", "blob_part")
GONE = "gone/0/0|1|1.00|f00d"  # an owner on another machine, whose lease has lapsed
IDS = ("live", "waits", "done", "failed", "queued", "big")

executed: list[str] = []
_gate: asyncio.Event


@step
async def fetch(what: str) -> str:
    executed.append(f"fetch {what}")
    holdfast.state.setdefault("fetched", []).append(what)
    holdfast.spend(tokens=1200, usd=0.25)
    return f"text of {what}"


@step
async def refuse(what: str) -> None:
    executed.append(f"refuse {what}")
    raise LookupError(f"no {what}")


@step(key=lambda part: part)
async def summarize(part: str) -> list[str]:
    executed.append(f"summarize {part}")
    return [await fetch(part), part]


@step
async def last() -> str:
    executed.append("last")
    holdfast.emit("thinking")
    await _gate.wait()
    return "end"


@workflow(version="1")
async def live(name: str) -> list[Any]:
    holdfast.state["name"] = name
    found: list[Any] = [await fetch("a"), await summarize("b")]
    try:
        await refuse("c")
    except StepFailed as failed:
        found.append(failed.message)
    await holdfast.sleep(0.001)
    found.append(await holdfast.wait_for("approval", bool))
    return [*found, await last()]


@workflow(version="1")
async def waits(name: str) -> list[Any]:
    return [await fetch(name), await holdfast.wait_for("approval", bool, timeout=1e9)]


@workflow(version="1")
async def done(name: str) -> str:
    return await fetch(name)


@workflow(version="1")
async def failed(name: str) -> str:
    await fetch(name)
    await refuse(name)
    return await fetch("never")


@step
async def scan(name: str) -> str:
    executed.append(f"scan {name}")
    return name * 70_000


@workflow(version="1")
async def big(name: str) -> str:
    pages = await scan(name)
    await refuse(name)
    return pages


CALLS: dict[str, Any] = {"live": live, "waits": waits, "done": done, "failed": failed, "queued": done, "big": big}


async def fill(hf: Holdfast, told: Callable[[], None]) -> None:
    """Runs in every condition; ``told`` is called while "live" has a step in flight that its row tells of."""
    global _gate
    _gate = asyncio.Event()
    await hf.run(done("d"), id="done")
    with contextlib.suppress(StepFailed):
        await hf.run(big("b"), id="big")
    for _ in range(2):  # the failure is tried anew
        with contextlib.suppress(StepFailed):
            await hf.run(failed("f"), id="failed")
    await hf.submit(done("q"), id="queued")
    await hf.start(live("l"), id="live")
    await hf.send("live", "approval", True, key="k")
    await hf.start(waits("w"), id="waits")
    await hf.send("waits", "other", {"n": 1}, key="k")
    store = hf._store
    for _ in range(400):
        await asyncio.sleep(0.02)
        rows = [store.get(id) for id in ("live", "waits")]
        if rows[0] is not None and rows[0].doing and rows[1] is not None and rows[1].waiting and store.news(rows[0].no):
            break
    told()


def sqlite_scene(folder: Path) -> Path:
    """A store as the death of the machine that had it leaves it behind."""
    source, scene = folder / "source.db", folder / "scene.db"

    def snapshot() -> None:
        db = apsw.Connection(str(source))
        db.execute("VACUUM INTO ?", (str(scene),))
        db.close()

    async def main() -> None:
        async with holdfast.open(source, lease=1) as hf:
            await fill(hf, snapshot)

    asyncio.run(main())
    db = apsw.Connection(str(scene))
    db.execute("UPDATE run SET owner = ?, lease_until_ms = updated_ms + 1 WHERE owner IS NOT NULL", (GONE,))
    db.execute("UPDATE claim SET owner = ?", (GONE,))
    db.execute("PRAGMA journal_mode = DELETE")
    db.close()
    return scene


class Flip(NamedTuple):
    table: str
    rowid: str  # what names the row, as SQL
    column: str
    bit: int
    value: Any  # what it holds then
    ids: frozenset[str]  # the runs that the row is of, or says it is of
    hides_last: bool = False  # the last checkpoint of a run is then that of no run: it might never have been written

    def __str__(self) -> str:
        return f"{self.table}.{self.column} bit {self.bit} where {self.rowid}: {self.value!r}"

    @property
    def place(self) -> tuple[str, str]:
        return self.table, self.column


_ROWS = {
    "run": ("no",),
    "checkpoint": ("run_no", "seq"),
    "claim": ("run_no", "epoch"),
    "signal": ("run_no", "n"),
    "news": ("run_no", "epoch", "n"),
    "blob": ("hash",),
    "blob_part": ("hash", "n"),
}


def flips_of(ask: Callable[[str], list[dict[str, Any]]]) -> Iterator[Flip]:
    """Every bit of every value; of long ones the first and last bytes. ``ask`` runs a SELECT."""
    ids = {row["no"]: row["id"] for row in ask("SELECT no, id FROM run")}
    last = {row["run_no"]: row["seq"] for row in ask("SELECT run_no, max(seq) AS seq FROM checkpoint GROUP BY run_no")}
    for table in TABLES:
        for row in ask(f"SELECT * FROM {table}"):
            rowid = " AND ".join(f"{name} = {as_sql(row[name])}" for name in _ROWS[table])
            of_run = [no for no, id in ids.items() if id == "big"] if table.startswith("blob") else []
            for column, held in row.items():
                for bit, value in _flipped(held):
                    of = set(of_run) or {row["no"] if table == "run" else row["run_no"]}
                    if column in ("no", "run_no"):
                        of.add(value)
                    hides = (table, column) == ("checkpoint", "run_no") and row["seq"] == last[row["run_no"]]
                    named = frozenset(ids[no] for no in of if no in ids)
                    yield Flip(table, rowid, column, bit, value, named, hides)


def as_sql(held: int | bytes) -> str:
    return f"x'{held.hex()}'" if isinstance(held, bytes) else str(held)


def _flipped(held: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(held, int):
        for bit in range(64):
            yield bit, int.from_bytes((held ^ (1 << bit)).to_bytes(9, "big", signed=True)[-8:], "big", signed=True)
    elif isinstance(held, float):
        (bits,) = struct.unpack("<Q", struct.pack("<d", held))
        for bit in range(64 if held else 63):  # SQLite has no -0.0
            yield bit, struct.unpack("<d", struct.pack("<Q", bits ^ (1 << bit)))[0]
    elif isinstance(held, (str, bytes)):
        data = held.encode() if isinstance(held, str) else held
        for at in range(len(data)) if len(data) <= 64 else (*range(32), *range(len(data) - 32, len(data))):
            for bit in range(8):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                yield 8 * at + bit, Text(changed) if isinstance(held, str) else bytes(changed)


class Text(bytes):
    """Bytes that are to be stored as text, whether or not they are any."""


# -- what is told of a store -------------------------------------------------------------------------------

Told = dict[tuple[str, str], str]


def told_of(url: Path | str) -> Told:
    """What each reader says of each run; an error of ours is something said, any other is raised."""
    told: Told = {}
    store = open_store(url)
    hf = Holdfast(store)

    async def main() -> None:
        for run in await hf.runs():
            told["runs", run.id] = repr(run)
        for id in IDS:
            for name, ask in (("get", hf.get), ("history", hf.history)):
                try:
                    told[name, id] = repr(await ask(id))
                except HoldfastError as error:
                    told[name, id] = f"{type(error).__name__}: {error}"
            row = store.get(id)
            told["watch", id] = repr(Watcher(store, id, 0).look()) if row is not None else "none"
            told["record", id] = str(recorded(store, row).damage) if row is not None else "none"
        await hf.aclose()

    asyncio.run(main())
    for entry in _typed(url, "list", "--json")["runs"]:
        told["list", entry["id"]] = repr({**entry, "updated_ms": 0})
    for id in IDS:
        told["show", id] = repr(_typed(url, "show", id, "--json"))
        _typed(url, "show", id)
        _typed(url, "show", id, "--raw")
        _typed(url, "show", id, "--raw", "--json")
    _typed(url, "list")
    return told


def _typed(url: Path | str, *args: str) -> Any:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        _main([*args, "--store", str(url)])
    return json.loads(out.getvalue()) if "--json" in args else out.getvalue()


def resumed(path: Path, id: str) -> tuple[str, tuple[str, ...]]:
    """How the same line goes on with the run, and what it executes for that."""
    global _gate

    async def main() -> str:
        global _gate
        _gate = asyncio.Event()
        _gate.set()
        async with holdfast.open(path, lease=1) as hf:
            try:
                if id == "waits":
                    await hf.send(id, "approval", True, key="yes")
                return repr(await asyncio.wait_for(hf.run(CALLS[id](id[0]), id=id), 5))
            except TimeoutError:
                return WAITS
            except HoldfastError as error:
                return f"{type(error).__name__}: {error}"

    executed.clear()
    return asyncio.run(main()), tuple(executed)


WAITS = "it waits"
DAMAGE = ("changed or damaged", "#blob=", "Damage(what=", "'condition': 'damaged'", "'damages': ['", "'damages': [\"")

# What is not found, and why it does no harm. All else must be.
HARMLESS = {
    ("run", "owner"): "it is compared for being equal only, and the fence is the epoch: a run whose owner is not known "
    "any more is taken over when its lease lapses",
    ("run", "lease_until_ms"): "written anew every few seconds by who holds it; else the run is taken over a little "
    "sooner, which the fence makes safe, or later",
    ("run", "heard_ms"): "shown; written anew every few seconds by who holds it",
    ("run", "updated_ms"): "shown; a claim sets it anew before it is used",
    ("run", "due_ms"): "when a worker looks at the run, by itself: sooner costs a look, and later is shown by list",
    ("run", "wakes"): "a run that goes to sleep with another number looks once more",
    ("run", "waiting"): "sealed: what is waited for is told as unreadable in the log; the checkpoints hold it",
    ("run", "doing"): "sealed: not shown; the checkpoints hold what was done",
    ("claim", "owner"): "shown",
    ("claim", "claimed_ms"): "shown, but for the first one's, which is compared",
    ("claim", "found"): "shown; whether it tells of a death is compared",
    ("claim", "seen_ms"): "shown, but for the first one's, which is compared",
    ("claim", "doing"): "sealed: not shown",
    ("signal", "run_no"): "no row tells how many letters there were; it can be sent again",
    ("news", "data"): "sealed: not told; news are no history",
    ("news", "run_no"): "sealed: not told; news are no history",
    ("news", "epoch"): "sealed: not told; news are no history",
    ("news", "n"): "sealed: not told; news are no history",
    ("blob", "hash"): "the content is there all the same; who keeps it again writes it anew",
    ("blob", "size_bytes"): "shown to nobody; the reference in the row says it too",
    ("blob", "written_ms"): "how long what nobody names is left where it is",
    ("blob_part", "data"): "a bit that unpacking does not look at: the content is compared with its hash",
    ("news", "count"): "sealed: not told; news are no history",
}


class Scene:
    """A small store, what is told of it, and how its runs go on."""

    def __init__(self, folder: Path) -> None:
        self._whole = sqlite_scene(folder)
        self.path = folder / "flipped.db"
        self.restore()
        self.told = told_of(self.path)
        self.resumes = {id: self.resumed(id) for id in IDS}
        self.size = self._whole.stat().st_size

    def restore(self) -> None:
        shutil.copy(self._whole, self.path)
        for beside in ("-wal", "-shm", "-unsynced"):
            Path(f"{self.path}{beside}").unlink(missing_ok=True)

    def resumed(self, id: str, flip: Flip | None = None) -> tuple[str, tuple[str, ...]]:
        self.restore()
        if flip is not None:
            self.change(flip)
        return resumed(self.path, id)

    def flips(self) -> list[Flip]:
        self.restore()
        return list(flips_of(self._ask))

    def _ask(self, text: str) -> list[dict[str, Any]]:
        db = apsw.Connection(str(self.path))
        try:
            cursor, rows = db.cursor(), []
            for row in cursor.execute(text):
                names = [name for name, *_ in cursor.get_description()]
                rows.append(dict(zip(names, row, strict=True)))
            return rows
        finally:
            db.close()

    def change(self, flip: Flip) -> bool:
        """Whether SQLite takes it: there may be another row of that key."""
        is_text = isinstance(flip.value, Text)
        value = "CAST(? AS TEXT)" if is_text else "?"
        db = apsw.Connection(str(self.path))
        try:
            given = bytes(flip.value) if is_text else flip.value
            db.execute(f"UPDATE {flip.table} SET {flip.column} = {value} WHERE {flip.rowid}", (given,))
        except apsw.ConstraintError:
            return False
        finally:
            db.close()
        return True

    def wrong_with(self, flip: Flip) -> list[str]:
        """What is told wrongly with a bit of a value flipped; [] where nothing is."""
        self.restore()
        if not self.change(flip):
            return []
        try:
            told = told_of(self.path)
            again = {id: self.resumed(id, flip) for id in flip.ids}
        except Exception as error:
            return [f"{flip}: it ended with {type(error).__name__}: {error}"]
        wrong = wrongly_told(self.told, told, flip.ids)
        outcomes = [outcome for outcome, _ in again.values()]
        is_found = any(map(is_damage, outcomes)) or any(map(is_damage, told.values()))
        for id, (outcome, steps) in again.items():
            if is_damage(outcome) and steps:
                wrong.append(f"{id!r} executed {steps} before it was found to be damaged")
            elif outcome == WAITS and flip.place == ("run", "lease_until_ms"):
                pass  # until that time, a day at most
            elif not (is_found or flip.hides_last) and (outcome, steps) != self.resumes[id]:
                wrong.append(f"{id!r} resumes with {outcome} by {steps}, and not {self.resumes[id]}")
        is_unused = flip.place == ("run", "no") and flip.ids == {"queued"}  # no row refers to it yet
        if not (is_found or is_unused or flip.hides_last or flip.place in HARMLESS):
            wrong.append("it is not found")
        return [f"{flip}: {each}" for each in wrong]


def is_damage(said: str) -> bool:
    return any(mark in said for mark in DAMAGE)


def wrongly_told(before: Told, now: Told, ids: frozenset[str]) -> list[str]:
    """What is told otherwise of runs that are none of ``ids``."""
    return [
        f"{reader} of {id!r} tells otherwise: {now.get((reader, id))}, and not {said}"
        for (reader, id), said in before.items()
        if id not in ids and now.get((reader, id)) != said
    ]


def sampled(flips: list[Flip], seed: int, each: int) -> list[Flip]:
    """So many of every column of every table, drawn from the seed."""
    draw = random.Random(seed)
    of_place: dict[tuple[str, str], list[Flip]] = {}
    for flip in flips:
        of_place.setdefault(flip.place, []).append(flip)
    return [flip for some in of_place.values() for flip in draw.sample(some, min(each, len(some)))]


def run(seed: int, until: float, *, only: int | None = None) -> Findings:
    """Flips drawn from the seed; with ``only`` that one of them all."""
    findings, began = Findings(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-flips-") as folder:
        scene = Scene(Path(folder))
        every = scene.flips()
        order = random.Random(seed).sample(range(len(every)), len(every)) if only is None else [only]
        for number in order:
            if only is None and time.monotonic() >= until:
                break
            findings.wrong += [f"flips {number}: {each}" for each in scene.wrong_with(every[number])]
            findings.injected["bits flipped"] += 1
            findings.cases += 1
    findings.seconds = time.monotonic() - began
    return findings
