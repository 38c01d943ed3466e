"""The apps of the tests."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from adk_scripted import Scripted, after, call, recorded, tell, text
from google.adk.agents import BaseAgent, LlmAgent, LoopAgent, ParallelAgent, SequentialAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.tools import FunctionTool
from google.adk.tools.agent_tool import AgentTool
from google.adk.tools.tool_context import ToolContext
from google.adk.workflow import START, Workflow, node


def tool(name: str) -> Callable[..., Any]:
    async def body(tool_context: ToolContext, what: str = "") -> dict[str, Any]:
        await recorded(f"tool {name} {what}")
        tool_context.state[f"{name}{what}"] = "done"
        return {"answer": f"{name} of {what}"}

    body.__name__ = name
    return body


def agent(name: str, *rounds: list[Any], tools: list[Any] | None = None, **more: Any) -> LlmAgent:
    names = sorted({part.function_call.name for each in rounds for part in each if part.function_call})
    made = [tool(each) for each in names] if tools is None else tools
    script = after([*rounds, [text(f"{name} is done")]])
    return LlmAgent(name=name, model=Scripted(name, script), tools=made, **more)


def sequence() -> BaseAgent:
    return SequentialAgent(
        name="pipeline",
        sub_agents=[
            agent("a1", [call("fetch", what="one")], include_contents="none"),
            agent("a2", [call("check", what="x"), call("check", what="y")], include_contents="none"),
            agent("a3", [call("write")], output_key="text", include_contents="none"),
        ],
    )


def mixed() -> BaseAgent:
    """Sequential, parallel and loop parts."""
    return SequentialAgent(
        name="mixed",
        sub_agents=[
            agent("first", [call("fetch", what="one")], include_contents="none"),
            ParallelAgent(
                name="both",
                sub_agents=[
                    agent("left", [call("look", what="l1")], [call("look", what="l2")], include_contents="none"),
                    agent("right", [call("seek", what="r1"), call("seek", what="r2")], include_contents="none"),
                ],
            ),
            LoopAgent(
                name="rounds",
                max_iterations=3,
                sub_agents=[agent("turn", [call("polish")], include_contents="none")],
            ),
        ],
    )


def parallel_calls() -> BaseAgent:
    return agent("solo", [call("fetch", what="x"), call("fetch", what="y"), call("fetch", what="z")])


class Four(BaseAgent):
    """Its own code, with four yielded steps."""

    async def _run_async_impl(self, ctx: InvocationContext) -> AsyncGenerator[Event, None]:
        for step in range(4):
            await recorded(f"step {step}")
            yield Event(
                author=self.name,
                invocation_id=ctx.invocation_id,
                actions=EventActions(state_delta={"step": step, "seen": ctx.session.state.get("step", -1)}),
            )


def custom() -> BaseAgent:
    return SequentialAgent(name="outer", sub_agents=[Four(name="four"), agent("last", [call("fetch")])])


def progress(rerun_on_resume: bool = False) -> Workflow:
    @node(rerun_on_resume=rerun_on_resume)
    async def worker(node_input: Any) -> AsyncGenerator[Event, None]:
        yield Event(state={"progress": 1})
        await recorded("node worker")
        yield Event(output="worked")

    @node
    async def final(node_input: Any) -> str:
        await recorded(f"node final with {node_input}")
        return f"final of {node_input}"

    return Workflow(name="graph", edges=[(START, worker, final)])


def progress_rerun() -> Workflow:
    return progress(rerun_on_resume=True)


def nothing() -> Workflow:
    @node
    async def silent(node_input: Any) -> None:
        await recorded("node silent")

    @node
    async def final(node_input: Any) -> str:
        await recorded("node final")
        return "final"

    return Workflow(name="graph", edges=[(START, silent, final)])


def agent_node() -> Workflow:
    @node
    async def final(node_input: Any) -> str:
        await recorded("node final")
        return f"final of {node_input}"

    inner = agent("inner", [call("fetch", what="one")], [call("check", what="two")], [call("write", what="three")])
    return Workflow(name="graph", edges=[(START, inner, final)])


def dynamic() -> Workflow:
    items = (os.environ.get("ITEMS") or "a,b,c").split(",")

    @node
    async def item(node_input: str) -> str:
        await recorded(f"node item {node_input}")
        return f"<{node_input}>"

    @node(rerun_on_resume=True)
    async def each(ctx: Any, node_input: Any) -> str:
        return "".join([await ctx.run_node(item, node_input=name) for name in items])

    @node
    async def final(node_input: str) -> str:
        await recorded(f"node final with {node_input}")
        return node_input

    return Workflow(name="graph", edges=[(START, each, final)])


def fan_out() -> Workflow:
    @node
    async def one(node_input: Any) -> str:
        await recorded("node one 1")
        return "1"

    @node
    async def two(node_input: Any) -> str:
        await recorded("node two 2")
        return "2"

    from google.adk.workflow import JoinNode

    join = JoinNode(name="join")

    @node
    async def final(node_input: Any) -> str:
        await recorded(f"node final with {sorted(node_input.items())}")
        return "final"

    return Workflow(name="graph", edges=[(START, one, join), (START, two, join), (join, final)])


def transfer() -> BaseAgent:
    helper = agent("helper", [call("fetch", what="h")], [call("check", what="h")], description="helps")
    return LlmAgent(
        name="root",
        model=Scripted("root", after([[call("transfer_to_agent", agent_name="helper")], [text("root is done")]])),
        sub_agents=[helper],
    )


def renamed() -> BaseAgent:
    names = (os.environ.get("NAMES") or "a1,a2").split(",")
    return SequentialAgent(
        name="pipeline", sub_agents=[agent(name, [call("fetch", what=name)], include_contents="none") for name in names]
    )


def once() -> BaseAgent:
    """A payment that must happen once: its function is a step of holdfast's."""
    from holdfast import idempotency_key, step

    @step(once=True, not_done=LookupError)
    async def pay(what: str) -> dict[str, Any]:
        tell(f"key {what} {idempotency_key()}")
        await recorded(f"tool pay {what}")
        if os.environ.get("NO_ACCOUNT"):
            raise LookupError("no such account")
        return {"paid": what}

    return agent("payer", [call("pay", what="A")], [call("pay", what="B")], tools=[pay])


def confirmed() -> BaseAgent:
    """A tool that a person has to confirm, between two that need no such thing."""
    asked = FunctionTool(tool("pay"), require_confirmation=True)
    return agent(
        "careful",
        [call("fetch", what="one")],
        [call("pay", what="A")],
        [call("write", what="three")],
        tools=[tool("fetch"), asked, tool("write")],
    )


def as_tool() -> BaseAgent:
    """Agents that are called as tools, two at once, each with a model and a tool of its own."""
    inner = [
        agent(name, [call("fetch", what=name)], description="helps", include_contents="none") for name in ("ann", "bob")
    ]
    tools = [AgentTool(each) for each in inner]
    return agent(
        "boss", [call("ann", request="do"), call("bob", request="do")], [call("write")], tools=[*tools, tool("write")]
    )


def told_the_time() -> BaseAgent:
    """An instruction that is another one each time."""

    def instruction(context: Any) -> str:
        return f"It is {time.time_ns()}."

    return agent("clock", [call("fetch", what="one")], [call("write")], instruction=instruction)


SCENES: dict[str, Callable[[], Any]] = {
    made.__name__: made
    for made in (
        sequence,
        mixed,
        parallel_calls,
        custom,
        progress,
        progress_rerun,
        nothing,
        agent_node,
        dynamic,
        fan_out,
        transfer,
        renamed,
        once,
        confirmed,
        as_tool,
        told_the_time,
    )
}
