"""``hf.resolve``: a person says what became of a step that is in doubt, and the run goes on from there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from . import clock, codec, lease
from .admission import was_cancelled
from .apart import set_apart_of
from .blobs import hashes_in
from .doubt import open_intents, told_by
from .errors import Busy, Cancelled, CodecError, Fenced, HoldfastError, NotFound
from .expected import annotation_of, article, convert, describe, text_of
from .known import step_named
from .logs import RunLog
from .records import refuse_damaged, tell_damaged
from .repairs import Recorded, find_damaged, looked_into, note_of, recorded, way_on
from .state import decode_change
from .store import Checkpoint, Finish, RunRow
from .store.damage import legible

if TYPE_CHECKING:
    from .app import Holdfast


async def resolve(home: Holdfast, id: str, seq: int, result: Any, retry: bool) -> None:
    """``Holdfast.resolve``; ``result`` is ``codec.MISSING`` where none was given."""
    if isinstance(seq, bool) or not isinstance(seq, int) or seq < 1:
        raise TypeError(f"resolve() takes as seq the number of a checkpoint, from 1, got {seq!r}")
    if retry not in (True, False) or retry is (result is not codec.MISSING):
        raise TypeError(
            "resolve() takes one of result= (it took effect) and retry=True (it did not). Nothing was changed."
        )
    row = await home._read(home._store.get, id)
    if row is None:
        raise NotFound(f"{home.url}: there is no run {id!r} to resolve")
    refuse_damaged(row)
    _refuse_ended(row)
    await _refuse_owned(home, row)
    found = await home._read(_looked_at, home, row, seq)
    intent = find_resolvable(row, found, seq)
    if found.damage is not None and not retry and _changed_state(intent):
        raise CodecError(
            f"run {id!r}, checkpoint {seq} ({intent.name}): the step changed the state, which is damaged with it; a "
            "result alone would leave that out. Have it executed again (retry). Nothing was changed."
        )
    data = None if retry else encode_result(intent, result)
    claimed = await _claimed(home, row)
    try:
        found = await home._read(_looked_at, home, claimed, seq)
        intent = find_resolvable(row, found, seq)  # what its owner recorded last is known only now
        settled = await _settled(home, claimed, intent, found.rows[-1].seq + 1, data)
        await home._journal.committed(settled, asyncio.get_running_loop())
        if found.damage is not None:  # last, so that half of a repair is none
            await home._journal.committed(note_of(settled, seq), asyncio.get_running_loop())
    except Fenced:
        raise _busy(row) from None
    finally:
        # Workers may take it at once. The failures that are to be tried anew stay known.
        finish = Finish(run_no=row.no, epoch=claimed.epoch, status="running", error=claimed.error)
        with suppress(Fenced):  # somebody else has taken it by now, in this process maybe, and goes on with it
            await home._journal.committed(finish, asyncio.get_running_loop())
    how = "to be executed again" if retry else "done"
    RunLog(id).warning("checkpoint %d (%s) was resolved: %s", seq, intent.name, how)


def _looked_at(home: Holdfast, row: RunRow, seq: int) -> Recorded:
    return looked_into(recorded(home._store, row), seq, home._blobs)


def find_resolvable(run: RunRow, found: Recorded, seq: int) -> Checkpoint:
    """The damaged step or, where nothing is damaged, the doubt of this number. Raises ``CodecError`` if it is another
    row that is damaged, or none that can be replaced; else as ``find_doubt``."""
    if found.damage is None:
        return find_doubt(run, found.usable, seq)
    damaged = find_damaged(found.rows, found.damage)
    if damaged is None or damaged.seq != seq:
        tell_damaged(run.id, found.damage.what, way_on(run.id, found.damage))
    return replace(legible(damaged), inputs=None, attempts=1, tokens=None, usd=None)


def _changed_state(damaged: Checkpoint) -> bool:
    """Whether the step's own change would be lost with its row; what the body changed is made again by its code."""
    try:
        return bool(decode_change(damaged).step)
    except CodecError:
        return True


def find_doubt(run: RunRow, rows: list[Checkpoint], seq: int) -> Checkpoint:
    """The intent with this number that nothing closes. Raises ``NotFound`` or ``HoldfastError``."""
    open_ = open_intents(rows)
    found = next((row for row in open_ if row.seq == seq), None)
    if found is not None:
        return found
    doubts = ", ".join(f"{row.seq} ({row.name})" for row in open_)
    known = f"In doubt: {doubts}." if doubts else "Nothing of it is in doubt."
    row = next((row for row in rows if row.seq == seq), None)
    if row is None:
        raise NotFound(f"run {run.id!r} has no checkpoint {seq}. {known} Nothing was changed.")
    raise HoldfastError(f"run {run.id!r}, checkpoint {seq} ({row.name}) is not in doubt. {known} Nothing was changed.")


def result_annotation(intent: Checkpoint) -> Any:
    """The type of the step's result: as declared where the step is known to this process, else as far as its intent
    tells; ``codec.MISSING`` if nothing is known."""
    definition = step_named(intent.name)
    if definition is not None:
        return definition.result_annotation
    try:
        expects = told_by(intent)[1]
        told = None if expects is None else annotation_of(expects)
    except (CodecError, ValueError):
        told = None
    return codec.MISSING if told is None else told


def encode_result(intent: Checkpoint, value: Any) -> bytes:
    """What a recall will give for the step. Raises ``CodecError`` if it is none of the step's type."""
    definition, annotation = step_named(intent.name), result_annotation(intent)
    where = f"the result of step {intent.name!r}"
    if annotation not in (codec.MISSING, Any, object):
        try:
            value = convert(value, annotation)
        except (TypeError, ValueError) as error:
            wanted = article(text_of(describe(annotation)))
            raise CodecError(
                f"{where} is {wanted}, and {value!r:.200} is none: {error}. Nothing was changed."
            ) from None
    types = codec.Types.none if definition is None else definition.result_types
    data = codec.encode(value, types, where, root=intent.name)
    codec.decode(data, types, where, root=intent.name)
    return data


async def _settled(home: Holdfast, claimed: RunRow, intent: Checkpoint, seq: int, result: bytes | None) -> Checkpoint:
    """Its outcome, at its place; or that it has not happened."""
    status = "not_done" if result is None else "done"
    row = replace(
        intent,
        seq=seq,
        epoch=claimed.epoch,
        status=status,
        started_ms=clock.now_ms(),
        duration_ms=0.0,
        result=result,
        delta=None,
    )
    row.blobs = hashes_in(result)
    await set_apart_of(home, row)
    row.checksum = row.compute_checksum()
    return row


def _refuse_ended(row: RunRow) -> None:
    if not row.workflow:
        raise HoldfastError(f"{row.id!r} is a session, which has no steps. Nothing was changed.")
    if row.status == "cancelled":
        raise Cancelled(f"{was_cancelled(row.id)} Nothing was changed.")
    if row.status == "done":
        raise HoldfastError(f"run {row.id!r} is done: nothing of it is in doubt. Nothing was changed.")


async def _refuse_owned(home: Holdfast, row: RunRow) -> None:
    if row.owner is None or lease.is_dead(row.owner):
        return
    if row.owner == home.owner and row.id not in home._live:
        return
    if row.owner != home.owner and row.lease_until_ms <= await home._read(home._store.now_ms):
        return
    raise _busy(row)


def _busy(row: RunRow) -> Busy:
    who = "somebody else" if row.owner is None else lease.process_of(row.owner)
    return Busy(
        f"run {row.id!r} is being advanced by {who}, so what is in flight there may "
        "still come to its end. Resolve it when the run has stopped. Nothing was changed."
    )


async def _claimed(home: Holdfast, row: RunRow) -> RunRow:
    lost = None if row.owner in (None, home.owner) else "died" if lease.is_dead(row.owner or "") else "lapsed"
    take = partial(home._store.claim, row.no, row.epoch, owner=home.owner, ttl_ms=home._lease.ttl_ms, lost=lost)
    claimed = await home._read(take)
    if claimed is None:  # another was faster
        now = await home._read(home._store.get, row.id)
        raise _busy(now if now is not None else row)
    return claimed
