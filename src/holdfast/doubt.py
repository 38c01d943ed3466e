"""Steps that are executed once: what is in flight of them in a live run, and what is said where one is in doubt.

Such a step leaves two rows: its intent (status "intent") is durable before its body begins, its outcome stands at the
same place. An attempt that certainly has not happened leaves a row of status "not_done", which closes the intent. An
intent that nothing closes is a doubt: nobody knows whether the step took effect (docs/design/once.md).
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from . import codec
from .delivery import Stop
from .errors import CodecError, InDoubt
from .failure import Failure
from .recall import Place, enclosing, is_inside, place_of, scope_of
from .state import decode_change
from .store import Checkpoint

if TYPE_CHECKING:
    from .branches import Frame
    from .run import LiveRun

_PREVIEW_MAX = 300  # characters of the inputs in a message


class NotDone(Enum):
    """The type of ``NOT_DONE``."""

    NOT_DONE = "NOT_DONE"

    def __repr__(self) -> str:
        return "holdfast.NOT_DONE"


NOT_DONE: Final[Literal[NotDone.NOT_DONE]] = NotDone.NOT_DONE
"""What ``verify=`` of a step returns if the step certainly has not happened."""


def idempotency_key(run_id: str, row: Checkpoint) -> str:
    """The same in every process for the call at this place with these inputs, and no other's."""
    place = (run_id, *place_of(row), row.fingerprint)
    return codec.fingerprint(repr(place).encode()).hex()


def encode_intent(key: str, expects: list[Any] | None) -> bytes:
    """``expects`` describes the type of the step's result, where that can be told (``expected.describe``)."""
    return codec.encode({"key": key, "expects": expects}, codec.Types.none, "an intent")


def told_by(intent: Checkpoint) -> tuple[str, list[Any] | None]:
    """(its idempotency key, the description of the result's type). Raises ``CodecError`` if that cannot be read."""
    where = f"checkpoint {intent.seq}"
    held = codec.decode(intent.result or b"", codec.Types.none, where)
    if not isinstance(held, dict) or not isinstance(held.get("key"), str):
        raise CodecError(f"{where} is no intent: {held!r:.100}")
    return held["key"], held.get("expects")


def open_intents(rows: Iterable[Checkpoint]) -> list[Checkpoint]:
    """The intents that nothing closes, and that no later attempt has taken over, in the order of ``seq``. Under other
    code another call may have come to stand at the place of one."""
    found: dict[tuple[Place, bytes], Checkpoint] = {}
    taken_over: set[int] = set()
    for row in rows:
        call = place_of(row), row.fingerprint
        if row.status == "intent":
            found[call] = row
            taken_over.add(_source_of(row))
        elif row.kind == "step":
            found.pop(call, None)
    return sorted((row for row in found.values() if row.seq not in taken_over), key=lambda row: row.seq)


def _source_of(intent: Checkpoint) -> int:
    """The intent of an earlier attempt that it takes over; 0 if of none, or if it is damaged, as others tell."""
    try:
        return decode_change(intent).kept
    except CodecError:
        return 0


def in_doubt(run_id: str, intent: Checkpoint, why: str) -> InDoubt:
    """``why`` ends the sentence that begins with "nobody knows whether …"."""
    inputs = codec.readable(intent.inputs) if intent.inputs else {}
    shown = (
        ", ".join(f"{name}={value!r}" for name, value in inputs.items()) if isinstance(inputs, dict) else str(inputs)
    )
    if len(shown) > _PREVIEW_MAX:
        shown = shown[: _PREVIEW_MAX - 1] + "…"
    key, resolve = told_by(intent)[0], f"holdfast resolve {shlex.quote(run_id)} {intent.seq}"
    text = (
        f"run {run_id!r}, checkpoint {intent.seq}: nobody knows whether step {intent.name!r} took effect: {why}.\n"
        f"  inputs: {shown or '(none)'}\n"
        f"  idempotency key: {key}\n"
        "The step is neither executed again nor taken for done. Find out, and say which it is:\n"
        f"  - it took effect: {resolve} --result JSON   (what the step would have returned)\n"
        f"  - it did not, and may be executed again: {resolve} --retry\n"
        "In a program: await hf.resolve(id, seq, result=…) or (…, retry=True). Or give the step a verify= that finds "
        "out, and run the same line again."
    )
    return InDoubt(text, step=intent.name, inputs=inputs, key=key, seq=intent.seq)


def doubt_told(text: str, rows: Iterable[Checkpoint]) -> InDoubt:
    """The error that another process has stopped with, as ``in_doubt`` made it."""
    for intent in open_intents(rows):
        if f", checkpoint {intent.seq}: " in text:
            inputs = codec.readable(intent.inputs) if intent.inputs else {}
            return InDoubt(text, step=intent.name, inputs=inputs, key=told_by(intent)[0], seq=intent.seq)
    return InDoubt(text)


class Irreversible:
    """What a live run must not cut short, and must not go past.

    A doubt stops its run; the other steps of this kind that are in flight then are let finish, since each would become
    a doubt of its own. Meanwhile nothing begins but what these call.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._flying: list[Checkpoint] = []
        self.intended: list[Checkpoint] = []  # intents of attempts that have not begun; in a stopped run none will
        self._doubt: InDoubt | None = None
        self._waiting: list[Callable[[], None]] = []

    def began(self, row: Checkpoint) -> None:
        self._flying.append(row)

    def ended(self, row: Checkpoint) -> None:
        """It has its outcome, or must do without one. Of other calls nothing is known here."""
        if any(each is row for each in self._flying):
            self._flying = [each for each in self._flying if each is not row]
            for told in self._waiting:
                told()
            self._waiting.clear()

    def holds(self, frame: Frame) -> bool:
        """Whether nothing may begin here any more."""
        return self._doubt is not None and not (frame.step is not None and frame.step.in_once)

    async def stop(self, row: Checkpoint, doubt: InDoubt) -> NoReturn:
        """A call is in doubt: raises ``Stop`` once nothing irreversible is in flight but what the call is inside of."""
        run, around = self._run, set(enclosing(row.scope))
        self._doubt = self._doubt or doubt
        self.ended(row)
        run.call_ended(row)
        while any(scope_of(*place_of(each)) not in around for each in self._flying):
            try:
                await self._change()
            except asyncio.CancelledError:  # the program cannot cancel what is in doubt
                if run.is_leaving:
                    raise
            run.check()
        raise Stop(run.poison(self._doubt).error) from doubt.__cause__

    async def landed(self, scope: str) -> None:
        """Wait until those that are in flight inside the call with this scope have come to their end."""
        left = [row for row in self._flying if is_inside(row.scope, scope)]
        while self._run.stop is None and any(row is each for row in left for each in self._flying):
            await self._change()
        self._run.check()

    async def over(self, program: asyncio.Future[Any]) -> None:
        """The program has ended: wait until none is in flight, or the run must stop. It must not have left out what is
        in doubt, also if it failed: a run that failed is over for who waits for it."""
        run = self._run
        while (self._flying or self._doubt is not None) and run.stop is None:
            await self._change()
        if run.stop is not None:
            return
        error = None if program.cancelled() else program.exception()
        if error is None or isinstance(error, Exception):
            earlier = run.pool.doubts if run.pool is not None else []
            for intent in [*earlier, *run.records.intents][:1]:
                how = "" if error is None else f" with {type(error).__name__}: {error}"[:_PREVIEW_MAX]
                why = f"its outcome was never recorded, and the program ended{how} without asking for it"
                doubt = in_doubt(run.id, intent, why)
                doubt.__cause__ = error
                if error is not None:  # whoever goes on tries anew what failed, and may come to what is in doubt
                    run.ignored.update(Failure.of_run(error, cancelled=run.cancelled, ignored=set()).seqs)
                run.poison(doubt)

    async def _change(self) -> None:
        changed = asyncio.Event()
        self._waiting.append(changed.set)
        self._run.stops.append(changed.set)
        await changed.wait()
