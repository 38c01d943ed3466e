"""Where ADK asks us: four public methods of its classes that look first whether holdfast looks after what goes on.

A plugin is asked before and after a model and a tool, but never around a node, nor before a session is read, and its
answer for a model stands in for the callbacks too. So these four are wrapped, once a process, when the first
``HoldfastPlugin`` is made; for apps without one they do what they did (docs/design/adk-turns.md)."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from google.adk.agents.base_agent import BaseAgent
from google.adk.agents.llm_agent import LlmAgent
from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.runners import Runner
from google.adk.workflow import BaseNode

from .models import RecordedLlm
from .nodes import run_node
from .places import current_place
from .turn import Turn

_installed = False


def install(plugin_of: Callable[[Runner], Any]) -> None:
    """``plugin_of`` says which ``HoldfastPlugin`` looks after a runner."""
    global _installed
    if _installed:
        return
    _installed = True
    Runner.run_async = _turns(Runner.run_async, plugin_of)  # type: ignore[method-assign]
    LlmAgent.canonical_model_async = _recorded_model(LlmAgent.canonical_model_async)  # type: ignore[method-assign]
    BaseAgent.run_async = _agents(BaseAgent.run_async)  # type: ignore[method-assign]
    # Final to those who write nodes, which we do not.
    BaseNode.run = _nodes(BaseNode.run)  # type: ignore[misc,method-assign] # pyright: ignore[reportAttributeAccessIssue]


def _turns(original: Callable[..., Any], plugin_of: Callable[[Runner], Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def run_async(self: Runner, **asked: Any) -> AsyncGenerator[Event, None]:
        inside = current_place()
        plugin = plugin_of(self) if inside is None else None
        if inside is not None:  # an agent run as a tool: part of the call, with a session of its own
            inside.is_passed_through()
        steps = original(self, **asked) if plugin is None else Turn(plugin, self, original, asked).events()
        async with aclosing(steps) as events:
            async for event in events:
                yield event

    return run_async


def _recorded_model(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def canonical_model_async(self: LlmAgent, ctx: ReadonlyContext) -> BaseLlm:
        model: BaseLlm = await original(self, ctx)
        place = current_place()
        return model if place is None else RecordedLlm(model, place, self.name)

    return canonical_model_async


def _agents(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def run_async(self: BaseAgent, parent_context: Any) -> AsyncGenerator[Event, None]:
        steps = original(self, parent_context)
        place = current_place()
        if place is not None:
            steps = run_node(place, self.name, None, steps)
        async with aclosing(steps) as events:
            async for event in events:
                yield event

    return run_async


def _nodes(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def run(self: BaseNode, *, ctx: Any, node_input: Any) -> AsyncGenerator[Event, None]:
        steps = original(self, ctx=ctx, node_input=node_input)
        place = current_place()
        if place is not None:
            steps = run_node(place, self.name, ctx, steps, node_input)
        async with aclosing(steps) as events:
            async for event in events:
                yield event

    return run
