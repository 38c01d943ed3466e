"""Where checkpoints live. ``open_store`` chooses by URL; each implementation is imported only when used."""

from __future__ import annotations

import os
from collections.abc import Callable

from holdfast.store.dialogs import Dialog, DialogEvent, Extension, SharedKey, Snapshot, Verdict, owner_of
from holdfast.store.postgres_url import psycopg_needed
from holdfast.store.protocol import (
    AFTER_ALL,
    BEFORE_ALL,
    FINISHED,
    NEVER_MS,
    Batch,
    Checkpoint,
    Claim,
    Code,
    Committed,
    Finish,
    News,
    Revision,
    RunRow,
    Signal,
    Spent,
    Store,
    Taken,
    as_text,
    is_text,
    revised,
)
from holdfast.store.urls import parse_url

__all__ = [
    "AFTER_ALL",
    "BEFORE_ALL",
    "FINISHED",
    "NEVER_MS",
    "Batch",
    "Checkpoint",
    "Claim",
    "Code",
    "Committed",
    "Dialog",
    "DialogEvent",
    "Extension",
    "Finish",
    "News",
    "Revision",
    "RunRow",
    "SharedKey",
    "Signal",
    "Snapshot",
    "Spent",
    "Store",
    "Taken",
    "Verdict",
    "as_text",
    "is_text",
    "open_store",
    "owner_of",
    "revised",
]


def open_store(url: str | os.PathLike[str], *, clock: Callable[[], int] | None = None) -> Store:
    """The store a URL (or a bare path) names; nothing is opened before its first use.

    ``clock`` replaces the store's own clock: milliseconds since the Unix epoch.
    """
    target = parse_url(url)
    if target.kind == "memory":
        from holdfast.store.memory import MemoryStore

        return MemoryStore(target.place, clock=clock)
    if target.address is not None:
        with psycopg_needed(target.url):
            from holdfast.store.postgres import PostgresStore
        return PostgresStore(target.address, clock=clock)
    from holdfast.store.sqlite import SQLiteStore

    return SQLiteStore(target.place, url=target.url, clock=clock)
