"""One turn of an invocation: a call of ``Runner.run_async``, from its beginning to its end or to a pause.

A turn that was cut short is gone through again as it was asked for then, over the session as it was then: ADK takes the
same way, each call of a model or a tool that was finished is answered from the record, and each event that was stored
is met by the one stored. So ADK has nothing to guess from what it finds in the session."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from google.adk.agents.invocation_context import InvocationContext
from google.adk.events.event import Event
from google.adk.sessions.session import Session
from google.genai import types

from holdfast import codec
from holdfast.doubt import in_doubt
from holdfast.errors import HoldfastError, Mismatch, NotFound

from .history import TurnSessions
from .invocation import Invocation, Names, run_id
from .places import Place, go_through
from .values import plain

if TYPE_CHECKING:
    from google.adk.runners import Runner

    from holdfast.app import Holdfast

    from .plugin import HoldfastPlugin

_BEGIN, _UNDO, _PAUSE = "turn", "undo", "pause"


class Began(NamedTuple):
    """How a turn began: as it was asked for, and what was the last event then. ``seen``: those of a window that it saw,
    None if it saw all. ``undo``: what it has changed since."""

    number: int
    message: types.Content | None
    invocation_id: str | None  # where the caller named it
    state_delta: dict[str, Any] | None
    after: str | None
    seen: list[str] | None
    undo: dict[str, Any]


class Again(BaseException):
    """The turn that was about to begin is one that was cut short: go through that one instead."""

    def __init__(self, invocation: Invocation, began: Began) -> None:
        self.invocation = invocation
        self.began = began
        super().__init__(invocation.id)


class Turn:
    """``asked`` holds what ``run_async``, ADK's own, was called with."""

    def __init__(
        self,
        plugin: HoldfastPlugin,
        runner: Runner,
        run_async: Callable[..., AsyncGenerator[Event, None]],
        asked: dict[str, Any],
    ) -> None:
        self.plugin = plugin
        self.home = plugin.home_of(runner)
        self.asked = asked
        self._run_async = run_async
        self.message: types.Content | None = asked.get("new_message")
        self.invocation: Invocation | None = None
        self.invocation_id: str = ""
        self.began: Began | None = None
        self.after: str | None = None
        self.seen: list[str] | None = None
        self.met: set[str] = set()  # ids of events that were stored before
        self.sessions = TurnSessions(runner.session_service, self)
        self.place = Place(self)
        self._runner = runner
        self.refusal: HoldfastError | None = None  # why it cannot begin, told where ADK would tell something else
        self._context: InvocationContext | None = None
        self._is_begun = False

    def is_about(self, session: Session) -> bool:
        return {"user_id": session.user_id, "session_id": session.id} == self._whose

    @property
    def _whose(self) -> dict[str, str]:
        return {"user_id": self.asked["user_id"], "session_id": self.asked["session_id"].strip()}

    @property
    def recorded(self) -> Invocation:
        """The invocation, which is ours. Raises ``HoldfastError`` where none has begun."""
        if self.invocation is None:
            raise HoldfastError("a model or a tool was called before the invocation began; put HoldfastPlugin first")
        return self.invocation

    # -- what happens ----------------------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[Event, None]:
        """What ADK yields, but for events that were stored before. Raises what stopped the invocation."""
        try:
            if self.message is None and not self.asked.get("invocation_id"):
                self.asked["invocation_id"] = await last_unfinished(self._runner, self.home, **self._whose)
            if (id := self.asked.get("invocation_id")) and not await self._named(id):
                return
            try:
                async for event in self._gone_through():
                    yield event
            except Again as again:
                await self._again(again)
                async for event in self._gone_through():
                    yield event
        except BaseException as error:
            await self._ended(error)
            stopped_by = self._stopped_by
            if stopped_by is not None and not isinstance(error, GeneratorExit):
                raise stopped_by from None
            raise
        await self._ended(None)

    @property
    def _stopped_by(self) -> HoldfastError | None:
        stop = None if self.invocation is None else self.invocation.stop
        return self.refusal if stop is None else stop.error

    async def _gone_through(self) -> AsyncGenerator[Event, None]:
        runner = copy.copy(self._runner)
        runner.session_service = self.sessions
        new_context = self._runner._new_invocation_context

        def context(session: Session, *, invocation_id: str | None = None, **rest: Any) -> InvocationContext:
            made = new_context(session, invocation_id=self.invocation_id or invocation_id, **rest)
            made.session_service = self.sessions  # also for agents that append events themselves
            self._context = self._context or made
            return made

        runner._new_invocation_context = context  # type: ignore[method-assign] # ADK keeps its form for those who do so
        asked = dict(self.asked)
        if self.began is not None:
            asked.update(
                new_message=self.began.message,
                invocation_id=self.began.invocation_id,
                state_delta=self.began.state_delta,
            )
        async with aclosing(go_through(self.place, self._run_async(runner, **asked))) as events:
            async for event in events:
                if event.id not in self.met:
                    yield event

    async def _named(self, invocation_id: str) -> bool:
        """The caller says which invocation to go on with. Whether there is anything left to do."""
        names = self._names(invocation_id)
        row = await self.home._read(self.home._store.get, names.run_id)
        if row is None:
            return True
        answers = self.message is not None and any(part.function_response for part in self.message.parts or [])
        if row.status == "done" and not answers:
            if self.message is not None:
                raise Mismatch(
                    f"invocation {invocation_id} is done and takes no other message. Leave out invocation_id= to begin "
                    "a new one with it. Nothing was executed."
                )
            return False
        invocation = await self._claimed(names)
        if (began := turn_cut_short(invocation)) is not None:
            await self._again(Again(invocation, began), invocation_id)
        else:
            self.invocation, self.invocation_id = invocation, invocation_id
        return True

    async def _again(self, again: Again, invocation_id: str = "") -> None:
        self.invocation_id = invocation_id or self.invocation_id
        if self.message is not None and plain(self.message) != plain(again.began.message):
            await again.invocation.hand_back("running")
            raise Mismatch(
                f"invocation {self.invocation_id} is unfinished, and was asked something else than this message: "
                "resume it without a message (holdfast.adapters.adk.resume), or leave out invocation_id= to begin a "
                "new one. Nothing was executed."
            )
        self.invocation, self.began = again.invocation, again.began
        self._number(again.began.number)

    def _number(self, number: int) -> None:
        if number:  # what is behind a pause is told apart from what is before it
            self.place.scope = f"answer#{number}"

    # -- told by what ADK calls ------------------------------------------------------------------------------

    async def found(self, session: Session) -> None:
        """The session as the turn begins: the last invocation in it may be unfinished, and be what is asked for
        again."""
        if self.message is None or self.invocation is not None or self.asked.get("invocation_id"):
            return
        last = next((event.invocation_id for event in reversed(session.events) if event.invocation_id), None)
        if last is None:
            return
        names = self._names(last)
        row = await self.home._read(self.home._store.get, names.run_id)
        if row is None or row.status not in ("running", "failed", "in_doubt", "parked"):
            return
        rows = await self.home._read(self.home._store.load, row.no)
        began = began_last(rows)
        if began is None or plain(began.message) != plain(self.message):
            return
        invocation = await self._claimed(names)
        self.invocation_id = last
        if (began := turn_cut_short(invocation)) is not None:
            raise Again(invocation, began)
        self.invocation_id = ""
        if not invocation.is_done:
            await invocation.hand_back("waiting")

    async def begins(self, context: InvocationContext) -> None:
        """ADK has settled which invocation it is, and has stored nothing of the turn."""
        if self.invocation is not None:
            await self.begin()
            return
        invocation = await self._claimed(self._names(context.invocation_id))
        self.invocation_id = context.invocation_id
        if invocation.is_done:
            raise Mismatch(
                f"invocation {context.invocation_id} is done; it takes no more answers. Nothing was executed."
            )
        if (began := turn_cut_short(invocation)) is not None:
            raise Again(invocation, began)
        self.invocation = invocation
        await self.begin()

    async def begin(self) -> None:
        """Record how the turn begins, once."""
        if self.invocation is not None and self.began is None and not self._is_begun:
            self._is_begun = True
            await self._record_begin(self.invocation)

    # -- beginning and ending --------------------------------------------------------------------------------

    def _names(self, invocation_id: str) -> Names:
        return Names(self._runner.app_name, **self._whose, invocation_id=invocation_id)

    async def _claimed(self, names: Names) -> Invocation:
        invocation = self.plugin.handed.pop(names.run_id, None)
        if invocation is None:
            invocation = Invocation(self.home, names, self.plugin.code_of(self._runner))
        await invocation.claim()
        return invocation

    async def _record_begin(self, invocation: Invocation) -> None:
        number = sum(row.kind == "save" and row.name == _BEGIN for row in invocation.rows)
        self._number(number)
        told = {
            "number": number,
            "message": None if self.message is None else self.message.model_dump_json(exclude_none=True),
            "invocation_id": self.asked.get("invocation_id"),
            "state_delta": plain(self.asked.get("state_delta")),
            "after": self.after,
            "seen": self.seen,
        }
        await invocation.note(_BEGIN, told)

    async def _ended(self, error: BaseException | None) -> None:
        invocation = self.invocation
        if invocation is None or invocation.is_done:
            return
        if error is None and (intent := invocation.results.unmet) is not None:
            why = "its outcome was never recorded, and the agents came to their end without asking for it"
            error = invocation.poison(in_doubt(invocation.id, intent, why)).error
            await invocation.hand_back("in_doubt", error)
            raise error
        if error is None:
            if unmet := self.sessions.unmet:
                invocation.log.warning("%d events stored before did not come about again; they stay", len(unmet))
            if unanswered := self._unanswered():
                await invocation.note(_PAUSE, sorted(unanswered))
            await invocation.hand_back("waiting" if unanswered else "done")
        else:
            await invocation.hand_back(self._status_after(error), error)

    def _status_after(self, error: BaseException) -> str:
        if isinstance(error, Exception):
            return "failed"
        ends_process = isinstance(error, (SystemExit, KeyboardInterrupt))
        return "parked" if ends_process and self.home._serving else "running"  # it would end the next worker too

    def _unanswered(self) -> set[str]:
        """The long-running calls of the invocation that nobody has answered: then an answer may still come."""
        context = self._context
        if context is None:
            return set()
        asked: set[str] = set()
        for event in context.session.events:
            if event.invocation_id == self.invocation_id:
                if event.author == "user":
                    asked -= {answer.id for answer in event.get_function_responses() if answer.id}
                asked |= event.long_running_tool_ids or set()
        return asked


async def last_unfinished(runner: Runner, home: Holdfast, user_id: str, session_id: str) -> str:
    """The id of the last invocation in a session that was cut short. Raises ``NotFound``."""
    session = await runner.session_service.get_session(app_name=runner.app_name, user_id=user_id, session_id=session_id)
    where = f"session {session_id!r} of user {user_id!r} in app {runner.app_name!r}"
    if session is None:
        raise NotFound(f"there is no {where}")
    for invocation_id in dict.fromkeys(event.invocation_id for event in reversed(session.events)):
        row = await home._read(home._store.get, run_id(runner.app_name, user_id, session_id, invocation_id))
        if row is None or row.status in ("done", "cancelled"):
            continue
        if began_last(await home._read(home._store.load, row.no)) is not None:
            return invocation_id
    waiting = " (an invocation that waits for an answer goes on with the answer)" if session.events else ""
    raise NotFound(f"{where} has no unfinished invocation{waiting}")


def turn_cut_short(invocation: Invocation) -> Began | None:
    """The turn of an invocation that began and came to no end."""
    return None if invocation.is_done else began_last(invocation.rows)


def began_last(rows: Any) -> Began | None:
    """The last turn in the rows of an invocation, if it has not come to its end."""
    found: dict[str, Any] | None = None
    undo: dict[str, Any] = {}
    for row in rows:
        if row.kind != "save":
            continue
        told: Any = codec.decode(row.result or b"", codec.Types.none, f"checkpoint {row.seq}")
        if row.name == _BEGIN:
            found, undo = told, {}
        elif row.name == _UNDO:
            undo = {**told, **undo}
        elif row.name == _PAUSE:
            found = None
    if found is None:
        return None
    message = None if found["message"] is None else types.Content.model_validate_json(found["message"])
    asked = (found["number"], message, found["invocation_id"], found["state_delta"])
    return Began(*asked, found["after"], found["seen"], undo)
