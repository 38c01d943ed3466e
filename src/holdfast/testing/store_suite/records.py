"""The suite on runs and checkpoints: what is given comes back, in order."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import CodecError
from holdfast.store import Batch, Claim, Finish, Spent, Store, revised
from holdfast.store.damage import flaw_of_run

from .rows import Clock, MakeStore, append, at_once, checkpoint, claim, create, finish, numbers, revision, run_row

TOO_MUCH = 2**63


class Records:
    """Runs and checkpoints."""

    def test_an_unknown_id_is_none(self, store: Store) -> None:
        assert store.get("nothing") is None
        assert store.cancel("nothing") is None
        assert store.claim(7, 1, owner="me", ttl_ms=1, lost=None) is None
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

    def test_a_part_of_the_checkpoints_comes_in_order(self, store: Store) -> None:
        (run,) = create(store, "a")
        assert append(store, *(checkpoint(run.no, seq) for seq in range(1, 7))) == set()

        def loaded(**which: int) -> list[int]:
            return [row.seq for row in store.load(run.no, **which)]

        assert loaded(after=2, until=4) == [3, 4]
        assert loaded(last=2) == [5, 6] and loaded(last=9) == [1, 2, 3, 4, 5, 6]
        assert loaded(until=4, last=3) == [2, 3, 4] and loaded(after=3, until=4, last=3) == [4]

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

    def test_a_revision_comes_back_with_the_row_it_begins_with(self, store: Store) -> None:
        (run,) = create(store, "a")
        append(store, checkpoint(run.no, 1))
        first = revision(run, 2)
        for _ in range(2):  # sent again after a lost connection
            batch = Batch(appends=[first.begins, checkpoint(run.no, 3)], revisions=[first])
            assert store.commit(batch).fenced == set()
            found = store.get("a")
            assert found == revised(run, first) and found is not None and flaw_of_run(found) is None
            assert (found.version, found.python, found.schema_version, found.state) == ("2", "3.12", 7, b"\x81")
            assert (found.module, found.file, found.inputs) == ("loans2", "/srv/2.py", run.inputs)
            assert [(row.seq, row.kind) for row in store.load(run.no)] == [(1, "step"), (2, "version"), (3, "step")]

    def test_a_revision_and_the_end_of_a_run_in_one_batch(self, store: Store) -> None:
        (run,), (other,) = create(store, "a"), create(store, "b")
        first = revision(run, 1)
        end = Finish(run_no=run.no, epoch=run.epoch, status="done", result=b"\x01", parent_no=other.no)
        store.commit(Batch(appends=[first.begins], revisions=[first], finishes=[end]))
        found = store.get("a")
        assert found is not None and flaw_of_run(found) is None and (found.version, found.status) == ("2", "done")

    def test_a_fenced_revision_changes_nothing(self, store: Store) -> None:
        (run,) = create(store, "a")
        assert claim(store, run) is not None
        first = revision(run, 1)
        assert store.commit(Batch(appends=[first.begins], revisions=[first])).fenced == {run.no}
        found = store.get("a")
        assert found is not None and (found.version, found.schema_version, numbers(store, run)) == ("1", 0, [])

    def test_steps_that_were_kept_from_another_version_were_not_executed(self, store: Store) -> None:
        (run,) = create(store, "a")
        append(store, checkpoint(run.no, 1), checkpoint(run.no, 2, attempts=0))
        assert store.spent([run.no])[run.no].steps == 1

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

    def test_a_row_that_is_refused_takes_no_other_run_along(self, store: Store) -> None:
        """Nobody has a column for such a number. Of its own run nothing is written, or there would be a gap."""
        runs = create(store, *(f"r{n}" for n in range(9)))
        ends, bad, worse = runs[6], runs[3], runs[7]
        batch = Batch(
            creates=[run_row("good"), run_row("bad", priority=TOO_MUCH), run_row("better", owner="you")],
            appends=[
                *(checkpoint(run.no, 1) for run in runs),
                checkpoint(bad.no, 2, tokens=TOO_MUCH),
                *(checkpoint(run.no, 3 if run is bad else 2) for run in runs),
            ],
            finishes=[
                Finish(run_no=ends.no, epoch=1, status="done", result=b"r"),
                Finish(run_no=worse.no, epoch=1, status="waiting", wakes=TOO_MUCH),
            ],
        )
        committed = store.commit(batch)
        assert set(committed.refused) == {bad.no, worse.no, "bad"} and committed.fenced == set()
        assert all(isinstance(why, CodecError) for why in committed.refused.values())
        assert [numbers(store, run) for run in runs] == [[] if run in (bad, worse) else [1, 2] for run in runs]
        assert {id: row.owner for id, row in committed.created.items()} == {"good": "me", "better": "you"}
        assert store.get("bad") is None and store.get("good") == committed.created["good"]
        rows = {run.no: store.get(run.id) for run in (ends, worse)}
        assert [row and row.status for row in rows.values()] == ["done", "running"]
        assert append(store, checkpoint(bad.no, 1)) == set(), "it is still its owner's"

    def test_what_is_refused_alone(self, store: Store) -> None:
        (run,) = create(store, "a")
        committed = store.commit(Batch(appends=[checkpoint(run.no, 1), checkpoint(run.no, 2, attempts=TOO_MUCH)]))
        assert list(committed.refused) == [run.no] and numbers(store, run) == []
        assert store.commit(Batch(creates=[run_row("b", priority=TOO_MUCH)])).created == {} and store.get("b") is None
