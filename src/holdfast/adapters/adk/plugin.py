"""``HoldfastPlugin``: makes the invocations of an ADK app durable."""

from __future__ import annotations

from typing import Any, Literal

from google.adk.agents.invocation_context import InvocationContext
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_context import ToolContext
from google.genai import types

from holdfast.app import Holdfast
from holdfast.definition import Definition
from holdfast.delivery import Stop
from holdfast.errors import HoldfastError

from . import seams, tools
from .invocation import PREFIX, Invocation
from .places import current_place
from .sessions import HoldfastSessionService
from .structure import fingerprint_of


class HoldfastPlugin(BasePlugin):
    """``App(…, plugins=[HoldfastPlugin()])``: each invocation of the app is a run of holdfast.

    ``store``: a ``Holdfast``, beside whatever session service the app has, or a ``HoldfastSessionService``, whose store
    it shares; None means the one that the runner has, also where ADK's own tools make it. ``version``: of the agents,
    their instructions and tools; an unfinished invocation that another version recorded, or an app with other agents,
    is treated as ``on_change`` says: "restart" begins it anew, "salvage" keeps each result whose inputs are the same,
    "refuse" raises ``VersionMismatch``.

    It stands first among the plugins, so that what it recalls is what the tool returned.
    """

    def __init__(
        self,
        store: Any = None,
        *,
        version: str | int | None = None,
        on_change: Literal["restart", "salvage", "refuse"] = "restart",
    ) -> None:
        super().__init__(name="holdfast")
        self._home = None if store is None else _home_in(store)
        if store is not None and self._home is None:
            raise TypeError(f"HoldfastPlugin takes a Holdfast or a HoldfastSessionService, got {store!r}")
        self.sessions = store if isinstance(store, HoldfastSessionService) else None
        self.handed: dict[str, Invocation] = {}  # by id of the run: claimed by a worker, for the turn that it begins
        self._version = version
        self._on_change = on_change
        self._code("app", "0")  # refuses what is no version
        seams.install(plugin_of)

    def home_of(self, runner: Runner) -> Holdfast:
        """Where the invocations of this runner are recorded. Raises ``HoldfastError`` if nobody has said."""
        home = self._home or _home_in(runner.session_service)
        if home is None:
            raise HoldfastError(
                f"app {runner.app_name!r}: its sessions are in {type(runner.session_service).__name__}, so "
                "HoldfastPlugin() does not know where invocations are to be recorded. Name a store: "
                "HoldfastPlugin(holdfast.open(…)). Nothing was executed."
            )
        return home

    def code_of(self, runner: Runner) -> Definition:
        """Which code an invocation of this runner is recorded by."""
        return self._code(runner.app_name, fingerprint_of(runner.agent))

    def _code(self, app_name: str, structure: str) -> Definition:
        version = structure if self._version is None else f"{self._version}+{structure}"
        return Definition(
            invocation, kind="workflow", name=f"{PREFIX}{app_name}", version=version, on_change=self._on_change
        )

    async def on_user_message_callback(
        self, *, invocation_context: InvocationContext, user_message: types.Content
    ) -> types.Content | None:
        await _begins(invocation_context)
        return None

    async def before_run_callback(self, *, invocation_context: InvocationContext) -> types.Content | None:
        await _begins(invocation_context)
        return None

    async def before_tool_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext
    ) -> dict[str, Any] | None:
        return await tools.before(tool, tool_args, tool_context)

    async def after_tool_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext, result: dict[str, Any]
    ) -> dict[str, Any] | None:
        await tools.after(tool, tool_context, result)
        return None

    async def on_tool_error_callback(
        self, *, tool: BaseTool, tool_args: dict[str, Any], tool_context: ToolContext, error: Exception
    ) -> dict[str, Any] | None:
        await tools.failed(tool, error)
        return None


def without_plugin(app_name: str) -> HoldfastError:
    return HoldfastError(f"app {app_name!r} has no HoldfastPlugin: add plugins=[HoldfastPlugin(…)] to its App")


def _home_in(store: Any) -> Holdfast | None:
    home = store if isinstance(store, Holdfast) else getattr(store, "holdfast", None)
    return home if isinstance(home, Holdfast) else None


async def invocation() -> None:
    """Stands for what an app does; ADK calls that itself."""


async def _begins(context: InvocationContext) -> None:
    place = current_place()
    if place is None:
        return
    try:
        await place.turn.begins(context)
    except HoldfastError as refusal:  # what is no Exception reaches the caller as it is
        place.turn.refusal = refusal
        raise Stop(refusal) from None


def plugin_of(runner: Runner) -> HoldfastPlugin | None:
    """Raises ``HoldfastError`` if another plugin stands before it."""
    found = [each for each in runner.plugin_manager.plugins if isinstance(each, HoldfastPlugin)]
    if not found:
        return None
    if runner.plugin_manager.plugins[0] is not found[0]:
        first = runner.plugin_manager.plugins[0].name
        raise HoldfastError(
            f"app {runner.app_name!r}: plugin {first!r} stands before HoldfastPlugin, and could keep the result of a "
            "tool from it. Put HoldfastPlugin first in plugins=[…]. Nothing was executed."
        )
    return found[0]
