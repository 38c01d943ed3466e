"""The one suite told to every store.

Subclass ``StoreSuite`` in a test module and give it a fixture ``make_store``: a callable that opens the
same store anew each time it is called, ``make_store(clock=None)``::

    class TestMine(StoreSuite):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda clock=None: MyStore(tmp_path / "mine", clock=clock)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from holdfast.store import Batch, Checkpoint, Claim, Finish, RunRow, Spent, Store


class MakeStore(Protocol):
    def __call__(self, clock: Callable[[], int] | None = None) -> Store: ...


class Clock:
    """Milliseconds that pass when a test says so."""

    def __init__(self, now: int = 1_800_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def run_row(id: str, *, owner: str | None = "me", ttl_ms: int = 30_000, **more: Any) -> RunRow:
    """A run as it is given to be created."""
    given: dict[str, Any] = {
        "workflow": "review_loan",
        "version": "1",
        "python": "3.11",
        "module": "loans",
        "file": "/srv/loans.py",
        "inputs": b"\x91\x01",
        "fingerprint": b"f" * 16,
        "state": None,
        "seed": b"s" * 16,
    }
    return RunRow(id=id, owner=owner, lease_until_ms=ttl_ms, **{**given, **more})


def checkpoint(run_no: int, seq: int, *, epoch: int = 1, **more: Any) -> Checkpoint:
    """A row with its checksum, as the journal hands it on."""
    given: dict[str, Any] = {
        "kind": "step",
        "scope": "",
        "branch": "",
        "name": "parse",
        "key": None,
        "n": 0,
        "version": "",
        "status": "done",
        "attempts": 1,
        "started_ms": 1_800_000_000_000,
        "duration_ms": 12.5,
        "tokens": None,
        "usd": None,
        "fingerprint": b"i" * 16,
        "inputs": None,
        "result": b"\x01",
        "delta": None,
    }
    row = Checkpoint(run_no=run_no, seq=seq, epoch=epoch, **{**given, **more})
    row.checksum = row.compute_checksum()
    return row


def create(store: Store, *ids: str, **more: Any) -> list[RunRow]:
    created = store.commit(Batch(creates=[run_row(id, **more) for id in ids])).created
    return [created[id] for id in ids]


def append(store: Store, *rows: Checkpoint) -> set[int]:
    """The numbers of the runs that were fenced."""
    return store.commit(Batch(appends=list(rows))).fenced


def finish(store: Store, run: RunRow, status: str = "done", **more: Any) -> set[int]:
    end = Finish(run_no=run.no, epoch=run.epoch, status=status, **more)
    return store.commit(Batch(finishes=[end])).fenced


def numbers(store: Store, run: RunRow) -> list[int]:
    return [row.seq for row in store.load(run.no)]


def claim(store: Store, run: RunRow, *, owner: str = "other", ttl_ms: int = 30_000) -> RunRow | None:
    return store.claim(run.no, run.epoch, owner=owner, ttl_ms=ttl_ms, died=False)


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``count`` threads return that begin together; the first error, if any raised one."""
    gate = threading.Barrier(count)
    results: list[Any] = [None] * count

    def enter(number: int) -> None:
        gate.wait()
        try:
            results[number] = work(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class StoreSuite:
    @pytest.fixture
    def make_store(self) -> MakeStore:
        raise NotImplementedError("give the class a fixture make_store")

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, make_store: MakeStore, clock: Clock) -> Any:
        store = make_store(clock)
        yield store
        store.close()

    # -- runs ----------------------------------------------------------------------------------------------

    def test_an_unknown_id_is_none(self, store: Store) -> None:
        assert store.get("nothing") is None
        assert store.cancel("nothing") is None
        assert store.claim(7, 1, owner="me", ttl_ms=1, died=False) is None
        assert store.load(7) == [] and store.claims(7) == []

    def test_a_created_run_comes_back_in_every_field(self, store: Store, clock: Clock) -> None:
        given = run_row("löan-🏦", ttl_ms=5_000, state=b"\x80", inputs=b"", version="2", deaths=0)
        (row,) = store.commit(Batch(creates=[given])).created.values()
        assert row.no > 0
        assert (row.created_ms, row.updated_ms, row.lease_until_ms) == (
            clock.now,
            clock.now,
            clock.now + 5_000,
        )
        assert (row.id, row.owner, row.epoch, row.status) == ("löan-🏦", "me", 1, "running")
        assert (row.state, row.inputs, row.version, row.seed) == (b"\x80", b"", "2", b"s" * 16)
        assert row.result is None and row.error is None
        assert store.get("löan-🏦") == row
        assert store.claims(row.no) == [Claim(run_no=row.no, epoch=1, owner="me", claimed_ms=clock.now)]
        assert (given.no, given.lease_until_ms) == (0, 5_000), "the row given is the caller's"

    def test_a_run_without_an_owner_has_no_lease(self, store: Store) -> None:
        (row,) = create(store, "a", owner=None, status="queued")
        assert (row.lease_until_ms, row.status, row.owner) == (0, "queued", None)
        assert store.claims(row.no) == []
        assert append(store, checkpoint(row.no, 1)) == {row.no}, "nobody owns it, so nobody may write"

    def test_an_id_is_created_once(self, store: Store) -> None:
        (first,) = create(store, "a")
        again = store.commit(Batch(creates=[run_row("a", owner="other"), run_row("b")])).created
        assert list(again) == ["b"]
        assert store.get("a") == first
        assert len(store.claims(first.no)) == 1

    def test_many_threads_create_one_id_and_one_wins(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(6)]
        batches = [Batch(creates=[run_row("a", owner=f"o{n}"), run_row(f"x{n}")]) for n in range(6)]
        created = at_once(6, lambda n: stores[n].commit(batches[n]).created)
        assert sum("a" in c for c in created) == 1
        assert sorted(id for c in created for id in c if id != "a") == [f"x{n}" for n in range(6)]
        (winner,) = [c["a"] for c in created if "a" in c]
        assert stores[0].get("a") == winner
        for store in stores:
            store.close()

    def test_numbers_are_never_given_twice(self, store: Store) -> None:
        rows = create(store, *(f"r{n}" for n in range(300)))
        assert len({row.no for row in rows}) == 300
        assert [row.id for row in rows] == [f"r{n}" for n in range(300)]

    def test_runs_are_listed_newest_first_in_pages(self, store: Store) -> None:
        rows = create(store, *(f"r{n}" for n in range(7)))
        (other,) = create(store, "session", workflow="")
        finish(store, rows[2])
        finish(store, rows[5])

        def ids(**given: Any) -> list[str]:
            asked: dict[str, Any] = {"status": None, "workflow": None, "limit": 100, "after": None, **given}
            return [row.id for row in store.runs(**asked)]

        everything = ["session", "r6", "r5", "r4", "r3", "r2", "r1", "r0"]
        assert ids() == everything
        assert ids(limit=3) == everything[:3]
        assert ids(limit=3, after=rows[5].no) == ["r4", "r3", "r2"]
        assert ids(limit=0) == [] and ids(after=rows[0].no) == []
        assert ids(status="done") == ["r5", "r2"]
        assert ids(status="done", after=rows[5].no) == ["r2"]
        assert ids(workflow="") == ["session"]
        assert ids(status="running", workflow="review_loan", limit=2) == ["r6", "r4"]
        assert ids(status="failed") == []
        assert store.runs(status=None, workflow="", limit=1, after=None) == [other]

    # -- checkpoints ---------------------------------------------------------------------------------------

    def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        committed = store.commit(Batch())
        assert committed.created == {} and committed.fenced == set()

    def test_every_field_of_a_checkpoint_comes_back(self, store: Store) -> None:
        (run,) = create(store, "a")
        full = checkpoint(
            run.no, 1, kind="workflow", scope="child#0/é", branch="fetch#0/parse#2", name="naïve 'step'; --",
            key="k\"ey", n=3, version="v2", status="failed", attempts=7, duration_ms=0.0625, tokens=2**40,
            usd=0.1, inputs=b"\x00in", result=b"", delta=bytes(range(256)),
        )  # fmt: skip
        bare = checkpoint(run.no, 2, name="", result=None, fingerprint=b"", duration_ms=3.0)
        assert append(store, full, bare) == set()
        assert store.load(run.no) == [full, bare]
        assert all(row.checksum == row.compute_checksum() for row in store.load(run.no))
        assert isinstance(store.load(run.no)[1].duration_ms, float)

    def test_rows_come_back_by_seq_and_after(self, store: Store) -> None:
        run, other = create(store, "a", "b")
        append(store, checkpoint(run.no, 2), checkpoint(other.no, 1), checkpoint(run.no, 1))
        append(store, *(checkpoint(run.no, n) for n in range(3, 700)))
        assert numbers(store, run) == list(range(1, 700))
        assert [row.seq for row in store.load(run.no, after=696)] == [697, 698, 699]
        assert store.load(run.no, after=699) == []
        assert numbers(store, other) == [1]

    @pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 64, 65, 255, 256, 257, 600])
    def test_batches_of_every_size_are_whole(self, store: Store, size: int) -> None:
        runs = create(store, *(f"r{n}" for n in range(7)))
        rows = [checkpoint(runs[n % 7].no, n // 7 + 1, result=b"%d" % n) for n in range(size)]
        assert append(store, *rows) == set()
        loaded = [row for run in runs for row in store.load(run.no)]
        assert sorted(loaded, key=lambda r: (r.seq, r.run_no)) == rows

    def test_big_values(self, store: Store) -> None:
        (run,) = create(store, "a", state=b"s" * 1_000_000)
        big = checkpoint(run.no, 1, result=bytes(1_000_000), delta=b"d" * 1_000_000)
        assert append(store, big, checkpoint(run.no, 2)) == set()
        assert store.load(run.no)[0] == big
        assert store.get("a") == run

    def test_rows_are_copies(self, store: Store) -> None:
        (run,) = create(store, "a")
        row = checkpoint(run.no, 1)
        append(store, row)
        row.name = run.workflow = "changed"
        store.load(run.no)[0].name = "changed"
        found = store.get("a")
        assert found is not None
        found.status = "changed"
        assert store.load(run.no)[0].name == "parse"
        again = store.get("a")
        assert again is not None and (again.status, again.workflow) == ("running", "review_loan")

    def test_costs_add_up(self, store: Store) -> None:
        run, empty = create(store, "a", "b")
        append(
            store,
            checkpoint(run.no, 1, tokens=100, usd=0.25, started_ms=1000, duration_ms=500.75),
            checkpoint(run.no, 2, tokens=None, usd=0.5, started_ms=900, duration_ms=1.0),
            checkpoint(run.no, 3, kind="save", tokens=7, started_ms=10, duration_ms=0.0),
        )
        assert store.spent([run.no, empty.no, 999_999]) == {
            run.no: Spent(tokens=107, usd=0.75, steps=2, saves=1, last_ms=1500),
            empty.no: Spent(),
            999_999: Spent(),
        }
        assert store.spent([]) == {}

    # -- the fence -----------------------------------------------------------------------------------------

    def test_a_lost_run_takes_no_rows_and_the_others_do(self, store: Store) -> None:
        lost, kept = create(store, "lost", "kept")
        append(store, checkpoint(lost.no, 1), checkpoint(kept.no, 1))
        taken = claim(store, lost)
        assert taken is not None and taken.epoch == 2
        rows = [
            checkpoint(lost.no, 2),
            checkpoint(kept.no, 2),
            checkpoint(lost.no, 3),
            checkpoint(kept.no, 3),
        ]
        assert append(store, *rows) == {lost.no}
        assert (numbers(store, lost), numbers(store, kept)) == ([1], [1, 2, 3])
        assert append(store, checkpoint(lost.no, 2, epoch=2)) == set()
        assert append(store, checkpoint(lost.no, 3, epoch=3)) == {lost.no}, "an epoch not yet given out"

    def test_a_lost_run_is_not_finished_and_the_others_are(self, store: Store) -> None:
        lost, kept = create(store, "lost", "kept")
        taken = claim(store, lost)
        batch = Batch(
            creates=[run_row("new")],
            appends=[checkpoint(lost.no, 1), checkpoint(kept.no, 1)],
            finishes=[Finish(run_no=run.no, epoch=1, status="done", result=b"r", error=None) for run in (lost, kept)],
        )
        committed = store.commit(batch)
        assert committed.fenced == {lost.no} and list(committed.created) == ["new"]
        assert store.get("lost") == taken
        assert numbers(store, lost) == [] and numbers(store, kept) == [1]
        ended = store.get("kept")
        assert ended is not None and (ended.status, ended.result) == ("done", b"r")

    def test_a_refused_finish_refuses_the_rows_beside_it(self, store: Store) -> None:
        (run,) = create(store, "a")
        end = Finish(run_no=run.no, epoch=2, status="done")
        assert store.commit(Batch(appends=[checkpoint(run.no, 1)], finishes=[end])).fenced == {run.no}
        assert numbers(store, run) == [] and store.get("a") == run

    def test_rows_of_two_epochs_in_one_batch_are_all_refused(self, store: Store) -> None:
        run, other = create(store, "a", "b")
        claim(store, run)
        rows = [checkpoint(run.no, 1), checkpoint(run.no, 2, epoch=2), checkpoint(other.no, 1)]
        assert append(store, *rows) == {run.no}
        assert numbers(store, run) == [] and numbers(store, other) == [1]

    def test_rows_of_an_unknown_run_are_fenced(self, store: Store) -> None:
        (run,) = create(store, "a")
        assert append(store, checkpoint(99, 1), checkpoint(run.no, 1)) == {99}
        assert numbers(store, run) == [1]

    def test_a_batch_sent_again_counts_as_written(self, store: Store) -> None:
        run, other = create(store, "a", "b")
        rows = [checkpoint(run.no, 1), checkpoint(other.no, 1)]
        assert append(store, *rows) == set()
        assert append(store, *rows) == set()
        assert append(store, *rows, checkpoint(run.no, 2)) == set()
        assert numbers(store, run) == [1, 2] and numbers(store, other) == [1]
        end = Batch(
            appends=[checkpoint(run.no, 3)],
            finishes=[Finish(run_no=run.no, epoch=1, status="done", result=b"r")],
        )
        assert store.commit(end).fenced == set()
        ended = store.get("a")
        assert store.commit(end).fenced == set()
        assert store.get("a") == ended and numbers(store, run) == [1, 2, 3]

    def test_another_row_in_the_place_fences(self, store: Store) -> None:
        run, other = create(store, "a", "b")
        append(store, checkpoint(run.no, 1))
        rows = [checkpoint(run.no, 1, result=b"else"), checkpoint(run.no, 2), checkpoint(other.no, 1)]
        assert append(store, *rows) == {run.no}
        assert store.load(run.no) == [checkpoint(run.no, 1)], "what stands is not touched, nothing is added"
        assert numbers(store, other) == [1]

    @pytest.mark.parametrize("status", ["done", "failed", "waiting", "parked"])
    def test_a_released_run_takes_no_rows_of_its_old_owner(self, store: Store, clock: Clock, status: str) -> None:
        (run,) = create(store, "a")
        clock.now += 5
        assert finish(store, run, status, result=b"r", error=b"e") == set()
        row = store.get("a")
        assert row is not None
        assert (row.status, row.result, row.error, row.owner) == (status, b"r", b"e", None)
        assert (row.lease_until_ms, row.updated_ms, row.created_ms) == (0, clock.now, clock.now - 5)
        assert append(store, checkpoint(run.no, 1)) == {run.no}
        assert finish(store, run, "cancelled") == {run.no}
        assert store.get("a") == row and store.load(run.no) == []
        assert store.renew("me", ttl_ms=1) == set()

    # -- leases --------------------------------------------------------------------------------------------

    def test_claiming(self, store: Store, clock: Clock) -> None:
        (run,) = create(store, "a")
        finish(store, run, "failed", error=b"e")
        clock.now += 10
        row = store.claim(run.no, 1, owner="other", ttl_ms=700, died=True)
        assert row is not None and row == store.get("a")
        assert (row.owner, row.epoch, row.status, row.error, row.deaths) == ("other", 2, "running", b"e", 1)
        assert (row.lease_until_ms, row.updated_ms) == (clock.now + 700, clock.now)
        assert store.claim(run.no, 1, owner="late", ttl_ms=700, died=True) is None
        row = store.claim(run.no, 2, owner="third", ttl_ms=700, died=False)
        assert row is not None and (row.deaths, row.epoch) == (1, 3)
        assert [(c.epoch, c.owner, c.claimed_ms, c.found) for c in store.claims(run.no)] == [
            (1, "me", clock.now - 10, ""),
            (2, "other", clock.now, "died"),
            (3, "third", clock.now, "running"),
        ]

    @pytest.mark.parametrize("status", ["done", "cancelled"])
    def test_an_ended_run_is_not_claimed(self, store: Store, status: str) -> None:
        (run,) = create(store, "a")
        finish(store, run, status)
        row = store.get("a")
        assert claim(store, run) is None
        assert store.get("a") == row and len(store.claims(run.no)) == 1

    def test_many_threads_claim_and_one_wins(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(6)]
        (run,) = create(stores[0], "a")
        taken = at_once(6, lambda n: claim(stores[n], run, owner=f"o{n}"))
        (winner,) = [row for row in taken if row is not None]
        assert stores[0].get("a") == winner and winner.epoch == 2
        assert [c.owner for c in stores[0].claims(run.no)] == ["me", winner.owner]
        for store in stores:
            store.close()

    def test_a_takeover_between_writes_lets_no_row_pass(self, make_store: MakeStore) -> None:
        """An owner writes while another takes the run: what the new owner loads is all there will ever be."""
        stores = [make_store(), make_store()]
        (run,) = create(stores[0], "a")

        def work(number: int) -> Any:
            if number == 0:
                for seq in range(1, 200):
                    if append(stores[0], checkpoint(run.no, seq)):
                        return seq
                return 200
            stores[1].get("a")
            assert claim(stores[1], run) is not None
            return [row.seq for row in stores[1].load(run.no)]

        refused, loaded = at_once(2, work)
        assert loaded == list(range(1, refused)) == numbers(stores[0], run)
        for store in stores:
            store.close()

    def test_renewing_prolongs_only_ones_own(self, store: Store, clock: Clock) -> None:
        a, b, other = create(store, "a", "b", owner="me") + create(store, "c", owner="other")
        clock.now += 100_000
        assert store.renew("me", ttl_ms=500) == {a.no, b.no}, "lapsed, but nobody has taken them"
        rows = [store.get(id) for id in "abc"]
        assert [row and row.lease_until_ms for row in rows] == [clock.now + 500] * 2 + [other.lease_until_ms]
        finish(store, a)
        claim(store, b, owner="other")
        assert store.renew("me", ttl_ms=500) == set()
        assert store.renew("nobody", ttl_ms=500) == set()

    def test_what_an_owner_has_in_flight_goes_with_its_lease(self, store: Store, clock: Clock) -> None:
        mine, told, lost = create(store, "a", "b", owner="me") + create(store, "c", owner="other")
        assert store.renew("me", ttl_ms=500, doing={told.no: b"x", lost.no: b"x"}) == {mine.no, told.no}
        assert store.renew("me", ttl_ms=500) == {mine.no, told.no}
        rows = [store.get(id) for id in "abc"]
        assert [row and row.doing for row in rows] == [None, b"x", None], "it stays until something else is told"
        store.renew("me", ttl_ms=500, doing={mine.no: b"y", told.no: b"z"})
        clock.now += 400
        taken = claim(store, told, ttl_ms=500)
        assert taken is not None and taken.doing is None
        (_, second) = store.claims(told.no)
        assert (second.doing, second.seen_ms, second.claimed_ms) == (b"z", clock.now - 400, clock.now)
        finish(store, mine)
        row = store.get("a")
        assert row is not None and row.doing is None
        store.renew("other", ttl_ms=500, doing={lost.no: b"x"})
        cancelled = store.cancel("c")
        assert cancelled is not None and cancelled.doing is None

    def test_a_claim_tells_when_the_owner_before_let_go(self, store: Store, clock: Clock) -> None:
        (run,) = create(store, "a")
        clock.now += 5
        finish(store, run, "failed")
        clock.now += 10
        claim(store, run)
        assert [(c.found, c.seen_ms) for c in store.claims(run.no)] == [("", 0), ("failed", clock.now - 10)]

    @pytest.mark.parametrize("before", ["running", "failed", "waiting"])
    def test_cancelling_fences_the_owner(self, store: Store, clock: Clock, before: str) -> None:
        (run,) = create(store, "a")
        if before != "running":
            finish(store, run, before)
        clock.now += 5
        row = store.cancel("a")
        assert row is not None and row == store.get("a")
        assert (row.status, row.owner, row.epoch, row.updated_ms) == ("cancelled", None, 2, clock.now)
        assert append(store, checkpoint(run.no, 1)) == {run.no}
        assert append(store, checkpoint(run.no, 1, epoch=2)) == {run.no}
        assert claim(store, row) is None
        clock.now += 5
        assert store.cancel("a") == row, "once is enough"

    def test_a_done_run_stays_done(self, store: Store) -> None:
        (run,) = create(store, "a")
        finish(store, run, result=b"r")
        row = store.get("a")
        assert store.cancel("a") == row and row is not None and row.status == "done"

    # -- life ----------------------------------------------------------------------------------------------

    def test_the_clock(self, store: Store, clock: Clock, make_store: MakeStore) -> None:
        assert store.now_ms() == clock.now
        real = make_store()
        assert 1_700_000_000_000 < real.now_ms() < 10_000_000_000_000
        real.close()

    def test_everything_is_there_for_who_opens_it_next(self, make_store: MakeStore) -> None:
        first = make_store()
        run, _ = create(first, "a", "b")
        append(first, *(checkpoint(run.no, n) for n in range(1, 50)))
        taken = claim(first, run)
        seen = (first.load(run.no), first.claims(run.no), first.get("a"), first.spent([run.no]))
        second = make_store()
        assert (second.load(run.no), second.claims(run.no), taken, second.spent([run.no])) == seen
        first.close()
        second.close()
        third = make_store()
        assert (third.load(run.no), third.claims(run.no), third.get("a"), third.spent([run.no])) == seen
        third.close()

    def test_a_closed_or_forgetful_store_opens_again(self, store: Store) -> None:
        (run,) = create(store, "a")
        store.close()
        store.close()
        assert append(store, checkpoint(run.no, 1)) == set()
        store.forget()
        assert append(store, checkpoint(run.no, 2)) == set()
        assert numbers(store, run) == [1, 2]

    def test_reading_while_writing(self, store: Store) -> None:
        """What a reader sees is a prefix, in order, and never shrinks."""
        (run,) = create(store, "a")
        done = threading.Event()

        def work(number: int) -> None:
            if number == 0:
                try:
                    for seq in range(1, 150, 3):
                        append(store, *(checkpoint(run.no, seq + i) for i in range(3)))
                finally:
                    done.set()
                return
            seen = 0
            while not done.is_set():
                found = numbers(store, run)
                assert found == list(range(1, len(found) + 1)) and len(found) % 3 == 0 and len(found) >= seen
                seen = len(found)

        at_once(3, work)
        assert len(numbers(store, run)) == 150
