"""The examples' programs for the crash sweep: the same code, its stand-ins for long work a hundred times faster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from holdfast import Holdfast, HoldfastError

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import agent_loop
import folder_digest
import loan
import loan_approval
import loan_session

TEXTS = "HURRIED_TEXTS"  # the environment variable with the folder to digest


class Hurried:
    """``asyncio``, with a short sleep."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


for example in (agent_loop, folder_digest, loan, loan_approval, loan_session):
    example.asyncio = Hurried()  # type: ignore[attr-defined]


class Opened:
    """``holdfast`` for a program that opens a store of its own: it is given the one of the sweep."""

    def __init__(self, hf: Holdfast) -> None:
        self._hf = hf

    def open(self, url: str) -> contextlib.nullcontext[Holdfast]:
        return contextlib.nullcontext(self._hf)


async def reviewed(hf: Holdfast) -> str:
    return await hf.run(loan.review_loan("A-17"), id="loan-A-17")


async def approved(hf: Holdfast) -> str:
    """What was sent is sent again by each process, and is one signal."""
    run = asyncio.create_task(hf.run(loan_approval.approve_loan("A-17", 20_000), id="loan-A-17"))
    while not run.done():
        with contextlib.suppress(HoldfastError):  # it is not there yet, or done
            await hf.send("loan-A-17", "approval", {"by": "Ada", "granted": True}, key="Ada's word")
            break
        await asyncio.sleep(0.001)
    return await run


async def reviewed_in_a_session(hf: Holdfast) -> dict[str, Any]:
    loan_session.holdfast = Opened(hf)  # type: ignore[attr-defined]
    await loan_session.main()
    async with hf.session("loan-session-A-17") as session:
        return dict(session.state)


async def answered(hf: Holdfast) -> str:
    return await hf.run(agent_loop.answer("How high is the Zugspitze, in feet?"), id="agent-1")


async def digested(hf: Holdfast) -> dict[str, Any]:
    return await hf.run(folder_digest.digest_folder(os.environ[TEXTS]), id="digest")
