"""The reference for dialogs: what they mean in every store, said with dicts."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

from holdfast.errors import CodecError
from holdfast.store.dialogs import Dialog, DialogEvent, Extension, SharedKey, Snapshot, Verdict, owner_of
from holdfast.store.memory_data import Data


class MemoryDialogs(ABC):
    _data: Data

    @abstractmethod
    def _touch(self) -> None: ...

    def open_dialog(self, new: Dialog, shared: Sequence[SharedKey]) -> int | None:
        with self._data.lock:
            names = (new.app, new.user_id, new.id)
            if names in self._data.dialog_nos:
                return None
            self._touch()
            self._data.last_dialog_no += 1
            dialog = copy.copy(new)
            dialog.no = self._data.last_dialog_no
            self._data.dialog_nos[names] = dialog.no
            self._data.dialogs[dialog.no] = dialog
            self._data.events[dialog.no] = []
            self._put(shared)
            return dialog.no

    def extend(self, given: Sequence[Extension]) -> list[Verdict]:
        with self._data.lock:
            self._touch()
            return [self._extend(each) for each in given]

    def _extend(self, given: Extension) -> Verdict:
        numbers = (given.event.checksum, given.dialog.checksum, *(key.checksum for key in given.shared))
        if not all(-(2**63) <= number < 2**63 for number in numbers):
            return CodecError(f"a checksum of {max(numbers)} is more than any store can hold.")
        dialog, event = self._data.dialogs.get(given.dialog.no), given.event
        if dialog is None:
            return False
        events = self._data.events[dialog.no]
        if dialog.seq != event.seq - 1:
            return event.seq <= len(events) and events[event.seq - 1].checksum == event.checksum
        self._data.dialogs[dialog.no] = copy.copy(given.dialog)
        events.append(copy.copy(event))
        self._put(given.shared)
        return True

    def _put(self, shared: Sequence[SharedKey]) -> None:
        for each in shared:
            self._data.shared.setdefault(each.owner, {})[each.key] = copy.copy(each)

    def dialog(self, app: str, user_id: str, id: str) -> Snapshot | None:
        with self._data.lock:
            no = self._data.dialog_nos.get((app, user_id, id))
            if no is None:
                return None
            dialog = copy.copy(self._data.dialogs[no])
            return Snapshot(dialog, self.shared([owner_of(app), owner_of(app, user_id), dialog.owner]))

    def dialogs(self, app: str, user_id: str | None, *, after: tuple[str, str] = ("", ""), limit: int) -> list[Dialog]:
        with self._data.lock:
            found = [
                copy.copy(self._data.dialogs[no])
                for names, no in sorted(self._data.dialog_nos.items())
                if names[0] == app and (names[1:] > after if user_id is None else names[1:] > (user_id, after[1]))
                and (user_id is None or names[1] == user_id)
            ]  # fmt: skip
            return found[:limit]

    def shared(self, owners: Sequence[str]) -> list[SharedKey]:
        with self._data.lock:
            kept = self._data.shared
            return [copy.copy(each) for owner in sorted(set(owners)) for _, each in sorted(kept.get(owner, {}).items())]

    def dialog_events(self, no: int, *, after: int = 0, until: int, turn: str | None = None) -> list[DialogEvent]:
        with self._data.lock:
            events = self._data.events.get(no, [])[after:until]
            return [copy.copy(each) for each in events if turn is None or each.turn == turn]

    def last_before(self, no: int, at: float, *, until: int) -> int:
        with self._data.lock:
            events = self._data.events.get(no, [])[:until]
            return next((each.seq for each in reversed(events) if each.at < at), 0)

    def delete_dialog(self, app: str, user_id: str, id: str) -> bool:
        with self._data.lock:
            no = self._data.dialog_nos.pop((app, user_id, id), None)
            if no is None:
                return False
            self._touch()
            self._data.shared.pop(self._data.dialogs.pop(no).owner, None)
            del self._data.events[no]
            return True
