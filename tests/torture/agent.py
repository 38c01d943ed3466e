"""An agent whose model is no step: after a restart it says the same in other words, in another order, with other tools.
What the bank has booked is kept outside the store. Imported by the zygote.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

import holdfast
from holdfast import Diverged, Holdfast, InDoubt, StepFailed, step, workflow

BILLS = ("INV-1", "INV-2", "INV-3")
PHRASES = ("{0}", "{0}", "{0}", "{0}, please", "please pay {0}", "bill {0}")
ID = "agent"
FOLDER = Path()
now: Plan


class Plan(msgspec.Struct):
    """``phrase`` draws what the model says in this process, ``die_at`` at which of its moments the bank kills it."""

    shape: str
    phrase: int
    die_at: int
    verify: bool

    def write(self, folder: Path) -> None:
        (folder / "plan.json").write_bytes(msgspec.json.encode(self))


def booked(folder: Path) -> list[str]:
    path = folder / "bank"
    return path.read_text().splitlines() if path.exists() else []


_moments = 0


def _moment() -> None:
    global _moments
    _moments += 1
    if _moments == now.die_at:
        os.kill(os.getpid(), signal.SIGKILL)


def _bill(request: str) -> str:
    """The bank reads what it is written, however it is put."""
    return next(bill for bill in BILLS if bill in request)


async def look(request: str) -> Any:
    key = holdfast.idempotency_key()
    return "found" if any(line.endswith(key) for line in booked(FOLDER)) else holdfast.NOT_DONE


async def _pay(request: str) -> str:
    _moment()
    await asyncio.sleep(random.random() * 0.002)
    fd = os.open(FOLDER / "bank", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{_bill(request)} {holdfast.idempotency_key()}\n".encode())
    os.close(fd)
    _moment()
    await asyncio.sleep(random.random() * 0.002)
    _moment()
    return "paid"


def _paying(**options: Any) -> Callable[[str], Awaitable[str]]:
    @step(name="pay", once=True, **options)
    async def pay(request: str) -> str:
        return await _pay(request)

    return pay


pay, pay_by_key = _paying(), _paying(key=lambda request: request)
pay_verified, pay_verified_by_key = _paying(verify=look), _paying(verify=look, key=lambda request: request)


@step
async def read(what: str) -> str:
    _moment()
    return what


async def _tool(name: str, request: str, paying: Any) -> str:
    try:
        return str(await (paying(request) if name == "pay" else read(request)))
    except Exception as error:
        return f"error: {error}"


async def _turns(asked: list[tuple[str, str]], paying: Any) -> list[str]:
    return [await _tool(*each, paying) for each in asked]


@step(attempts=3, backoff=0)
async def whole_turn(phrase: int, paying: int) -> list[str]:
    said = await _turns(_model(phrase), STEPS[paying])
    if _moments % 2:
        raise ConnectionError("what is around the payments fails")
    return said


STEPS = (pay, pay_by_key, pay_verified, pay_verified_by_key)


def _model(phrase: int) -> list[tuple[str, str]]:
    chance = random.Random(phrase)
    asked = [("pay", chance.choice(PHRASES).format(bill)) for bill in BILLS]
    for _ in range(chance.choice((0, 0, 1, 2))):
        asked.insert(chance.randrange(4), ("read", chance.choice(BILLS)))
    if chance.random() < 0.25:
        chance.shuffle(asked)
    return asked


@workflow(version="1")
async def agent(shape: str, verify: bool) -> list[str]:
    paying = 2 * verify + (shape == "key")
    if shape == "step":
        return await whole_turn(0, paying)
    asked = _model(now.phrase)
    if shape == "gather":
        return list(await asyncio.gather(*(_tool(*each, STEPS[paying]) for each in asked)))
    return await _turns(asked, STEPS[paying])


async def one_life(hf: Holdfast) -> str:
    global FOLDER, now
    store: Any = hf._store
    FOLDER = Path(store.path).parent
    now = msgspec.json.decode((FOLDER / "plan.json").read_bytes(), type=Plan)
    try:
        await hf.run(agent(now.shape, now.verify), id=ID)
    except (InDoubt, Diverged, StepFailed) as error:
        return type(error).__name__
    return "done"
