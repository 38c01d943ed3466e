"""The explicit style: a durable mapping that code asks before each stage, and saves after it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from warnings import warn

from . import codec, delta, lease
from .admission import ID_FORM, is_id
from .blobs import hashes_in
from .claiming import Claimed, Claiming
from .definition import PYTHON
from .errors import (
    Busy,
    Cancelled,
    CodecError,
    Fenced,
    HoldfastError,
    Mismatch,
    NotRecorded,
    StoreError,
    VersionMismatch,
)
from .logs import RunLog
from .recall import blank_row
from .records import count, damage
from .state import Change, Reading, encode_change, replay
from .store import Checkpoint, Finish, Revision, RunRow, revised
from .upgrades import migrated, refuse_unfit_choice, refuse_unfit_schema
from .views import BodyView, Carried, StateMapping

if TYPE_CHECKING:
    from .app import Holdfast


class Session:
    """``async with hf.session(id) as session:`` one owner at a time; others wait until it is closed or its owner dies.

    Nothing is durable before ``await session.save()``.
    """

    def __init__(
        self,
        home: Holdfast,
        id: str,
        initial: dict[str, Any],
        *,
        schema_version: int | None = None,
        migrate: Callable[[dict[str, Any], int], dict[str, Any]] | None = None,
        on_change: str | None = None,
    ) -> None:
        if not isinstance(id, str) or not is_id(id):
            raise TypeError(f"a session's id must be {ID_FORM}, got {id!r:.200}")
        _refuse_unfit(schema_version, migrate, on_change)
        self._schema_version = schema_version or 0
        self._migrate = migrate
        self._on_change = on_change or "refuse"
        self._home = home
        self.id = id
        self._log = RunLog(id, "session")
        self._initial = initial
        self._row: RunRow | None = None
        self._lost: HoldfastError | None = None
        self._saving = asyncio.Lock()
        self._view = BodyView({}, [])
        self._state = StateMapping(lambda: self._view)

    @property
    def state(self) -> MutableMapping[str, Any]:
        """A mapping of str to plain values, as it was saved last and changed since; a dict may be put in its place."""
        return self._state

    @state.setter
    def state(self, values: MutableMapping[str, Any]) -> None:
        values = dict(values)
        for key in list(self._state):
            del self._state[key]
        self._state.update(values)

    async def __aenter__(self) -> Session:
        if self._row is not None:
            raise HoldfastError(f"session {self.id!r} is open already")
        home = self._home
        with home._lock:
            if self.id in home._session_ids:
                raise Busy(
                    f"session {self.id!r} is open already in this process; share the one object, or close it first"
                )
            home._session_ids.add(self.id)
        try:
            self._journal = home._journal
            claimed = await self._claim()
            row, rows = claimed.row, claimed.rows
            try:
                saved = self._restored(claimed)
                self._view = BodyView(saved.state, [], saved.weights)
                self._bring_along(row)
            except BaseException:
                await self._hand_back(row)
                raise
        except BaseException:
            home._session_ids.discard(self.id)
            raise
        self._row_schema_version = row.schema_version
        self._seq = rows[-1].seq if rows else 0
        self._began = claimed.began
        self._row = row
        self._lost = None
        home._sessions[row.no] = self
        return self

    def _restored(self, claimed: Claimed) -> Reading:
        if claimed.damage is not None:
            raise CodecError(damage(f"session {self.id!r}, {claimed.damage.what}", "open a session"))
        return replay(claimed.row, claimed.rows)

    def _bring_along(self, row: RunRow) -> None:
        """Bring what was saved to the shape that this program expects; the first save will say so."""
        if row.schema_version == self._schema_version:
            return
        was = f"session {self.id!r} was saved with schema version {row.schema_version}"
        if self._migrate is not None:
            saved: dict[str, Any] = delta.copy(self._view.current)
            self.state = migrated(saved, row.schema_version, self._migrate, f"session {self.id!r}")
            self._log.warning("saved with schema version %d, brought to %d", row.schema_version, self._schema_version)
            return
        if self._on_change == "restart":
            self._log.warning(
                "saved with schema version %d, begun anew as %d", row.schema_version, self._schema_version
            )
            self.state = delta.copy(self._initial)
            return
        raise VersionMismatch(
            f"{was}, and this program says {self._schema_version or 'none'}. Say with migrate= how the one becomes the "
            "other, begin anew from the initial state (on_change='restart'; what was saved stays in its history), or "
            "open a session under a new id. Nothing was changed."
        )

    async def _claim(self) -> Claimed:
        initial = self._initial
        new = RunRow(
            id=self.id,
            workflow="",
            version="",
            python=PYTHON,
            module="",
            file="",
            inputs=b"",
            fingerprint=b"",
            state=codec.encode(initial, codec.Types.none, "the initial state", root="state") if initial else None,
            seed=os.urandom(16),
            owner=self._home.owner,
            lease_until_ms=self._home._lease.ttl_ms,
            schema_version=self._schema_version,
        )
        claimed = await Claiming(self._home, self._journal, new, self._admit, wait=True).claimed()
        before = claimed.before
        if before is None:
            self._log.info("started")
        elif before.owner is not None and before.owner != self._home.owner:
            self._log.warning("taken over from %s", lease.process_of(before.owner))
        else:
            self._log.info("resumed with %s", count(len(claimed.rows), "checkpoint"))
        return claimed

    def _admit(self, row: RunRow, waited: bool) -> None:
        if row.workflow:
            raise Mismatch(f"{self.id!r} is a run of workflow {row.workflow!r}, not a session; choose another id")
        if row.status == "cancelled":
            raise Cancelled(f"session {self.id!r} was cancelled; open one under a new id")

    async def save(self) -> None:
        """Commit what changed since the last save, as one checkpoint. Raises ``Fenced`` if the session was taken over,
        ``CodecError`` naming the place of a value that cannot be stored, ``StoreError``."""
        async with self._saving:
            row = self._open_row()
            chunk = self._view.carry(self._seq)
            is_other = self._row_schema_version != self._schema_version
            if chunk.body is None and not is_other:
                return
            checkpoint = blank_row(row.no, row.epoch, kind="save")
            checkpoint.version = str(self._schema_version or "")
            checkpoint.delta = self._encoded(chunk)
            # From here on the row is under way, also if whoever waits for it is cancelled.
            self._view.carried(chunk)
            self._seq += 1
            checkpoint.seq = self._seq
            checkpoint.blobs = hashes_in(checkpoint.delta)
            checkpoint.checksum = checkpoint.compute_checksum()
            self._row_schema_version = self._schema_version
            try:
                await self._committed(self._revision(row, checkpoint) if is_other else checkpoint)
            except Fenced:
                self._lost = Fenced(f"session {self.id!r} was taken over by another owner; this save was refused")
                self._log.error("fenced")
                raise self._lost from None
            except (StoreError, CodecError) as error:
                self._lost = error
                raise

    def _encoded(self, chunk: Carried) -> bytes | None:
        change = Change(body=chunk.body, full=chunk.full, after=self._seq)
        return encode_change(change, f"session {self.id!r}")

    def _revision(self, row: RunRow, begins: Checkpoint) -> Revision:
        """That the session is of this program's schema version from ``begins`` on."""
        revision = Revision(
            begins=begins,
            version=row.version,
            python=row.python,
            module=row.module,
            file=row.file,
            schema_version=self._schema_version,
            state=row.state,
            checksum=0,
        )
        revision.checksum = revised(row, revision).compute_checksum()
        return revision

    def _open_row(self) -> RunRow:
        if self._row is None:
            raise HoldfastError(f"session {self.id!r} is not open; use: async with hf.session({self.id!r}) as session")
        if self._lost is not None:
            raise self._lost
        return self._row

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        row, self._row = self._row, None
        if row is None:
            return
        try:
            if self._lost is None or isinstance(self._lost, CodecError):  # a save that was refused leaves it ours
                if self._lost is None and kind is None and self._is_unsaved():
                    warn(
                        f"session {self.id!r} was closed with changes that were not saved; await session.save() first",
                        NotRecorded,
                        stacklevel=2,
                    )
                await self._hand_back(row)
            elif isinstance(self._lost, StoreError):
                self._home._unreturned.add(_end_of(row))
        finally:
            self._home._sessions.pop(row.no, None)
            self._home._session_ids.discard(self.id)

    def _is_unsaved(self) -> bool:
        try:
            return self._view.carry(self._seq).body is not None
        except CodecError:
            return True

    async def _hand_back(self, row: RunRow) -> None:
        try:
            await self._committed(_end_of(row))
        except HoldfastError as lost:
            self._log.warning("its lease could not be handed back: %s", lost)
            self._home._unreturned.add(_end_of(row))

    async def unload(self) -> None:
        """The ``Holdfast`` is being closed: hand the session back; it saves nothing more."""
        row = self._row
        if row is not None and self._lost is None:
            self._lost = HoldfastError(f"session {self.id!r}: its Holdfast was closed; open the session again")
            await self._hand_back(row)

    def renewed(self, held: set[int] | None, began: float, deadline: float) -> None:
        """Told by the heartbeat, on the journal's thread."""
        row = self._row
        if row is not None and held is not None and row.no not in held and self._began < began:
            self._lost = Fenced(f"session {self.id!r} was taken over by another owner")

    async def _committed(self, row: Checkpoint | Revision | Finish) -> Any:
        self._home._check_open()
        return await self._journal.committed(row, asyncio.get_running_loop())


def _refuse_unfit(schema_version: object, migrate: object, on_change: object) -> None:
    """Raises ``TypeError`` or ``ValueError`` for options of a session that make no sense."""
    where = "hf.session: "
    refuse_unfit_schema(schema_version, migrate, where)
    if on_change is None:
        return
    refuse_unfit_choice(on_change, ("restart", "refuse"), where)
    if schema_version is None:
        raise ValueError(f"{where}on_change= says what becomes of a state of another schema_version=, which is missing")
    if migrate is not None:
        raise ValueError(f"{where}migrate= and on_change= both say what becomes of an older state; give one of them")


def _end_of(row: RunRow) -> Finish:
    return Finish(run_no=row.no, epoch=row.epoch, status="waiting")
