"""Events on SQLite: three statements in one transaction, for however many dialogs."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
from msgspec.structs import astuple

from holdfast.store.dialogs import Extension
from holdfast.store.sqlite_rows import TEXTS, bulk


def extend(db: apsw.Connection, given: Sequence[Extension]) -> set[int]:
    """The numbers of the dialogs whose events stand."""
    rows = [(e.dialog.no, e.dialog.seq, e.dialog.at, e.dialog.turns, e.dialog.checksum) for e in given]
    written = {no for (no,) in bulk(db, "extend_dialog", rows)[1]}
    moved = [each for each in given if each.dialog.no in written]
    bulk(db, "append_event", [astuple(each.event) for each in moved])
    bulk(db, "put_shared", [astuple(key) for each in moved for key in each.shared])
    for each in given:
        if each.dialog.no not in written:
            event = each.event
            found = db.execute(TEXTS["event_standing"], {"no": event.dialog_no, "seq": event.seq}).fetchall()
            if found == [(event.dialog_no, event.checksum)]:
                written.add(each.dialog.no)
    return written
