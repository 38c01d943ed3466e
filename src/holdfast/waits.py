"""What one live run waits for: its times, its signals, its children; told from outside, by callbacks on its loop.

It decides and performs no I/O. A wait that begins leaves a row of status "waiting", which says since when it waits and
until when by the store's clock, so that three days are three days however often the run is resumed meanwhile. Its
outcome is another row at the same place (docs/design/waiting.md).
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from . import clock, codec
from .delivery import Stop
from .errors import CodecError
from .expected import Expected
from .failure import Failure
from .mailbox import Mailbox
from .store import NEVER_MS, Checkpoint, RunRow, Signal

if TYPE_CHECKING:
    from .branches import Frame
    from .run import LiveRun

_LOOK_AGAIN_MS = 5000  # at a run that somebody else began, by a run that was let go of
_TOLD_AFTER_S = 0.3  # shorter waits are not worth a write
_TOLD_MAX = 20  # waits that are named to those who look from outside
_SLEPT = codec.encode(None, codec.Types.none, "a sleep")


class _Told(msgspec.Struct):
    since: int
    until: int | None
    ask: str | None
    expects: list[Any] | None


class Wait:
    """One call of ``sleep``, ``wait_for`` or, for a child, ``hf.run``, that has no outcome yet."""

    __slots__ = (
        "begins",
        "child",
        "error",
        "expected",
        "frame",
        "future",
        "is_fresh",
        "is_own",
        "row",
        "signal",
        "stopped",
        "timer",
        "told",
    )

    def __init__(self, frame: Frame, row: Checkpoint, expected: Expected | None, told: dict[str, Any]) -> None:
        self.frame = frame
        self.row = row  # its outcome, being filled in
        self.expected = expected
        self.told = told  # since, until (by the store's clock), ask, expects
        self.future: asyncio.Future[None] = frame.run.loop.create_future()
        self.is_fresh = True  # begun by this process
        self.begins = row  # the row that says that it waits
        self.timer: clock.Timer | None = None
        self.signal: Signal | None = None  # the one it is to take
        self.child: Any = None  # the call that is to be a run of its own
        self.is_own = True  # such a run's end wakes only the run that began it
        self.error: BaseException | None = None  # how it failed, where it was this process that ran it
        self.stopped: Callable[[], None] | None = None  # ends what was begun for it

    @property
    def until_ms(self) -> int | None:
        until: int | None = self.told["until"]
        return until

    def settle(self, status: str, result: bytes | None) -> None:
        """Its outcome is known; the task that waits records it."""
        if not self.future.done():
            self.frame.run.delivery.stir()
            self.row.status, self.row.result = status, result
            self.future.set_result(None)

    def fail(self, error: BaseException) -> None:
        """It comes to no outcome: what was asked for is a mistake, or the run must stop."""
        if not self.future.done():
            self.frame.run.delivery.stir()
            self.future.set_exception(error)


class _Line:
    """Waits in the order of ``key``, which is of each alone, and stays as it is."""

    def __init__(self, key: Callable[[Wait], Any]) -> None:
        self._key = key
        self._waits: list[Wait] = []

    def __iter__(self) -> Iterator[Wait]:
        return iter(self._waits)

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, wait: Wait) -> None:
        insort(self._waits, wait, key=self._key)

    def discard(self, wait: Wait) -> None:
        at = bisect_left(self._waits, self._key(wait), key=self._key)
        if at < len(self._waits) and self._waits[at] is wait:
            del self._waits[at]


class Waits:
    """``attend`` begins to look after a wait from outside; ``look`` asks what outside holds, ``looked`` is told."""

    def __init__(self, run: LiveRun, row: RunRow, rows: list[Checkpoint]) -> None:
        self._run = run
        self._offset_ms = row.updated_ms - clock.monotonic() * 1000
        self.live: dict[Wait, None] = {}
        self.unlooked: dict[Wait, None] = {}  # those that outside was not looked at for since they began
        self._sleeps = _Line(lambda wait: (wait.until_ms, wait.begins.seq))
        self._lines: dict[str, _Line] = {}  # who waits for the signals of a name: who began first is served first
        self._overdue: dict[Wait, None] = {}  # their signal may be there, and was in time
        self.wakes = row.wakes  # how often the run was woken when outside was looked at last
        self.mailbox = Mailbox(rows)
        self.attend: Callable[[Wait], None] = lambda _: None
        self.look: Callable[[], None] = lambda: None
        self._rested: tuple[bytes, float] | None = None  # what it waits for, and since when (monotonic)
        self._heard: bytes | None = None

    def now_ms(self) -> int:
        """The store's time, without asking it."""
        return int(self._offset_ms + clock.monotonic() * 1000)

    # -- one wait ------------------------------------------------------------------------------------------

    def begin(
        self,
        frame: Frame,
        row: Checkpoint,
        begun: Checkpoint | None,
        earlier: Checkpoint | None,
        *,
        seconds: float | None,
        ask: str | None,
        expected: Expected | None,
    ) -> Wait:
        """``begun``: the row with which an earlier process began it, ``earlier``: that of an earlier attempt."""
        if begun is not None:
            wait = Wait(frame, row, expected, self._told_in(begun))
            wait.is_fresh, wait.begins = False, begun
            return wait
        since = self.now_ms()
        until = None if seconds is None else since + math.ceil(seconds * 1000)
        expects = None if expected is None else expected.description
        if earlier is not None:  # it has waited since then, and lasts as long as it was begun for
            since, until = (codec.readable(earlier.result or b"")[name] for name in ("since", "until"))
        told = {"since": since, "until": until, "ask": ask, "expects": expects}
        wait = Wait(frame, row, expected, told)
        begins = replace(row, status="waiting", result=codec.encode(told, codec.Types.none, f"the wait {row.name!r}"))
        self._run.note(begins, kept=0 if earlier is None else earlier.seq)
        wait.begins = begins
        return wait

    def _told_in(self, begun: Checkpoint) -> dict[str, Any]:
        """What a row says of the wait that began with it. Raises ``Stop``."""
        told = codec.readable(begun.result or b"")
        try:
            return msgspec.structs.asdict(msgspec.convert(told, _Told))
        except msgspec.ValidationError as error:
            raise self._run.cannot_read(begun, CodecError(f"it does not tell of a wait: {error}")) from None

    async def over(self, wait: Wait) -> None:
        """Wait for it; its row then holds the outcome."""
        self._enter(wait)
        self._arm(wait)
        self.attend(wait)
        self._run.looks.ask()
        try:
            await wait.future
        except asyncio.CancelledError:
            self._run.delivery.stir()
            if wait.signal is not None:  # it came, and the program has not heard of it
                self.mailbox.give_back(wait.signal)
            raise
        finally:
            self._leave(wait)
            if wait.timer is not None:
                wait.timer.cancel()
            if wait.stopped is not None:
                wait.stopped()
            if wait.signal is not None:
                self._hand_out(wait.row.name)

    def _enter(self, wait: Wait) -> None:
        self.live[wait] = None
        if wait.row.kind == "sleep":
            self._sleeps.add(wait)
        else:
            self.unlooked[wait] = None
        if wait.row.kind == "signal":
            line = self._lines.get(wait.row.name)
            if line is None:
                line = self._lines[wait.row.name] = _Line(lambda each: each.begins.seq)
            line.add(wait)

    def _leave(self, wait: Wait) -> None:
        del self.live[wait]
        self.unlooked.pop(wait, None)
        self._overdue.pop(wait, None)
        if wait.row.kind == "sleep":
            self._sleeps.discard(wait)
        elif (line := self._lines.get(wait.row.name)) is not None and wait.row.kind == "signal":
            line.discard(wait)
            if not line:
                del self._lines[wait.row.name]

    def _arm(self, wait: Wait) -> None:
        if wait.until_ms is not None:
            left_s = (wait.until_ms - self.now_ms()) / 1000
            wait.timer = clock.call_later(self._run.loop, left_s, lambda: self._due(wait))

    def _due(self, wait: Wait) -> None:
        now = self.now_ms()
        if wait.future.done():
            return
        if wait.until_ms is not None and now < wait.until_ms:  # the loop's timers are a little early
            self._arm(wait)
        elif wait.row.kind == "signal":
            self._overdue[wait] = None
            self.look()
        else:  # several may be over, if nobody advanced the run meanwhile: in the order of their times
            for each in takewhile(lambda each: (each.until_ms or 0) <= now, self._sleeps):
                each.settle("done", _SLEPT)

    def stop(self, stop: Stop) -> None:
        for wait in list(self.live):
            wait.fail(Stop(stop.error))  # one of its own for each task that meets it

    def end(self) -> None:
        """The run has ended, and none of its tasks will ever hear what it waits for."""
        for wait in list(self.live):
            wait.future.cancel()

    # -- what outside told ---------------------------------------------------------------------------------

    def looked(self, looked_for: list[Wait], asked_ms: int, wakes: int, signals: Iterable[Signal]) -> None:
        """Outside was looked at, from ``asked_ms`` on (by ``now_ms``), and for the first time for those that are
        ``looked_for``: first the wakes, then the signals."""
        self.wakes = max(self.wakes, wakes)
        names = [wait.row.name for wait in looked_for if wait.row.kind == "signal"]
        for wait in looked_for:
            self.unlooked.pop(wait, None)
        new = self.mailbox.put(signals)
        self._tell_damaged()
        for name in dict.fromkeys([*names, *new]):
            self._hand_out(name)
        for wait in [each for each in self._overdue if (each.until_ms or 0) <= asked_ms]:
            wait.settle("failed", Failure("TimeoutError", _late(wait)).encode())
        self._run.looks.ask()

    def _tell_damaged(self) -> None:
        damaged, self.mailbox.damaged = self.mailbox.damaged, []
        for signal in damaged:
            what = "signal %r (number %d) was damaged since it was sent: its checksum does not match its content"
            self._run.log.error(f"{what}. It is kept, and given to nobody; send it again", signal.name, signal.n)

    def _hand_out(self, name: str) -> None:
        """The mail of one name to those who wait for it."""
        for wait in self._lines.get(name, ()) if self.mailbox.first(name) is not None else ():
            while not wait.future.done():
                signal = self.mailbox.first(name)
                if signal is None:
                    return
                if wait.until_ms is not None and signal.sent_ms > wait.until_ms:
                    break
                self.mailbox.take(signal)
                try:
                    result = _read(wait, signal)
                except CodecError as unfit:
                    self._set_aside(wait, signal, str(unfit))
                    continue
                wait.signal = signal
                wait.settle("done", result)

    def _set_aside(self, wait: Wait, signal: Signal, why: str) -> None:
        told = codec.encode({"signal": signal.n, "why": why}, codec.Types.none, "a refusal")
        self._run.note(replace(wait.row, status="refused", result=told))
        self._run.log.warning("%s. It is set aside (`holdfast show` lists it), and the run waits on", why)

    # -- for those who look from outside -------------------------------------------------------------------

    @property
    def due_ms(self) -> int:
        """When the first of them is over by itself, or has to be looked after: nobody tells of it."""
        times = [wait.until_ms for wait in self.live if wait.until_ms is not None]
        if not all(wait.is_own for wait in self.live):
            times.append(self.now_ms() + _LOOK_AGAIN_MS)
        return min(times, default=NEVER_MS)

    def described(self) -> bytes:
        first = heapq.nsmallest(_TOLD_MAX, self.live, key=lambda wait: (wait.row.kind != "signal", wait.begins.seq))
        waits = [{"kind": each.row.kind, "name": each.row.key or each.row.name, **each.told} for each in first]
        told = {"count": len(self.live), "waits": waits}
        return codec.seal(codec.encode(told, codec.Types.none, "what the run waits for"))

    def expected_as(self, name: str) -> Expected | None:
        """What the first who waits for a signal of this name wants. From any thread."""
        line = self._lines.get(name)
        wait = None if line is None else next(iter(line), None)
        return None if wait is None else wait.expected

    def rests(self, resting: bool) -> None:
        self._rested = (self.described(), time.monotonic()) if resting else None

    def told_anew(self) -> tuple[bytes | None] | None:
        """(what is waited for, None if the run goes on); None if that is what was told last. Asked by the heartbeat, on
        its thread."""
        rested = self._rested
        if rested is not None and time.monotonic() - rested[1] < _TOLD_AFTER_S:
            return None
        told = rested[0] if rested is not None else None
        if told == self._heard:
            return None
        self._heard = told
        return (told,)

    def was_not_told(self) -> None:
        self._heard = b""


def _read(wait: Wait, signal: Signal) -> bytes:
    """The result of a wait that takes this signal. Raises ``CodecError`` if it cannot."""
    where = f"signal {signal.name!r} (number {signal.n})"
    assert wait.expected is not None
    value = wait.expected.read(signal.value, where)
    return codec.encode({"signal": signal.n, "value": value}, wait.expected.types, where)


def _late(wait: Wait) -> str:
    seconds = ((wait.until_ms or 0) - wait.told["since"]) / 1000
    return f"no signal {wait.row.name!r} came within {seconds:g} s"
