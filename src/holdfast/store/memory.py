"""The reference: what every store means, said with dicts. It does not outlive its process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from holdfast import clock as clocks
from holdfast.errors import CodecError
from holdfast.store.memory_blobs import MemoryBlobs
from holdfast.store.memory_data import data_of
from holdfast.store.memory_dialogs import MemoryDialogs
from holdfast.store.protocol import (
    AFTER_ALL,
    BEFORE_ALL,
    FINISHED,
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
    Taken,
    end_checksum,
    revised,
    shared,
)
from holdfast.store.settling import by_run

_UNFINISHED = ("queued", "running", "waiting")  # what a worker goes on with


class MemoryStore(MemoryDialogs, MemoryBlobs):
    """``name`` shares the rows with every store of that name in this process; "" keeps them private."""

    durable = False

    def __init__(self, name: str = "", *, clock: Callable[[], int] | None = None) -> None:
        self.url = f"memory://{name}"
        self._clock = clock
        self._data = data_of(name)

    def now_ms(self) -> int:
        return self._clock() if self._clock else clocks.now_ms()

    def _touch(self) -> None:
        self._data.stamp += 1
        self._data.changed.notify_all()

    def commit(self, batch: Batch) -> Committed:
        with self._data.lock:
            self._touch()
            committed = Committed()
            for run, part in by_run(batch).items():
                if (why := _unfit(part)) is not None:
                    committed.refused[run] = CodecError(f"{self.url}: {why}, more than any store can hold.")
                    continue
                for row in part.creates:
                    if row.id not in self._data.numbers:
                        committed.created[row.id] = self._create(row)
                if isinstance(run, int) and not self._write(run, part.appends, part.revisions, part.finishes):
                    committed.fenced.add(run)
            return committed

    def _create(self, given: RunRow) -> RunRow:
        data, now = self._data, self.now_ms()
        data.last_no += 1
        row = copy.copy(given)
        row.no = data.last_no
        row.created_ms = row.updated_ms = row.heard_ms = now
        row.lease_until_ms = 0 if row.owner is None else now + given.lease_until_ms
        row.due_ms = now + given.due_ms if given.due_ms else 0
        row.checksum, row.end_checksum = row.compute_checksum(), end_checksum(row.status, row.result, row.error)
        data.runs[row.no] = row
        data.numbers[row.id] = row.no
        data.checkpoints[row.no] = {}
        data.claims[row.no] = []
        parent = data.runs.get(row.parent_no or 0)
        if parent is not None and parent.status == "cancelled":
            self._end(row)
        if row.owner is not None:
            data.claims[row.no].append(Claim(run_no=row.no, epoch=row.epoch, owner=row.owner, claimed_ms=now))
        return copy.copy(row)

    def _write(self, run_no: int, rows: list[Checkpoint], revisions: list[Revision], finishes: list[Finish]) -> bool:
        """Everything a batch holds for one run, or, where the fence refuses any of it, nothing."""
        run = self._data.runs.get(run_no)
        if run is None or {row.epoch for row in rows} | {finish.epoch for finish in finishes} != {run.epoch}:
            return False
        standing = self._data.checkpoints[run_no]
        fresh: dict[int, Checkpoint] = {}
        for row in rows:
            stands = standing.get(row.seq) or fresh.get(row.seq)
            if stands is None:
                fresh[row.seq] = copy.copy(row)
            elif stands.checksum != row.checksum:
                return False
        if run.owner is None and (fresh or not all(_is_done(run, finish) for finish in finishes)):
            return False
        standing.update(fresh)
        for revision in revisions:
            if run.owner is not None:
                run = self._data.runs[run_no] = revised(run, revision)
        for finish in finishes:
            if run.owner is not None:
                run.status, run.result, run.error = finish.status, finish.result, finish.error
                run.end_checksum = finish.compute_checksum()
                run.owner, run.lease_until_ms, run.updated_ms, run.doing = None, 0, self.now_ms(), None
                missed = finish.wakes is not None and run.wakes > finish.wakes
                run.due_ms, run.waiting = 0 if missed else finish.due_ms, finish.waiting
                self._wake(finish.parent_no)
        return True

    def _wake(self, no: int | None) -> None:
        run = None if no is None else self._data.runs.get(no)
        if run is not None and run.status not in ("done", "cancelled"):
            run.wakes += 1
            if run.owner is None and run.status == "waiting":
                run.due_ms = 0

    def fork(self, run_no: int, at: int, new: RunRow) -> RunRow | None:
        with self._data.lock:
            if new.id in self._data.numbers:
                return None
            self._touch()
            row = self._create(new)
            rows = [each for each in self.load(run_no) if each.seq <= at]
            last = max((each.epoch for each in rows), default=0)
            self._data.checkpoints[row.no] = {each.seq: shared(each, row.no, last) for each in rows}
            return row

    def get(self, id: str) -> RunRow | None:
        with self._data.lock:
            no = self._data.numbers.get(id)
            return None if no is None else copy.copy(self._data.runs[no])

    def runs(self, *, status: str | None, workflow: str | None, limit: int, after: int | None) -> list[RunRow]:
        with self._data.lock:
            found = [
                copy.copy(row)
                for no, row in sorted(self._data.runs.items(), reverse=True)
                if (after is None or no < after)
                and (status is None or row.status == status)
                and (workflow is None or row.workflow == workflow)
            ]
            return found[: max(limit, 0)]

    def spent(self, run_nos: Sequence[int]) -> dict[int, Spent]:
        with self._data.lock:
            return {no: _add_up(self._data.checkpoints.get(no, {})) for no in run_nos}

    def load(
        self, run_no: int, *, after: int = BEFORE_ALL, until: int = AFTER_ALL, last: int | None = None
    ) -> list[Checkpoint]:
        with self._data.lock:
            rows = self._data.checkpoints.get(run_no, {})
            seqs = [seq for seq in sorted(rows) if after < seq <= until]
            return [copy.copy(rows[seq]) for seq in (seqs if last is None else seqs[max(0, len(seqs) - last) :])]

    def claims(self, run_no: int) -> list[Claim]:
        with self._data.lock:
            return list(self._data.claims.get(run_no, ()))

    def claim(self, run_no: int, epoch: int, *, owner: str, ttl_ms: int, lost: str | None) -> RunRow | None:
        with self._data.lock:
            row = self._data.runs.get(run_no)
            if row is None or row.epoch != epoch or row.status in ("done", "cancelled"):
                return None
            self._touch()
            now = self.now_ms()
            claim = Claim(
                run_no=run_no,
                epoch=epoch + 1,
                owner=owner,
                claimed_ms=now,
                found=lost or row.status,
                seen_ms=row.updated_ms if row.owner is None else row.heard_ms,
                doing=row.doing,
            )
            row.epoch += 1
            row.doing = row.waiting = None
            row.due_ms = 0
            row.owner, row.status = owner, "running"
            row.lease_until_ms, row.updated_ms, row.heard_ms = now + ttl_ms, now, now
            row.deaths += lost is not None
            self._data.claims[run_no].append(claim)
            return copy.copy(row)

    def claim_due(
        self,
        owner: str,
        *,
        ttl_ms: int,
        queue: str,
        workflows: Mapping[str, Code | None],
        dead: Collection[str],
        limit: int,
        at_once: int | None,
    ) -> list[Taken]:
        with self._data.lock:
            now = self.now_ms()
            served = [row for row in self._data.runs.values() if row.queue == queue]
            if at_once is not None:
                living = sum(_lost(row, now, dead, owner) == "" for row in served)
                limit = min(limit, at_once - living)
            found = []
            for row in sorted(served, key=lambda row: (-row.priority, row.no)):
                due = row.due_ms <= now if row.owner is None else _lost(row, now, dead, owner) != ""
                code = (row.version, row.python, row.schema_version)
                if row.workflow not in workflows or workflows[row.workflow] not in (None, code):
                    continue
                if due and row.status in _UNFINISHED:
                    found.append(copy.copy(row))
            taken = []
            for before in found[: max(limit, 0)]:
                lost = _lost(before, now, dead, owner)
                claimed = self.claim(before.no, before.epoch, owner=owner, ttl_ms=ttl_ms, lost=lost)
                assert claimed is not None
                taken.append(Taken(claimed, before, lost))
            return taken

    def owners(self) -> list[str]:
        with self._data.lock:
            return sorted({row.owner for row in self._data.runs.values() if row.owner is not None})

    def renew(
        self,
        owner: str,
        *,
        ttl_ms: int,
        doing: Mapping[int, bytes] = {},
        waiting: Mapping[int, bytes | None] = {},
    ) -> set[int]:
        with self._data.lock:
            held = {no for no, row in self._data.runs.items() if row.owner == owner}
            now = self.now_ms()
            for no in held:
                run = self._data.runs[no]
                run.lease_until_ms, run.heard_ms, run.doing = now + ttl_ms, now, doing.get(no, run.doing)
                if no in waiting:
                    run.waiting = waiting[no]
                    run.status = "running" if run.waiting is None else "waiting"
            return held

    def cancel(self, id: str) -> RunRow | None:
        with self._data.lock:
            no = self._data.numbers.get(id)
            if no is None:
                return None
            row = self._data.runs[no]
            if row.status not in ("done", "cancelled"):
                self._touch()
                self._end(row)
                self._wake(row.parent_no)
            return copy.copy(row)

    def _end(self, row: RunRow) -> None:
        row.epoch += 1
        row.status, row.owner, row.lease_until_ms = "cancelled", None, 0
        row.updated_ms, row.doing, row.waiting, row.due_ms = self.now_ms(), None, None, 0
        self._end_below(row.no)

    def _end_below(self, parent_no: int) -> None:
        for child in self._data.runs.values():
            if child.parent_no == parent_no and child.status not in FINISHED:
                self._end(child)
            elif child.parent_no == parent_no:
                self._end_below(child.no)

    # -- signals -------------------------------------------------------------------------------------------

    def send(self, id: str, name: str, value: bytes, *, key: str | None) -> RunRow | None:
        with self._data.lock:
            no = self._data.numbers.get(id)
            if no is None:
                return None
            row = self._data.runs[no]
            kept = self._data.signals.setdefault(no, [])
            again = key is not None and any(each.key == key for each in kept)
            if row.status not in ("done", "cancelled") and not again:
                self._touch()
                self._wake(no)
                signal = Signal(run_no=no, n=row.wakes, name=name, key=key, value=value, sent_ms=self.now_ms())
                signal.checksum = signal.compute_checksum()
                kept.append(signal)
            return copy.copy(row)

    def signals(self, run_no: int, *, after: int = BEFORE_ALL) -> list[Signal]:
        with self._data.lock:
            return [copy.copy(each) for each in self._data.signals.get(run_no, ()) if each.n > after]

    def wakes(self, run_nos: Sequence[int]) -> dict[int, int]:
        with self._data.lock:
            return {no: self._data.runs[no].wakes for no in run_nos if no in self._data.runs}

    def statuses(self, ids: Sequence[str]) -> dict[str, str]:
        with self._data.lock:
            numbers = self._data.numbers
            return {id: self._data.runs[numbers[id]].status for id in ids if id in numbers}

    def listen(self, seconds: float) -> None:
        with self._data.changed:
            self._data.changed.wait(seconds)

    # -- news ----------------------------------------------------------------------------------------------

    def tell(self, news: list[News]) -> None:
        with self._data.lock:
            self._data.stamp += 1  # no touch: nobody listens for news
            for row in news:
                run = self._data.runs.get(row.run_no)
                if run is None or run.epoch != row.epoch or run.owner is None:
                    continue
                kept = self._data.news.setdefault(row.run_no, [])
                kept.append(copy.copy(row))
                if row.forget is not None:
                    kept[:] = [each for each in kept if not _is_forgotten(each, row.epoch, row.forget)]

    def news(self, run_no: int, *, epoch: int = 0, n: int = 0) -> list[News]:
        with self._data.lock:
            kept = self._data.news.get(run_no, ())
            return [copy.copy(row) for row in kept if (row.epoch, row.n) > (epoch, n)]

    def clear_news(self, *, idle_ms: int) -> None:
        with self._data.lock:
            before = self.now_ms() - idle_ms
            for no in list(self._data.news):
                run = self._data.runs[no]
                if run.owner is None and run.updated_ms < before:
                    del self._data.news[no]

    def stamp(self) -> object:
        return self._data.stamp

    def close(self) -> None:
        """Nothing to close: private rows go with this object, shared ones with the process."""

    def forget(self) -> None:
        # A thread of the parent may have held the lock in the moment of the fork; it is not in the child.
        self._data.lock = threading.RLock()
        self._data.changed = threading.Condition(self._data.lock)


def _unfit(part: Batch) -> str | None:
    """What of it no column of a database takes; here it would pass until the run is moved to one."""
    for row in (*part.creates, *part.appends, *part.revisions, *part.finishes):
        for field in row.__struct_fields__:
            value = getattr(row, field)
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                return f"{field} is {value}"
    return None


def _lost(row: RunRow, now: int, dead: Collection[str], asks: str) -> str | None:
    """How its owner was lost, "" if it lives (as whoever asks does), None if there is none."""
    if row.owner is None:
        return None
    return "died" if row.owner in dead else "lapsed" if row.lease_until_ms <= now and row.owner != asks else ""


def _is_forgotten(row: News, epoch: int, forget: int) -> bool:
    return row.epoch < epoch - 1 or (row.epoch == epoch and row.n <= forget)


def _is_done(run: RunRow, finish: Finish) -> bool:
    """Whether a finish sent again is the one that stands."""
    return (run.status, run.result, run.error) == (finish.status, finish.result, finish.error)


def _add_up(kept: dict[int, Checkpoint]) -> Spent:
    rows = {seq: row for seq, row in kept.items() if row.epoch > 0}
    return Spent(
        tokens=sum(row.tokens or 0 for row in rows.values()),
        usd=sum((row.usd or 0.0 for row in rows.values()), 0.0),
        steps=sum(
            row.kind == "step" and row.attempts > 0 and row.status not in ("intent", "not_done", "repair")
            for row in rows.values()
        ),
        saves=sum(row.kind == "save" for row in rows.values()),
        last_ms=int(max((row.started_ms + row.duration_ms for row in rows.values()), default=0)),
    )
