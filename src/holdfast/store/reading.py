"""The reads of a store that speaks SQL, from the rows that its statements return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any, Protocol

from holdfast.store.dialogs import Dialog, DialogEvent, SharedKey, Snapshot, owner_of
from holdfast.store.owners import run_row
from holdfast.store.protocol import AFTER_ALL, BEFORE_ALL, Checkpoint, Claim, News, RunRow, Signal, Spent, is_text


class Rows(Protocol):
    """What a statement returns: a cursor of any driver."""

    def __iter__(self) -> Iterator[Any]: ...
    def fetchall(self) -> list[Any]: ...


def all_rows(rows: Rows) -> list[Any]:
    return rows.fetchall()


def signal_rows(rows: Iterable[Sequence[Any]]) -> list[Signal]:
    return [Signal(**dict(zip(Signal.__struct_fields__, row, strict=True))) for row in rows]


class Reading(ABC):
    """The methods of ``Store`` that only read, for a store that can ask a statement by its name."""

    @abstractmethod
    def _ask(self, name: str, given: Mapping[str, Any], taken: Callable[[Rows], list[Any]] = all_rows) -> list[Any]:
        """What ``taken`` makes of the rows that the statement returns; [] where there is nothing to read yet."""

    @abstractmethod
    def _ask_of(self, name: str, values: Sequence[int] | Sequence[str]) -> list[Any]:
        """The rows of a statement that has these, the numbers or the ids of runs, for its ``:list``."""

    def get(self, id: str) -> RunRow | None:
        found = self._ask("run_of_id", {"id": id}) if is_text(id) else []  # else nobody could have created it
        return run_row(found[0]) if found else None

    def runs(self, *, status: str | None, workflow: str | None, limit: int, after: int | None) -> list[RunRow]:
        given = {"workflow": workflow, "limit": max(limit, 0), "after": AFTER_ALL if after is None else after}
        if status is None:
            return [run_row(row) for row in self._ask("runs", given)]
        return [run_row(row) for row in self._ask("runs_of_status", {**given, "status": status})]

    def spent(self, run_nos: Sequence[int]) -> dict[int, Spent]:
        sums = {no: Spent() for no in run_nos}
        for no, tokens, usd, steps, saves, last_ms in self._ask_of("spent", list(sums)):
            sums[no] = Spent(tokens=tokens, usd=usd, steps=steps, saves=saves, last_ms=int(last_ms))
        return sums

    def load(
        self, run_no: int, *, after: int = BEFORE_ALL, until: int = AFTER_ALL, last: int | None = None
    ) -> list[Checkpoint]:
        # The columns come in the order of its fields. Each row is taken as it comes: thousands of tuples kept at once
        # would set off the garbage collector again and again.
        given = {"run_no": run_no, "after": after, "until": until}
        if last is None:
            return self._ask("load", given, lambda rows: list(starmap(Checkpoint, rows)))
        found = self._ask("load_last", {**given, "limit": last}, lambda rows: list(starmap(Checkpoint, rows)))
        return found[::-1]

    def claims(self, run_no: int) -> list[Claim]:
        found = self._ask("claims", {"run_no": run_no})
        return [Claim(**dict(zip(Claim.__struct_fields__, row, strict=True))) for row in found]

    def owners(self) -> list[str]:
        return [owner for (owner,) in self._ask("owners", {})]

    def signals(self, run_no: int, *, after: int = BEFORE_ALL) -> list[Signal]:
        return signal_rows(self._ask("signals", {"run_no": run_no, "after": after}))

    def wakes(self, run_nos: Sequence[int]) -> dict[int, int]:
        return dict(self._ask_of("wakes", run_nos))

    def statuses(self, ids: Sequence[str]) -> dict[str, str]:
        return dict(self._ask_of("statuses", [id for id in ids if is_text(id)]))

    def news(self, run_no: int, *, epoch: int = 0, n: int = 0) -> list[News]:
        found = self._ask("news", {"run_no": run_no, "epoch": epoch, "n": n})
        return [News(run_no=r[0], epoch=r[1], n=r[2], count=r[3], data=r[4]) for r in found]

    # -- dialogs -------------------------------------------------------------------------------------------

    def dialog(self, app: str, user_id: str, id: str) -> Snapshot | None:
        if not all(map(is_text, (app, user_id, id))):
            return None
        owners = {"app_owner": owner_of(app), "user_owner": owner_of(app, user_id), "owner": owner_of(app, user_id, id)}
        found = self._ask("dialog", {"app": app, "user_id": user_id, "id": id, **owners})
        if not found:
            return None
        shared = [SharedKey(*row[8:]) for row in found if row[8] is not None]
        return Snapshot(_dialog_row(found[0][:8]), sorted(shared, key=_place))

    def dialogs(self, app: str, user_id: str | None, *, after: tuple[str, str] = ("", ""), limit: int) -> list[Dialog]:
        if not all(map(is_text, (app, user_id or ""))):
            return []
        given = {"app": app, "user_id": user_id, "after_user": after[0], "after_id": after[1], "limit": limit}
        return [_dialog_row(row) for row in self._ask("dialogs" if user_id is None else "dialogs_of_user", given)]

    def shared(self, owners: Sequence[str]) -> list[SharedKey]:
        return sorted(starmap(SharedKey, self._ask_of("shared", list(dict.fromkeys(owners)))), key=_place)

    def dialog_events(self, no: int, *, after: int = 0, until: int, turn: str | None = None) -> list[DialogEvent]:
        given = {"no": no, "after": after, "until": until, "turn": turn}
        name = "dialog_events" if turn is None else "dialog_events_of_turn"
        return self._ask(name, given, lambda rows: list(starmap(DialogEvent, rows)))

    def last_before(self, no: int, at: float, *, until: int) -> int:
        found = self._ask("last_before", {"no": no, "at": at, "until": until})
        return int(found[0][0]) if found else 0


def _dialog_row(row: Sequence[Any]) -> Dialog:
    return Dialog(**dict(zip(Dialog.__struct_fields__, row, strict=True)))


def _place(row: SharedKey) -> tuple[str, str]:
    return row.owner, row.key
