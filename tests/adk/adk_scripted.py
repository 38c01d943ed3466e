"""A model that follows a script, tools that leave a line in a ledger, and points where the process dies.

The ledger is a file that outlives the process: a line when a call begins and one when it ends. ``DIE_AT`` in the
environment is the number of the point, counted over all calls of the process, at which it kills itself, ``STALL_AT``
the one at which it is stopped, until somebody lets it go on. Where what is in memory has to outlive it, a life is a
task, ``begin_life``, which is cancelled instead."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types
from pydantic import PrivateAttr

_passed = 0
_life: asyncio.Task[Any] | None = None
_PAUSES_S = {"y": 0.03, "z": 0.06, "2": 0.03}


def begin_life(task: asyncio.Task[Any] | None) -> None:
    global _life, _passed
    _life, _passed = task, 0


async def point() -> None:
    """Where the process may die."""
    global _passed
    _passed += 1
    if _passed == int(os.environ.get("DIE_AT") or 0):
        if _life is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            _life.cancel()
            await asyncio.Event().wait()
    if _passed == int(os.environ.get("STALL_AT") or 0):
        os.kill(os.getpid(), signal.SIGSTOP)


def tell(line: str) -> None:
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write(line + "\n")


async def recorded(name: str) -> None:
    """The body of something that costs: begun, then ended, with points before and between. Those whose names end in a
    later letter or digit take longer, so that what is called in parallel does not end at once."""
    await point()
    tell(f"begin {name}")
    await asyncio.sleep(_PAUSES_S.get(name[-1], 0.002))
    await point()
    tell(f"end {name}")


def call(name: str, **args: Any) -> types.Part:
    return types.Part(function_call=types.FunctionCall(name=name, args=args))


def text(said: str) -> types.Part:
    return types.Part(text=said)


class Scripted(BaseLlm):
    """Answers with what ``script`` makes of a request: parts, one answer a call."""

    _script: Callable[[LlmRequest], list[types.Part]] = PrivateAttr()
    _name: str = PrivateAttr()

    def __init__(self, name: str, script: Callable[[LlmRequest], list[types.Part]]) -> None:
        super().__init__(model="scripted")
        self._script, self._name = script, name

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        parts = self._script(llm_request)
        await recorded(f"model {self._name} {len(llm_request.contents)} {asked(llm_request)}")
        if stream:
            for part in parts:
                yield LlmResponse(content=types.Content(role="model", parts=[part]), partial=True)
        yield LlmResponse(content=types.Content(role="model", parts=parts))


def asked(request: LlmRequest) -> str:
    """The names of the functions that have answered since the last message of a person, and of nobody else."""
    return ",".join(answers(request)) or "-"


def answers(request: LlmRequest) -> list[str]:
    return [
        part.function_response.name or ""
        for content in request.contents
        for part in content.parts or []
        if part.function_response
    ]


def after(steps: list[list[types.Part]]) -> Callable[[LlmRequest], list[types.Part]]:
    """One answer after another, by how many rounds of tools have been answered in the request."""

    def script(request: LlmRequest) -> list[types.Part]:
        rounds = sum(any(part.function_response for part in content.parts or []) for content in request.contents)
        return steps[min(rounds, len(steps) - 1)]

    return script
