"""The way to a lease: create the run, or take it over from whoever let go of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from . import branches, clock, lease
from .errors import Busy, CodecError, HoldfastError, StoreError
from .failure import Failure
from .journal import Journal
from .logs import RunLog
from .records import count, damage, refuse_damaged, tell_damaged
from .repairs import recorded, recorded_live, way_on
from .state import initial_state
from .store import Checkpoint, Finish, RunRow
from .store.damage import Damage

if TYPE_CHECKING:
    from .app import Holdfast


POLL_S = 0.1  # how often a run owned by somebody else is looked at


@dataclass
class Claimed:
    """``row`` is ours from ``began`` on (monotonic seconds), unless it is done. ``before``: as it was found, None if
    new.
    """

    row: RunRow
    rows: list[Checkpoint]
    began: float
    before: RunRow | None = None
    dead: bool = False  # the owner before is dead, not just late
    damage: Damage | None = None  # of its record: then it must not go on


class Record(NamedTuple):
    """What a claimed run is gone on with from, or why that cannot be."""

    rows: list[Checkpoint]
    failure: Failure | None
    damage: CodecError | None


def tell_claimed(log: RunLog, claimed: Claimed, name: str) -> None:
    """A line for operators: the run is new, or gone on with, or whose it was. ``name``: of its workflow."""
    before, found = claimed.before, count(len(claimed.rows), "checkpoint")
    if before is None or before.status == "queued":
        log.info("started %s%s", name, f", a fork with {found}" if claimed.rows else "")
    elif before.owner is not None and before.owner != claimed.row.owner:
        why = "is dead" if claimed.dead else "let its lease lapse"
        log.warning("taken over from %s, which %s; %s", lease.process_of(before.owner), why, found)
    else:
        log.info("resumed with %s", found)


def record_of(claimed: Claimed) -> Record:
    row = claimed.row
    try:
        failure = Failure.decode(row.error, f"run {row.id!r}, its error") if row.error else None
        initial_state(row)
    except CodecError as unreadable:
        return Record([], None, unreadable)
    if claimed.damage is not None:
        what, instead = f"run {row.id!r}, {claimed.damage.what}", way_on(row.id, claimed.damage)
        return Record([], failure, CodecError(damage(what, instead)))
    return Record(claimed.rows, failure, None)


class Claiming:
    """``admit(row, waited)`` raises where the run that was found is none to go on with."""

    def __init__(
        self, home: Holdfast, journal: Journal, new: RunRow, admit: Callable[[RunRow, bool], None], *, wait: bool
    ) -> None:
        self._home = home
        self._journal = journal
        self._new = new
        self._admit = admit
        self._wait = wait
        self._given_up = False

    async def claimed(self) -> Claimed:
        """Create or take over. Who gives up meanwhile leaves no lease behind that the heartbeat would prolong."""
        loop = asyncio.get_running_loop()
        claiming = branches.unlabelled_task(loop, self._claim(), f"holdfast claim {self._new.id}")
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            self._given_up = True
            await asyncio.wait({claiming})
            if not claiming.cancelled() and claiming.exception() is None:
                await self._hand_back(claiming.result().row)
            raise

    async def _claim(self) -> Claimed:
        began = clock.monotonic()
        new = self._new
        created = await self._journal.committed(new, asyncio.get_running_loop())
        if created is not None and created.seed == new.seed and created.status != "cancelled":
            return Claimed(created, [], began)
        waited = False
        while True:
            before = await self._found()
            self._admit(before, waited)
            if before.status == "done":
                return Claimed(before, [], began, before)
            dead = before.owner is not None and lease.is_dead(before.owner)
            if dead or await self._is_free(before):
                began = clock.monotonic()
                row = await self._take(before, dead)
                if row is not None:
                    rows, found = await self._loaded(row)
                    return Claimed(row, rows, began, before, dead, found)
                await self._refuse_moved_back(before)
                continue
            if not self._wait:
                raise Busy(
                    f"run {before.id!r} is being advanced by {lease.process_of(before.owner or '')}. Leave out "
                    "wait=False to wait for its outcome (and to take it over should that process die)."
                )
            if not waited:
                waited = True
                # A warning, because a terminal that shows nothing else would seem to hang.
                owner = lease.process_of(before.owner or "")
                RunLog(before.id).warning("%s advances it now, waiting for it to end", owner)
            await clock.sleep(POLL_S)

    async def _found(self) -> RunRow:
        store = self._home._store
        row = await self._home._read(store.get, self._new.id)
        if self._given_up:
            raise asyncio.CancelledError
        if row is None:
            raise StoreError(
                f"{store.url}: {self._new.id!r} is gone while it was being claimed; run the same line again"
            )
        refuse_damaged(row)
        return row

    async def _is_free(self, row: RunRow) -> bool:
        if row.owner in (None, self._home.owner):
            return True
        # A lease that is longer than any was changed since; the fence keeps its owner out.
        return not 0 < row.lease_until_ms - await self._now_ms() <= lease.SECONDS_MAX * 1000

    async def _now_ms(self) -> int:
        return await self._home._read(self._home._store.now_ms)  # which may be asked over a connection

    async def _take(self, row: RunRow, dead: bool) -> RunRow | None:
        lost = None if row.owner in (None, self._home.owner) else "died" if dead else "lapsed"
        home = self._home
        take = partial(home._store.claim, row.no, row.epoch, owner=home.owner, ttl_ms=home._lease.ttl_ms, lost=lost)
        return await home._read(take)

    async def _refuse_moved_back(self, found: RunRow) -> None:
        """An epoch that was changed to an earlier one lets nobody claim the run, since its fence is broken."""
        claims = await self._home._read(self._home._store.claims, found.no)
        if any(claim.epoch > found.epoch for claim in claims):
            now = await self._found()
            if now.epoch == found.epoch:
                tell_damaged(now.id, f"it stands at epoch {now.epoch}, and was claimed under a later one")

    async def _loaded(self, row: RunRow) -> tuple[list[Checkpoint], Damage | None]:
        try:
            new = self._new
            is_same = (row.version, row.schema_version, row.python) == (new.version, new.schema_version, new.python)
            read = recorded_live if is_same else recorded
            found = await self._home._read(read, self._home._store, row)
            return found.usable, found.damage
        except BaseException:
            await self._hand_back(row)
            raise

    async def _hand_back(self, row: RunRow) -> None:
        if row.status == "done":
            return
        status = "running" if row.workflow else "waiting"
        try:
            finish = Finish(run_no=row.no, epoch=row.epoch, status=status, error=row.error)
            await self._journal.committed(finish, asyncio.get_running_loop())
        except HoldfastError:  # it lapses by itself
            pass
