"""One invocation of an ADK app: a run of holdfast that this process owns, and the rows it is made of."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from holdfast import clock, codec
from holdfast.admission import was_cancelled
from holdfast.beginning import Unloaded
from holdfast.claiming import Claimed, Claiming, record_of, tell_claimed
from holdfast.definition import PYTHON
from holdfast.delivery import Stop
from holdfast.errors import Busy, CodecError, Fenced, HoldfastError, InDoubt, StoreError
from holdfast.failure import Failure
from holdfast.logs import RunLog
from holdfast.recall import blank_row
from holdfast.store import NEVER_MS, Checkpoint, Finish, RunRow, as_text
from holdfast.versions import difference, is_other, refuse_other_version, revision_of

from .results import Results

if TYPE_CHECKING:
    from holdfast.app import Holdfast
    from holdfast.definition import Definition

QUEUE = "adk"  # the queue that all invocations are in
PREFIX = "adk:"  # of the ids of their runs, and of their workflows, which are named after the app
_PART_MAX = 80  # characters of an id that a run's id shows; a longer one is told by its fingerprint


class Names(NamedTuple):
    """Which invocation, of which session."""

    app_name: str
    user_id: str
    session_id: str
    invocation_id: str

    @property
    def run_id(self) -> str:
        return run_id(*self)

    def inputs(self) -> bytes:
        """As the run's row keeps them, since its id may show them cut short."""
        return codec.encode_inputs(self._asdict(), f"the names of {self.run_id!r}")


def names_of(row: RunRow) -> Names:
    """Raises ``CodecError`` if the row's inputs are no names."""
    told: Any = codec.decode(row.inputs, codec.Types.none, f"run {row.id!r}, its names")
    if not isinstance(told, dict) or told.keys() != set(Names._fields):
        raise CodecError(f"run {row.id!r}: its inputs do not say which invocation it is. They were left as they are.")
    return Names(**told)


def run_id(app_name: str, user_id: str, session_id: str, invocation_id: str) -> str:
    """The id of the run that stands for an invocation: ``adk:app/user/session/invocation``."""
    return PREFIX + "/".join(_shown(each) for each in (app_name, user_id, session_id, invocation_id))


def _shown(id: str) -> str:
    shown = quote(id, safe="@:+ ")
    return shown if len(shown) <= _PART_MAX else codec.fingerprint(id.encode()).hex()


class Invocation:
    """Owned from ``claim`` until ``hand_back``. Whatever must stop it travels as ``Stop``, which no ``except
    Exception`` of ADK or of a tool swallows; from then on nothing is recorded and nothing begins.

    ``claimed``: by a worker, for whom the store has chosen it."""

    def __init__(self, home: Holdfast, names: Names, code: Definition, claimed: Claimed | None = None) -> None:
        self.home = home
        self.names = names
        self.id = names.run_id
        self.code = code
        self.log = RunLog(self.id)
        self.stop: Stop | None = None
        self.recalled = self.executed = 0
        self.retry_after_ms = 0  # handed back unfinished, it is not to be taken by a worker sooner
        self.flying: set[object] = set()  # calls and nodes that are being executed
        self._claimed = claimed
        self._deadline = 0.0
        self._quiet: asyncio.Event | None = None  # it drains; set once nothing is flying and something waits to begin
        self._is_held = False

    # -- owning --------------------------------------------------------------------------------------------

    async def claim(self) -> None:
        """Make the run ours, or create it. Raises ``Busy`` if another owner advances it, ``Cancelled``,
        ``VersionMismatch``, ``CodecError`` if its record is damaged."""
        home = self.home
        with home._lock:
            if self.id in home._session_ids:
                raise Busy(f"run {self.id!r} is being advanced by this process already. Nothing was executed.")
            home._session_ids.add(self.id)
        try:
            self._journal = home._journal
            claimed = self._claimed
            if claimed is None:
                claimed = await Claiming(home, self._journal, self._new_row(), self._admit, wait=False).claimed()
            else:
                self._admit(claimed.row, False)
            self.row = claimed.row
            self._began = claimed.began
            self._deadline = claimed.began + home._lease.trusted_s
            self.rows, _, damage = record_of(claimed)
            self._seq = self.rows[-1].seq if self.rows else 0
            if self.is_done:
                home._session_ids.discard(self.id)
            else:
                await self._begin(claimed, damage)
            self.results = Results(self.rows)
        except BaseException:
            home._session_ids.discard(self.id)
            raise

    async def _begin(self, claimed: Claimed, damage: HoldfastError | None) -> None:
        self.home._sessions[self.row.no] = self
        try:
            if damage is not None:
                raise damage
            tell_claimed(self.log, claimed, self.code.name)
            if is_other(self.row, self.code):
                revision = revision_of(self.row, self.rows, self.code)
                await self._committed(revision)
                self.rows.append(revision.begins)
                self._seq = revision.begins.seq
                self.log.warning(
                    "recorded %s: %s, from the top", difference(self.row, self.code), revision.begins.status
                )
        except BaseException as error:
            self.home._sessions.pop(self.row.no, None)
            if self._claimed is None:  # else the worker decides what becomes of it
                await self._let_go(self.row.status if isinstance(error, HoldfastError) else "running")
            raise

    def _new_row(self) -> RunRow:
        return RunRow(
            id=self.id,
            workflow=self.code.name,
            version=self.code.version,
            python=PYTHON,
            module=as_text(self.code.function.__module__),
            file=as_text(self.code.code.co_filename),
            inputs=(inputs := self.names.inputs()),
            fingerprint=codec.fingerprint(inputs),
            state=None,
            seed=os.urandom(16),
            queue=QUEUE,
            owner=self.home.owner,
            lease_until_ms=self.home._lease.ttl_ms,
        )

    def _admit(self, row: RunRow, waited: bool) -> None:
        if row.status == "cancelled":
            raise was_cancelled(self.id)
        if row.status != "done":
            refuse_other_version(row, self.code)

    @property
    def is_done(self) -> bool:
        return self.row.status == "done"

    async def check(self) -> None:
        """Before anything begins: whether this process still owns the run. Raises ``Stop``."""
        if self.stop is not None:
            raise Stop(self.stop.error)
        if self._quiet is not None:
            await self._hold()
        if clock.monotonic() <= self._deadline:
            return
        await self._journal.renewed(asyncio.get_running_loop())
        if self.stop is None and clock.monotonic() > self._deadline:
            self.poison(StoreError(f"run {self.id!r}: its lease could not be renewed in time; resume it again"))
        if self.stop is not None:
            raise Stop(self.stop.error)

    async def drained(self) -> None:
        """From now on nothing begins; returns when what is being executed has come to its end, and the next thing
        waits to begin. Who asked ends the invocation then."""
        self._quiet = asyncio.Event()
        await self._quiet.wait()

    async def _hold(self) -> None:
        self._is_held = True
        self.landed(None)
        await asyncio.get_running_loop().create_future()  # until the task is cancelled

    def landed(self, what: object) -> None:
        """It is not being executed any more."""
        self.flying.discard(what)
        if self._quiet is not None and self._is_held and not self.flying:
            self._quiet.set()

    def renewed(self, held: set[int] | None, began: float, deadline: float) -> None:
        """Told by the heartbeat, on the journal's thread."""
        if held is not None and self.row.no in held:
            self._deadline = deadline
        elif held is not None and self._began < began:
            self.poison(self._fenced())

    def _fenced(self) -> Fenced:
        return Fenced(f"run {self.id!r} was taken over by another owner; what this process did since is not part of it")

    def poison(self, error: HoldfastError) -> Stop:
        if self.stop is None:
            self.stop = Stop(error)
            self.log.error("stopped: %s", str(error).partition("\n")[0])
        return self.stop

    async def unload(self) -> None:
        """The ``Holdfast`` is being closed."""
        if self.stop is None:
            self.poison(HoldfastError(f"run {self.id!r}: its Holdfast was closed; resume it with another one"))
            await self._let_go("running")

    async def hand_back(self, status: str, error: BaseException | None = None) -> None:
        """The end of this process's turn: ``done``, ``waiting`` for an answer, ``failed``, ``parked``, or ``running``
        where somebody is to go on with it: a worker, at once or after ``retry_after_ms``."""
        self.home._sessions.pop(self.row.no, None)
        self.home._session_ids.discard(self.id)
        if self.stop is not None:
            error = self.stop.error
            if not isinstance(error, (StoreError, InDoubt, Unloaded)):
                return
            status = "in_doubt" if isinstance(error, InDoubt) else "running"
        self.log.info("%s; calls: %d executed, %d recalled", status, self.executed, self.recalled)
        await self._let_go(status, error)

    async def _let_go(self, status: str, error: BaseException | None = None) -> None:
        self.home._sessions.pop(self.row.no, None)
        self.home._session_ids.discard(self.id)
        finish = Finish(run_no=self.row.no, epoch=self.row.epoch, status=status)
        if error is not None and status in ("failed", "in_doubt", "parked"):
            finish.error = Failure.of_run(error, cancelled=set(), ignored=set()).encode()
        try:
            if status == "waiting":  # for a person's answer, which no worker has
                finish.due_ms = NEVER_MS
            elif isinstance(error, StoreError) and self.retry_after_ms:
                finish.due_ms = await self.home._read(self.home._store.now_ms) + self.retry_after_ms
            await self._committed(finish)
        except HoldfastError as lost:
            self.log.warning("its lease could not be handed back: %s", lost)
            self.home._unreturned.add(finish)

    # -- recording -----------------------------------------------------------------------------------------

    def blank(self, kind: str, name: str) -> Checkpoint:
        """A row of this run that is to be filled in and recorded."""
        row = blank_row(self.row.no, self.row.epoch, kind=kind)
        row.name = name
        return row

    async def record(self, row: Checkpoint) -> None:
        """Commit a row; it is durable on return. Raises ``Stop`` if it was refused."""
        if self.stop is not None:
            raise Stop(self.stop.error)
        self._seq += 1
        row.seq = self._seq
        row.checksum = row.compute_checksum()
        try:
            await self._committed(row)
        except Fenced:
            raise self.poison(self._fenced()) from None
        except HoldfastError as lost:
            raise self.poison(lost) from None

    async def note(self, name: str, told: Any) -> None:
        """Record what is no call: how a turn begins, and what it was before."""
        row = self.blank("save", name)
        row.result = codec.encode(told, codec.Types.none, f"run {self.id!r}, its {name}")
        await self.record(row)
        self.rows.append(row)

    async def _committed(self, row: Any) -> Any:
        return await self._journal.committed(row, asyncio.get_running_loop())
