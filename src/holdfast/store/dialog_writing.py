"""Dialogs opened and deleted, for stores that speak SQL. Each function is given an open transaction."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import asdict, astuple

from holdfast.store.dialogs import Dialog, SharedKey, owner_of
from holdfast.store.owners import Transaction


def open_dialog(db: Transaction, new: Dialog, shared: Sequence[SharedKey]) -> int | None:
    found = db.ask("open_dialog", asdict(new))
    if not found:
        return None
    # In the one order in which keys are locked.
    db.bulk("put_shared", sorted(map(astuple, shared)))
    return int(found[0][0])


def delete_dialog(db: Transaction, app: str, user_id: str, id: str) -> bool:
    deleted = db.ask("delete_dialog", {"app": app, "user_id": user_id, "id": id})
    for (no,) in deleted:
        db.ask("delete_events", {"no": no})
        db.ask("delete_shared", {"owner": owner_of(app, user_id, id)})
    return bool(deleted)
