"""The loan review in the explicit style, as it is written for a context that can save."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from adk_scripted import recorded
from google.adk.agents import BaseAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.events.event import Event
from google.genai import types

from holdfast.adapters.adk import checkpoints


async def document_parsing_tool(app_id: str) -> list[str]:
    await recorded(f"tool parse {app_id}")
    return ["page 1", "page 2"]


async def credit_check_tool(app_id: str) -> dict[str, int]:
    await recorded(f"tool credit {app_id}")
    return {"score": 612}


async def risk_assessment_tool(docs: list[str], credit: dict[str, int]) -> int:
    await recorded(f"tool risk {len(docs)} {credit['score']}")
    return credit["score"] // len(docs)


async def process_loan_with_checkpoints(context: InvocationContext):
    state = context.session.state
    app_id = state.get("app_id")

    # Stage 1: parse the documents
    if "stage1_docs" not in state:
        docs = await document_parsing_tool(app_id)
        state["stage1_docs"] = docs
        await context.save_state()

    # Stage 2: check the credit
    if "stage2_credit" not in state:
        credit = await credit_check_tool(app_id)
        state["stage2_credit"] = credit
        await context.save_state()

    # Stage 3: the assessment, from what the first two have left in the state
    risk = await risk_assessment_tool(state["stage1_docs"], state["stage2_credit"])
    return risk


class Loan(BaseAgent):
    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        async with checkpoints(ctx) as context:
            risk = await process_loan_with_checkpoints(context)
        said = types.Content(role="model", parts=[types.Part(text=f"risk {risk}")])
        yield Event(author=self.name, invocation_id=ctx.invocation_id, content=said)
