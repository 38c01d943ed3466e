"""A call of a step that is executed once: its intent before each attempt, and what is done where no outcome follows.

It never guesses. Where an attempt has begun and its outcome is not known (the process died, the attempt timed out, was
cancelled, or raised what is not in ``not_done=``), outside is asked by ``verify=``, and if that cannot tell, the run
stops in doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from msgspec.structs import replace

from . import branches, clock, codec
from .delivery import Stop, pass_on_cancellation
from .doubt import NOT_DONE, encode_intent, idempotency_key, in_doubt, told_by
from .errors import CodecError, Diverged
from .executing import encoded, in_task, is_late
from .expected import article, convert, describe, text_of
from .store import Checkpoint

if TYPE_CHECKING:
    from .branches import StepProgress
    from .calls import Invocation
    from .executing import Execute

Tried: TypeAlias = tuple[Any, dict[str, Any] | None]
_PATIENCE_S = 2.0  # beyond what the process before took to come to a call
_LOOK_AGAIN_S = 0.01


class Known(NamedTuple):
    """What outside says that a step has returned."""

    value: Any


class Once:
    """``row`` is the checkpoint of the call, being filled in."""

    def __init__(self, call: Invocation, execute: Execute, row: Checkpoint, progress: StepProgress) -> None:
        self._call = call
        self._execute = execute
        self._row = row
        self._progress = progress
        self._run = call.frame.run
        self._intent = row
        self._run.irreversible.began(row)

    async def resumed(self, inputs: bytes) -> Known | None:
        """What is known of an attempt that another process has begun; None if this one may begin. Raises ``Stop``."""
        call, row = self._call, self._row
        version = call.definition.version
        intent = self._run.begun(call.frame, row.name, row.key, row.n, version, inputs, row.fingerprint)
        if intent is None:
            await self._all_met()
            self._progress.key = idempotency_key(self._run.id, row)
            return None
        self._progress.key = self._key_of(intent)
        self._intent, row.attempts = intent, intent.attempts
        return await self._found_out("the process that began it ended before its outcome was recorded", None)

    def _key_of(self, intent: Checkpoint) -> str:
        try:
            return told_by(intent)[0]
        except CodecError as error:
            raise self._run.cannot_read(intent, error) from error

    async def attempt(self, body: Callable[[], Awaitable[Tried]]) -> Tried:
        """One attempt, behind its intent: (value, change of state). Raises what it raises, if by that it certainly has
        not happened."""
        await self._intend()
        try:
            return await body()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, self._call.definition.not_done) and not is_ours(error):
                self._close()
                raise
            if self._run.is_leaving:
                raise asyncio.CancelledError from error  # no failure is recorded that would close the intent
            known = await self._found_out(_why(error), error)
            if known is None:
                raise
            self._pass_on(error)
            return known.value, None
        except BaseException as error:
            self._not_gone_past(error)
            raise

    async def _intend(self) -> None:
        """Have it recorded that an attempt begins, before it does. A cancellation that comes meanwhile cancels it."""
        call, run, row = self._call, self._run, self._row
        assert self._progress.key is not None
        told = encode_intent(self._progress.key, _expected_of(call))
        self._intent = replace(row, status="intent", result=told, started_ms=clock.now_ms())
        run.irreversible.intended.append(self._intent)
        committed: asyncio.Future[None] = run.loop.create_future()
        run.note(self._intent, lambda: None if committed.done() else committed.set_result(None))
        cancelled: asyncio.CancelledError | None = None
        while not committed.done():
            try:
                await asyncio.shield(committed)
            except asyncio.CancelledError as error:
                if run.is_leaving:
                    raise
                cancelled = error
        run.check()
        run.irreversible.intended.remove(self._intent)
        if cancelled is not None:
            self._close()
            raise cancelled

    def _close(self) -> None:
        """The attempt certainly has not happened."""
        self._run.note(replace(self._row, status="not_done", result=None, started_ms=clock.now_ms()))

    # -- where its outcome is not known --------------------------------------------------------------------

    async def _found_out(self, why: str, error: BaseException | None) -> Known | None:
        """What outside says; None if the attempt certainly has not happened. Raises ``Stop`` if nobody can tell."""
        if self._call.definition.verify is not None:
            try:
                answer = await self._asked()
                if answer is NOT_DONE:
                    self._close()
                    return None
                self._row.result, value = encoded(self._run, answer, self._call.definition)
                return Known(value)
            except (Exception, asyncio.CancelledError) as unsure:
                if self._run.is_leaving:
                    raise
                why = f"{why}; verify= could not tell ({_said(unsure)})"
            except BaseException as ending:
                self._not_gone_past(ending)
                raise
        await self._run.irreversible.stop(self._row, self._doubt(why, error))

    def _not_gone_past(self, error: BaseException) -> None:
        """A sys.exit, or a coroutine that is closed: it may be caught, but nothing may be awaited here any more."""
        if not isinstance(error, Stop) and not self._run.is_leaving and not self._run.loop.is_closed():
            self._run.poison(self._doubt(_why(error), error))

    async def _asked(self) -> Any:
        call, frame = self._call, self._call.frame
        asking = type(self._progress)(self._row, frame.step, once=True)
        asking.is_asking, asking.key = True, self._progress.key
        inside = frame.inside(call.scope, frame.view.begin(alone=False), asking)
        is_plain = not asyncio.iscoroutinefunction(call.definition.verify)
        execute = self._execute if is_plain else in_task
        answer = await execute(call, inside, lambda: call.definition.ask(call.instance, call.args, call.kwargs))
        if answer is None or isinstance(answer, bool):
            self._refuse_slip(answer)
        return answer

    def _refuse_slip(self, answer: bool | None) -> None:
        """One that forgets its return, or says False, has not told of a result. Raises ``CodecError``."""
        annotation = self._call.definition.result_annotation
        if annotation in (codec.MISSING, Any, object):
            return
        try:
            convert(answer, annotation)
        except ValueError:
            wanted = article(text_of(describe(annotation)))
            raise CodecError(
                f"it returned {answer!r}, which is neither {wanted}, the step's result, nor holdfast.NOT_DONE"
            ) from None
        except TypeError:  # no type that can be compared
            pass

    def _doubt(self, why: str, error: BaseException | None) -> Any:
        doubt = in_doubt(self._run.id, self._intent, why)
        doubt.__cause__ = error
        return doubt

    def _pass_on(self, error: BaseException) -> None:
        """What outside tells wins over a cancellation, which reaches the task at its next pause."""
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None:
            self._run.loop.call_soon(pass_on_cancellation, task)

    # -- whether it may begin ------------------------------------------------------------------------------

    async def _all_met(self) -> None:
        """What took effect before, or may have, has to be asked for again before anything else of the kind begins: a
        program that asks for something else instead would have the effect a second time. A deterministic one does come
        to it, and since nothing recorded depends on a call that is new, it may be waited for. Raises ``Stop``."""
        run, call = self._run, self._call
        waited_from = run.loop.time()
        # A doubt waits for this call, and holds what this one waits for.
        while not run.irreversible.holds(call.frame) and (row := run.records.unmet(self._row)) is not None:
            waited_s = run.loop.time() - waited_from
            waited_enough = waited_s > run.patience.usual_s(row) + _PATIENCE_S and not branches.has_moving_thread(run)
            if waited_enough or (run.alone and not call.in_thread):
                await self._refuse(row)
            await asyncio.sleep(_LOOK_AGAIN_S)
        if run.irreversible.holds(call.frame):
            run.call_ended(self._row)
            await run.hold()

    async def _refuse(self, unmet: Checkpoint) -> NoReturn:
        run, row = self._run, self._row
        given = codec.readable(row.inputs) if row.inputs else {}
        instead = f"the program does not ask for it again, but for {row.name!r} with {given!r:.300}"
        if unmet.status == "intent":
            why = f"the process that began it ended before its outcome was recorded, and {instead}"
            await run.irreversible.stop(row, in_doubt(run.id, unmet, why))
        inputs = codec.readable(unmet.inputs) if unmet.inputs else {}
        what = f"step {unmet.name!r} took effect once and for all, with {inputs!r:.300}"
        if unmet.kind == "turn":
            what = "in finished turns of a loop (each) steps took effect once and for all"
        raise run.poison(
            Diverged(
                f"run {run.id!r}, checkpoint {unmet.seq}: {what}, and {instead}.\n"
                "Nothing was executed. Make the code between steps deterministic (a model's answer belongs in a step), "
                "or start the work again under a new id."
            )
        )


async def unrecorded(call: Invocation, row: Checkpoint, error: CodecError) -> NoReturn:
    """It has happened, and what came of it cannot be stored."""
    run = call.frame.run
    intent = run.records.begun_at(row)
    assert intent is not None
    doubt = in_doubt(run.id, intent, _why(error))
    doubt.__cause__ = error
    await run.irreversible.stop(row, doubt)


def is_ours(error: BaseException) -> bool:
    """Whether an attempt ended by what holdfast has raised: its time was over, or what it returned cannot be stored."""
    return is_late(error) or isinstance(error, CodecError)


def _expected_of(call: Invocation) -> list[Any] | None:
    """What other processes are told of the type of its result."""
    annotation = call.definition.result_annotation
    return None if annotation is codec.MISSING else describe(annotation)


def _why(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "it was cancelled while it ran"
    return f"it ended with {_said(error)}"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500] if str(error) else type(error).__name__
