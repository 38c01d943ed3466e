"""A loan processor of Google ADK: an agent that has documents parsed and credit checked, then the risk assessed.

Each tool takes seconds here and stands for minutes. What a tool has returned, and what it has set in the state of the
session, is durable before the agent goes on. The plugin takes the store of the sessions, whoever names it: process.py
here, or ADK's command line (docs/how-to/adk-serving.md)."""

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.apps import App, ResumabilityConfig
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.tools import ToolContext
from google.genai import types

from holdfast.adapters.adk import HoldfastPlugin


async def parse_documents(app_id: str, tool_context: ToolContext) -> dict[str, Any]:
    """Read the documents of an application."""
    print("parsing", app_id, flush=True)
    await asyncio.sleep(1)
    tool_context.state["stage1_docs"] = ["salary statement", "bank statement"]
    return {"documents": tool_context.state["stage1_docs"]}


async def check_credit(app_id: str, tool_context: ToolContext) -> dict[str, Any]:
    """Ask for the credit score of an applicant."""
    print("checking credit of", app_id, flush=True)
    await asyncio.sleep(1)
    tool_context.state["stage2_credit"] = 300 + sum(app_id.encode()) % 550
    return {"score": tool_context.state["stage2_credit"]}


async def assess_risk(app_id: str, tool_context: ToolContext) -> dict[str, Any]:
    """Assess the risk of a loan, once its documents are parsed and its credit is checked."""
    documents, score = tool_context.state["stage1_docs"], tool_context.state["stage2_credit"]
    print("assessing risk", flush=True)
    await asyncio.sleep(3)
    return {"risk": "low" if score > 480 else "high", "score": score, "documents": len(documents)}


class Scripted(BaseLlm):
    """Stands for a model of a vendor, without a network: two tools at once, then the third, then the decision."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        print("asking the model", flush=True)
        parts = [part for content in llm_request.contents for part in content.parts or []]
        said = {
            part.function_response.name: part.function_response.response for part in parts if part.function_response
        }
        app_id = (parts[0].text or "").split()[-1]
        if "assess_risk" in said:
            answer = [
                types.Part(text="{risk} risk (score {score}, {documents} documents)".format(**said["assess_risk"]))
            ]
        else:
            tools = ["assess_risk"] if said else ["parse_documents", "check_credit"]
            calls = [types.FunctionCall(name=name, args={"app_id": app_id}) for name in tools]
            answer = [types.Part(function_call=call) for call in calls]
        yield LlmResponse(content=types.Content(role="model", parts=answer))


officer = LlmAgent(
    name="loan_officer",
    model="gemini-2.5-flash" if os.environ.get("GOOGLE_API_KEY") else Scripted(model="scripted"),
    instruction="Decide about a loan application: parse its documents and check the applicant's credit, both at once, "
    "then assess the risk. Answer with the risk, the score and the number of documents.",
    tools=[parse_documents, check_credit, assess_risk],
    output_key="decision",
)
app = App(
    name="adk_loan",
    root_agent=officer,
    plugins=[HoldfastPlugin()],
    resumability_config=ResumabilityConfig(is_resumable=True),
)
