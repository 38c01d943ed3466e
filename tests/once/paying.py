"""Payments in processes of their own, killed at a moment that a plan names; what the bank knows is kept outside the
store. Imported by the zygote.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

import holdfast
from holdfast import Holdfast, InDoubt, StepFailed, step, workflow
from holdfast.store import Batch, Committed, Store, open_store

TIMEOUT_S = 0.1
FOLDER = Path()


class Plan(msgspec.Struct):
    """``moment`` is when the trouble comes, "" if none does; ``resolve``: a person looks at the bank's books first."""

    url: str
    id: str
    kind: str
    moment: str = ""
    resolve: bool = False

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_bytes(msgspec.json.encode(self))


def plan() -> Plan:
    return msgspec.json.decode((FOLDER / "plan.json").read_bytes(), type=Plan)


def booked(folder: Path) -> list[str]:
    """The keys of the transfers that the bank has made."""
    path = folder / "bank"
    return path.read_text().splitlines() if path.exists() else []


def _book(key: str) -> None:
    fd = os.open(FOLDER / "bank", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{key}\n".encode())
    os.close(fd)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killing:
    """A store whose process dies before or behind the commit of an intent, or behind that of an outcome."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, batch: Batch) -> Committed:
        moment = plan().moment
        statuses = {row.status for row in batch.appends if row.name == "pay"}
        if moment == "before intent" and "intent" in statuses:
            _die()
        committed = self._store.commit(batch)
        if (moment == "after intent" and "intent" in statuses) or (moment == "after outcome" and "done" in statuses):
            _die()
        return committed


def store_in(folder: Path) -> Any:
    global FOLDER
    FOLDER = folder
    return Killing(open_store(plan().url))


class Refused(Exception):
    """Certainly nothing was transferred."""


async def look(cents: int) -> Any:
    key = holdfast.idempotency_key()
    return f"receipt {key}" if key in booked(FOLDER) else holdfast.NOT_DONE


async def _transfer(cents: int) -> str:
    moment, key = plan().moment, holdfast.idempotency_key()
    if moment == "during" or (plan().kind == "default" and moment in ("before intent", "after intent")):
        _die()
    _calm()
    if moment == "error, nothing done":
        raise ConnectionError("no answer")
    if moment == "refused":
        raise Refused
    if moment == "timeout, nothing done":
        await asyncio.sleep(60)
    _book(key)
    if moment == "after effect":
        _die()
    if moment == "timeout":
        await asyncio.sleep(60)
    if moment == "error":
        raise ConnectionError("the answer was lost")
    return f"receipt {key}"


def _calm() -> None:
    """Trouble in the step comes once."""
    now = plan()
    if now.moment != "after outcome":
        now.moment = ""
        now.write(FOLDER)


def _paying(**options: Any) -> Callable[[int], Awaitable[str]]:
    @step(name="pay", timeout=TIMEOUT_S, **options)
    async def pay(cents: int) -> str:
        return await _transfer(cents)

    return pay


PAYING = {
    "default": _paying(),
    "once": _paying(once=True),
    "once with verify": _paying(once=True, verify=look, attempts=2, backoff=0),
    "once with not_done": _paying(once=True, not_done=Refused, attempts=2, backoff=0),
}


@step
async def prepare() -> int:
    return 5


@workflow(version="1")
async def agent(kind: str) -> str:
    """Its tools are wrapped in ``except Exception``, and where one failed it is tried again in other words."""
    cents = await prepare()
    for more in range(3):
        try:
            return await PAYING[kind](cents + more)
        except Exception:
            continue
    return "gave up"


async def one_life(hf: Holdfast) -> str:
    now = plan()
    if now.resolve:
        (doubt,) = [each for each in await hf.history(now.id) if each.status == "intent"]
        keys = booked(FOLDER)
        await hf.resolve(now.id, doubt.seq, **({"result": f"receipt {keys[0]}"} if keys else {"retry": True}))
    try:
        return str(await hf.run(agent(now.kind), id=now.id))
    except InDoubt as doubt:
        return f"in doubt {doubt.key}"
    except StepFailed as error:
        return f"failed {error}"
