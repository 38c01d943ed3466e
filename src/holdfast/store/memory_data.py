"""What memory stores hold, private or by name."""

from __future__ import annotations

import threading

from holdfast.store.dialogs import Dialog, DialogEvent, SharedKey
from holdfast.store.protocol import Checkpoint, Claim, News, RunRow, Signal


class Data:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.runs: dict[int, RunRow] = {}
        self.numbers: dict[str, int] = {}
        self.checkpoints: dict[int, dict[int, Checkpoint]] = {}
        self.claims: dict[int, list[Claim]] = {}
        self.news: dict[int, list[News]] = {}
        self.signals: dict[int, list[Signal]] = {}
        self.last_no = 0
        self.dialogs: dict[int, Dialog] = {}
        self.dialog_nos: dict[tuple[str, str, str], int] = {}  # by app, user and id
        self.events: dict[int, list[DialogEvent]] = {}
        self.shared: dict[str, dict[str, SharedKey]] = {}  # by owner and key
        self.last_dialog_no = 0
        self.blobs: dict[bytes, int] = {}  # by hash, how many bytes the content has
        self.blob_parts: dict[tuple[bytes, int], bytes] = {}
        self.stamp = 0  # moves with every change


_shared: dict[str, Data] = {}
_shared_lock = threading.Lock()


def data_of(name: str) -> Data:
    if not name:
        return Data()
    with _shared_lock:
        return _shared.setdefault(name, Data())
