"""Which runs a worker may take, on SQLite, where one process writes at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import apsw

from holdfast.store.sqlite_rows import TEXTS, items, listing

_UNFINISHED = ("queued", "running", "waiting")


def due(
    db: apsw.Connection,
    now: int,
    *,
    owner: str,
    queue: str,
    workflows: Sequence[str],
    dead: Collection[str],
    limit: int,
    at_once: int | None,
) -> dict[int, str | None]:
    """The numbers of the runs that a worker may take, in its order, and how the owner of each was lost. ``workflows``
    as ``owners.accepted`` has them."""
    lost: dict[int, str | None] = {}
    living, found = 0, []
    for no, of, priority, status, workflow, *code, other, until in db.execute(TEXTS["owned"]):
        if of == queue:
            lapsed = "died" if other in dead else "lapsed" if until <= now and other != owner else None
            living += lapsed is None
            is_known = workflow in workflows or "\n".join((workflow, *map(str, code))) in workflows
            if lapsed is not None and status in _UNFINISHED and is_known:
                lost[no] = lapsed
                found.append((-priority, no))
    if at_once is not None:
        limit = min(limit, at_once - living)
    if limit <= 0:
        return {}
    given = {"queue": queue, "now_ms": now, "limit": limit, **items(workflows)}
    found += [(-priority, no) for no, priority in db.execute(listing("due", len(workflows)), given)]
    return {no: lost.get(no) for _, no in sorted(found)[:limit]}
