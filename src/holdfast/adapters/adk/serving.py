"""Abandoned invocations in a worker: resumed one by one, as the app's ``Runner`` goes through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from google.adk.apps import App
from google.adk.runners import Runner

from holdfast.beginning import Unloaded
from holdfast.claiming import record_of
from holdfast.definition import PYTHON
from holdfast.delivery import Stop, cancel_once
from holdfast.errors import Busy, HoldfastError
from holdfast.failure import Failure
from holdfast.records import refuse_damaged
from holdfast.served import Served
from holdfast.store import NEVER_MS, Checkpoint, Code, Finish, Taken
from holdfast.worker import Adapted

from .invocation import QUEUE, Invocation, Names, names_of
from .plugin import HoldfastPlugin, plugin_of, without_plugin
from .turn import began_last

if TYPE_CHECKING:
    from holdfast.app import Holdfast
    from holdfast.execution import Execution

__all__ = ["QUEUE", "ServedInvocation", "adapted_to", "runner_of"]


def runner_of(found: Any) -> tuple[Runner, HoldfastPlugin]:
    """The ``Runner`` that a worker resumes invocations with: ``found`` itself, or one for the ``App`` that it is.
    Raises ``TypeError`` for anything else, ``HoldfastError`` if it is not looked after by holdfast."""
    runner = found
    if isinstance(found, App):
        named = next((each for each in found.plugins if isinstance(each, HoldfastPlugin)), None)
        if named is None:
            raise without_plugin(found.name)
        if named.sessions is None:
            raise HoldfastError(
                f"app {found.name!r} keeps its sessions elsewhere: its HoldfastPlugin has a Holdfast and no "
                "HoldfastSessionService. Name the Runner, which knows where they are."
            )
        runner = Runner(app=found, session_service=named.sessions)
    if not isinstance(runner, Runner):
        raise TypeError(f"neither an App nor a Runner of google.adk but {type(found).__name__}")
    plugin = plugin_of(runner)
    if plugin is None:
        raise without_plugin(runner.app_name)
    return runner, plugin


def adapted_to(runner: Runner, plugin: HoldfastPlugin) -> dict[str, Adapted]:
    """What a ``Worker`` on the plugin's store is given, to serve the invocations of the runner's app too."""
    code = plugin.code_of(runner)
    recorded_by = Code(code.version, PYTHON) if code.on_change == "refuse" else None
    return {code.name: Adapted(recorded_by, partial(ServedInvocation, runner, plugin))}


class ServedInvocation(Served):
    """One invocation that a worker has claimed."""

    def __init__(
        self, runner: Runner, plugin: HoldfastPlugin, home: Holdfast, taken: Taken, began: float, failed: int
    ) -> None:
        super().__init__(home, taken, began, failed)
        self._runner = runner
        self._plugin = plugin
        self._going: asyncio.Task[None] | None = None
        self._invocation: Invocation | None = None

    async def _advanced(self, waiting_changed: Callable[[Execution], None]) -> BaseException | None:
        refuse_damaged(self.row)
        names = names_of(self.row)
        code = self._plugin.code_of(self._runner)
        claimed = await self._claimed(code)
        if (damage := record_of(claimed).damage) is not None:
            raise damage
        if began_last(claimed.rows) is None:
            await self._leave_alone(claimed.rows)
            return None
        if self.leaving:
            raise Unloaded("the worker ends")
        self._invocation = Invocation(self._home, names, code, claimed)
        self._invocation.retry_after_ms = round(self.retry_s * 1000)
        self._going = asyncio.create_task(self._resume(names), name=f"holdfast resume {names.run_id}")
        await asyncio.wait({self._going})
        if self._going.cancelled():
            return Unloaded("the worker ends")
        error = self._going.exception()
        if error is not None and not isinstance(error, HoldfastError):
            self.log.error("failed: %s: %s", type(error).__name__, error)
        return Unloaded(str(error)) if isinstance(error, Busy) else error

    async def _resume(self, names: Names) -> None:
        assert self._invocation is not None
        self._plugin.handed[names.run_id] = self._invocation
        try:
            events = self._runner.run_async(
                user_id=names.user_id, session_id=names.session_id, invocation_id=names.invocation_id
            )
            async with aclosing(events):
                async for _ in events:
                    pass
        finally:
            self._plugin.handed.pop(names.run_id, None)

    async def _leave_alone(self, rows: list[Checkpoint]) -> None:
        """Its process died behind the end of a turn that waits for an answer, or before what was asked was stored."""
        finish = Finish(run_no=self.row.no, epoch=self.row.epoch, status="waiting", due_ms=NEVER_MS)
        if not rows:
            lost = "the process that began it died before it had stored what was asked: ask it again"
            finish.status, finish.error = "failed", Failure(HoldfastError.__name__, lost).encode()
        self.log.info("%s; nothing for a worker to go on with", finish.status)
        await self._home._journal.committed(finish, asyncio.get_running_loop())

    def _resumed_by(self) -> str:
        names = names_of(self.row)
        return f"resume(runner, user_id={names.user_id!r}, session_id={names.session_id!r})"

    async def leave(self) -> None:
        """Let the calls in flight finish, begin no other, and hand the invocation back."""
        self.leaving = True
        if self._going is not None:
            assert self._invocation is not None
            drained = asyncio.ensure_future(self._invocation.drained())
            await asyncio.wait({drained, self._going}, return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
            await self.unload()

    async def unload(self) -> None:
        """Stop it where it is, and hand it back."""
        self.leaving = True
        if self._going is not None and not self._going.done():
            assert self._invocation is not None
            self._invocation.stop = self._invocation.stop or Stop(Unloaded("the worker ends"))
            cancel_once(self._going)
            await asyncio.wait({self._going})
