"""The suite on ownership: leases, and the fence in every write."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.store import Batch, Finish, Store
from holdfast.store.damage import flaw_of_run

from .rows import Clock, MakeStore, append, at_once, checkpoint, claim, create, finish, numbers, run_row


class Owners:
    """The fence and leases."""

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

    def test_claiming(self, store: Store, clock: Clock) -> None:
        (run,) = create(store, "a")
        finish(store, run, "failed", error=b"e")
        clock.now += 10
        row = store.claim(run.no, 1, owner="other", ttl_ms=700, lost="died")
        assert row is not None and row == store.get("a")
        assert (row.owner, row.epoch, row.status, row.error, row.deaths) == ("other", 2, "running", b"e", 1)
        assert (row.lease_until_ms, row.updated_ms) == (clock.now + 700, clock.now)
        assert store.claim(run.no, 1, owner="late", ttl_ms=700, lost="died") is None
        row = store.claim(run.no, 2, owner="third", ttl_ms=700, lost=None)
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
        taken = claim(store, told, ttl_ms=70)  # how long the leases of others last is nothing to it
        assert taken is not None and taken.doing is None
        (_, second) = store.claims(told.no)
        assert (second.doing, second.seen_ms, second.claimed_ms) == (b"z", clock.now - 400, clock.now)
        finish(store, mine)
        row = store.get("a")
        assert row is not None and row.doing is None
        store.renew("other", ttl_ms=500, doing={lost.no: b"x"})
        cancelled = store.cancel("c")
        assert cancelled is not None and cancelled.doing is None

    def test_a_run_comes_back_with_its_checksums(self, store: Store) -> None:
        (run,) = create(store, "a", state=b"s")
        assert flaw_of_run(run) is None
        for status, more in (("failed", {"error": b"e"}), ("done", {"result": b"r"})):
            finish(store, run, status, **more)
            found = store.get("a")
            assert found is not None and flaw_of_run(found) is None and found.checksum == run.checksum
            taken = claim(store, found)
            if taken is not None:
                assert flaw_of_run(taken) is None
                run = taken
        assert all(flaw_of_run(row) is None for row in store.runs(status=None, workflow=None, limit=9, after=None))

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
