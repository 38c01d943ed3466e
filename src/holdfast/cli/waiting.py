"""What a run waits for, or is in doubt of, in words: in its timeline, while it is watched, for those who are asked."""

from __future__ import annotations

from typing import Any

from holdfast import codec
from holdfast.cli.printing import ago, escaped, local, short
from holdfast.expected import text_of
from holdfast.recall import OPEN
from holdfast.records import Waiting, ms_of
from holdfast.store import Checkpoint

ASK_MAX = 200


def said_of(row: Checkpoint, limit: int) -> str | None:
    """What a row tells that is no outcome, or that of a wait; None of others."""
    if row.status not in OPEN and row.kind != "signal":
        return None
    held: Any = codec.readable(row.result) if row.result is not None else None
    return said_of_wait(row.kind, row.name, row.key, row.status, held, limit)


def said_of_wait(kind: str, name: str, key: str | None, status: str, held: Any, limit: int) -> str | None:
    if status == "repair":
        return f"checkpoint {held.get('repairs')}, which was damaged, counts no longer"
    if status == "not_done":
        return "it certainly has not happened"
    if not isinstance(held, dict):
        return None
    if status == "intent":
        return short(f"it began, and no outcome is recorded; idempotency key {held.get('key')}", limit)
    if status == "refused":
        return short(f"set aside: {held.get('why')}", limit)
    if status == "waiting":
        try:
            return short(_waits(kind, name, key, held), limit)
        except (TypeError, LookupError, ValueError, OverflowError, OSError):
            return "waiting; the rest cannot be read"
    if kind == "signal" and status == "done" and "value" in held:
        return short(held["value"], limit)
    return None


def _waits(kind: str, name: str, key: str | None, held: dict[str, Any]) -> str:
    if kind == "sleep":
        return f"sleeping until {local(held['until'])}"
    if kind == "run":
        return f"waiting for run {key}, since {local(held['since'])}"
    until = f", until {local(held['until'])}" if held["until"] is not None else ""
    ask = f": «{held['ask']}»" if held["ask"] else ""
    return f"waiting for {name} ({text_of(held['expects'])}), since {local(held['since'])}{until}{ask}"


def in_words(wait: Waiting, now_ms: int) -> str:
    """``approval (bool), since 3 min ago, until …: «pay A-17?»``, escaped for a terminal."""
    since = ago(ms_of(wait.since), now_ms)
    until = f", until {local(ms_of(wait.until))}" if wait.until is not None and wait.kind != "sleep" else ""
    ask = f": «{wait.ask[:ASK_MAX]}»" if wait.ask else ""
    what = f"sleep until {local(ms_of(wait.until))}" if wait.kind == "sleep" and wait.until is not None else str(wait)
    expects = f" ({text_of(wait.expects)})" if wait.expects is not None else ""
    return escaped(f"{what}{expects}, since {since}{until}{ask}")


def plain(wait: Waiting) -> dict[str, Any]:
    """The same for machines."""
    return {
        "kind": wait.kind,
        "name": wait.name,
        "ask": wait.ask,
        "type": text_of(wait.expects) if wait.expects is not None else None,
        "since": wait.since.isoformat(timespec="milliseconds"),
        "until": wait.until.isoformat(timespec="milliseconds") if wait.until is not None else None,
    }
