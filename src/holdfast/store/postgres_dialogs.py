"""Events on PostgreSQL: one statement that commits itself, with the locks in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.store.dialogs import Extension, SharedKey
from holdfast.store.postgres_link import Transaction
from holdfast.store.postgres_rows import Array

PART_MAX_BYTES = 64 * 1024 * 1024


def extend(t: Transaction, given: Sequence[Extension]) -> set[int]:
    """The numbers of the dialogs whose events stand. Written dialog by dialog or not at all, so that what is sent again
    after a lost connection does no harm."""
    written: set[int] = set()
    for part in _in_parts(given):
        written.update(no for (no,) in (_extend_one(t, part[0]) if len(part) == 1 else _extend(t, part)))
    for each in given:
        if each.dialog.no not in written:
            found = t.ask("event_standing", {"no": each.dialog.no, "seq": each.event.seq})
            if found == [(each.dialog.no, each.event.checksum)]:
                written.add(each.dialog.no)
    return written


def _extend_one(t: Transaction, given: Extension) -> list[tuple[int]]:
    dialog, event = given.dialog, given.event
    row = {"no": dialog.no, "seq": event.seq, "at": event.at, "turns": dialog.turns, "dialog_checksum": dialog.checksum}
    row |= {"turn": event.turn, "data": event.data, "checksum": event.checksum}
    if not given.shared:
        return t.ask("extend_one", row)
    return t.ask("extend_one_with", row | _columns(sorted(given.shared, key=lambda key: (key.owner, key.key))))


def _columns(keys: Sequence[SharedKey]) -> dict[str, Array]:
    return {
        "owners": Array("text", [key.owner for key in keys]),
        "keys": Array("text", [key.key for key in keys]),
        "values": Array("bytea", [key.value for key in keys]),
        "key_checksums": Array("int8", [key.checksum for key in keys]),
    }


def _extend(t: Transaction, given: Sequence[Extension]) -> list[tuple[int]]:
    keys = [(each.dialog.no, key) for each in given for key in each.shared]
    return t.ask(
        "extend",
        {
            "nos": Array("int8", [e.dialog.no for e in given]),
            "seqs": Array("int8", [e.dialog.seq for e in given]),
            "ats": Array("float8", [e.dialog.at for e in given]),
            "turns": Array("bytea", [e.dialog.turns for e in given]),
            "dialog_checksums": Array("int8", [e.dialog.checksum for e in given]),
            "turn": Array("text", [e.event.turn for e in given]),
            "data": Array("bytea", [e.event.data for e in given]),
            "checksums": Array("int8", [e.event.checksum for e in given]),
            "of": Array("int8", [no for no, _ in keys]),
            **_columns([key for _, key in keys]),
        },
    )


def _in_parts(given: Sequence[Extension]) -> Iterator[Sequence[Extension]]:
    """Small enough for a statement each."""
    start, size_bytes = 0, 0
    for place, each in enumerate(given):
        own = len(each.event.data) + sum(len(key.value) for key in each.shared)
        if place > start and size_bytes + own > PART_MAX_BYTES:
            yield given[start:place]
            start, size_bytes = place, 0
        size_bytes += own
    yield given[start:]
