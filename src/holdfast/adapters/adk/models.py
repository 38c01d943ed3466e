"""A model whose finished answers are recorded, and recalled where the same is asked at the same place."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from pydantic import PrivateAttr

from holdfast import clock, codec
from holdfast.store import Checkpoint

from .places import Place

_CALL_ID = "adk-"  # what ADK begins the ids with that it gives to calls: it keeps them from models


class RecordedLlm(BaseLlm):
    """``inner`` as the agent ``name`` at ``place`` asks it. Only whole answers are recorded, not the pieces a stream
    comes in; the last one of a call is handed on once it is durable."""

    _inner: BaseLlm = PrivateAttr()
    _place: Place = PrivateAttr()
    _name: str = PrivateAttr()

    def __init__(self, inner: BaseLlm, place: Place, name: str) -> None:
        super().__init__(model=inner.model)
        self._inner, self._place, self._name = inner, place, name

    def connect(self, llm_request: LlmRequest) -> Any:
        return self._inner.connect(llm_request)

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        invocation = self._place.turn.recorded
        self._place.is_passed_through()
        row = self._asked(llm_request)
        await invocation.check()
        found = invocation.results.find(row)
        if found is not None:
            invocation.recalled += 1
            for response in _restored(found):
                self._note_calls(response)
                yield response
            return
        invocation.executed += 1
        began, held = clock.monotonic(), None
        whole: list[LlmResponse] = []
        invocation.flying.add(flight := object())
        try:
            async with aclosing(self._inner.generate_content_async(llm_request, stream)) as responses:
                async for response in responses:
                    if held is not None:
                        yield held
                    held = None
                    if response.partial:
                        yield response
                        continue
                    self._note_calls(response)
                    whole.append(held := response)
            row.duration_ms = (clock.monotonic() - began) * 1000
            row.tokens = _tokens(whole)
            row.result = self._result(whole)
            await invocation.record(row)
        finally:
            invocation.landed(flight)
        if held is not None:
            yield held

    def _asked(self, request: LlmRequest) -> Checkpoint:
        """The call. Its inputs are the contents: an instruction may tell the time, and an answer that was paid for is
        as good under another one; that the instructions changed is for ``version=`` to say."""
        place = self._place
        name = f"model {self._name}"
        row = place.turn.recorded.blank("step", name)
        row.scope, row.n = place.scope, place.count(name)
        contents = [content.model_dump_json(exclude_none=True) for content in request.contents]
        row.fingerprint = codec.fingerprint(json.dumps(contents).encode())
        seen = {"contents": len(contents), "last": contents[-1] if contents else ""}
        row.inputs = codec.preview(codec.encode(seen, codec.Types.none, "a request"))
        return row

    def _result(self, whole: list[LlmResponse]) -> bytes:
        told = [response.model_dump_json(exclude_none=True) for response in whole]
        return codec.encode(told, codec.Types.none, f"the answer of the model of agent {self._name!r}")

    def _note_calls(self, response: LlmResponse) -> None:
        """Each call of a function has its id from here on, so that it is the same when the answer is recalled."""
        for part in (response.content.parts if response.content else None) or []:
            if part.function_call is not None:
                part.function_call.id = part.function_call.id or f"{_CALL_ID}{uuid.uuid4()}"
                self._place.turn.recorded.results.call_ids.add(part.function_call.id)


def _restored(row: Checkpoint) -> list[LlmResponse]:
    told: Any = codec.decode(row.result or b"", codec.Types.none, f"checkpoint {row.seq} ({row.name})")
    return [LlmResponse.model_validate_json(each) for each in told]


def _tokens(responses: list[LlmResponse]) -> int | None:
    used = [each.usage_metadata.total_token_count for each in responses if each.usage_metadata]
    return sum(each for each in used if each) if used else None
