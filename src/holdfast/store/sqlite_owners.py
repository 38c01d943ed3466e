"""Who owns a run, who may take it, and what wakes it: the transactions of the SQLite store that are no batch.

Each function is told the open transaction, and the time by the store's clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import apsw

from holdfast.store.protocol import RunRow, Signal, Taken
from holdfast.store.queries import QUERIES
from holdfast.store.sqlite_rows import bulk

_RUN_FIELDS = RunRow.__struct_fields__
_UNFINISHED = ("queued", "running", "waiting")


def run_row(row: Sequence[Any]) -> RunRow:
    return RunRow(**dict(zip(_RUN_FIELDS, row, strict=True)))


def listing(name: str, count: int) -> str:
    """The text of a statement with ``:list`` for so many parameters, named ``item0``, ``item1`` …"""
    return QUERIES[name].replace(":list", ", ".join(f":item{k}" for k in range(count)))


def items(values: Collection[Any]) -> dict[str, Any]:
    return {f"item{k}": value for k, value in enumerate(values)}


def run_of_no(db: apsw.Connection, no: int) -> RunRow:
    return run_row(db.execute(QUERIES["run_of_no"], {"no": no}).fetchall()[0])


def run_of_id(db: apsw.Connection, id: str) -> RunRow | None:
    found = db.execute(QUERIES["run_of_id"], {"id": id}).fetchall()
    return run_row(found[0]) if found else None


def claim(
    db: apsw.Connection, now: int, run_no: int, epoch: int, *, owner: str, ttl_ms: int, lost: str | None
) -> RunRow | None:
    given = {"no": run_no, "epoch": epoch, "owner": owner, "lost": lost, "now_ms": now}
    db.execute(QUERIES["record_takeover"], {**given, "ttl_ms": ttl_ms})
    found = db.execute(QUERIES["claim"], {**given, "until_ms": now + ttl_ms}).fetchall()
    return run_row(found[0]) if found else None


def due(
    db: apsw.Connection,
    now: int,
    *,
    queue: str,
    workflows: Collection[str],
    dead: Collection[str],
    limit: int,
    at_once: int | None,
) -> dict[int, str | None]:
    """The numbers of the runs that a worker may take, in its order, and how the owner of each was lost."""
    lost: dict[int, str | None] = {}
    living, found = 0, []
    for no, of, priority, status, workflow, owner, until in db.execute(QUERIES["owned"]):
        if of == queue:
            lapsed = "died" if owner in dead else "lapsed" if until <= now else None
            living += lapsed is None
            if lapsed is not None and status in _UNFINISHED and workflow in workflows:
                lost[no] = lapsed
                found.append((-priority, no))
    if at_once is not None:
        limit = min(limit, at_once - living)
    if limit <= 0:
        return {}
    given = {"queue": queue, "now_ms": now, "limit": limit, **items(workflows)}
    found += [(-priority, no) for no, priority in db.execute(listing("due", len(workflows)), given)]
    return {no: lost.get(no) for _, no in sorted(found)[:limit]}


def claim_all(
    db: apsw.Connection, now: int, found: Mapping[int, str | None], *, owner: str, ttl_ms: int
) -> list[Taken]:
    taken = []
    for no, lost in found.items():
        before = run_of_no(db, no)
        row = claim(db, now, no, before.epoch, owner=owner, ttl_ms=ttl_ms, lost=lost)
        if row is not None:
            taken.append(Taken(row, before, lost))
    return taken


def renew(
    db: apsw.Connection,
    now: int,
    owner: str,
    *,
    ttl_ms: int,
    doing: Mapping[int, bytes],
    waiting: Mapping[int, bytes | None],
) -> set[int]:
    bulk(db, "note_doing", [(no, owner, what) for no, what in doing.items()])
    bulk(db, "note_waiting", [(no, owner, what) for no, what in waiting.items()])
    found: list[Any] = db.execute(QUERIES["renew"], {"owner": owner, "until_ms": now + ttl_ms}).fetchall()
    return {no for (no,) in found}


def wake(db: apsw.Connection, no: int) -> int | None:
    """How often it has been woken now; None if it has ended."""
    found: list[Any] = db.execute(QUERIES["wake"], {"no": no}).fetchall()
    return found[0][0] if found else None


def cancel(db: apsw.Connection, now: int, id: str) -> RunRow | None:
    ended: list[Any] = db.execute(QUERIES["cancel"], {"id": id, "now_ms": now}).fetchall()
    for no, parent_no in ended:
        db.execute(QUERIES["cancel_children"], {"no": no, "now_ms": now})
        if parent_no is not None:
            wake(db, parent_no)
    return run_of_id(db, id)


def send(db: apsw.Connection, now: int, id: str, name: str, value: bytes, key: str | None) -> RunRow | None:
    run = run_of_id(db, id)
    if run is None:
        return None
    if key is not None and db.execute(QUERIES["signal_of_key"], {"run_no": run.no, "key": key}).fetchall():
        return run
    n = wake(db, run.no)
    if n is None:
        return run
    signal = Signal(run_no=run.no, n=n, name=name, key=key, value=value, sent_ms=now)
    given = {field: getattr(signal, field) for field in Signal.__struct_fields__}
    db.execute(QUERIES["send"], {**given, "checksum": signal.compute_checksum()})
    return run_of_id(db, id)
