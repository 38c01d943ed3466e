"""The suite on forks: runs that begin with the history of another one."""

from __future__ import annotations

from msgspec.structs import replace

from holdfast.store import Spent, Store
from holdfast.store.damage import flaw_of_run

from .rows import Clock, MakeStore, append, at_once, checkpoint, claim, create, finish, numbers, run_row


class Forks:
    """A fork shares the rows up to one of them, and nothing that comes after it."""

    def test_a_fork_has_the_rows_up_to_the_one_named(self, store: Store, clock: Clock) -> None:
        (run,) = create(store, "a")
        rows = [checkpoint(run.no, seq, name=f"s{seq}", delta=b"d", inputs=b"i", tokens=seq) for seq in range(1, 6)]
        append(store, *rows)
        clock.now += 5
        given = run_row("b", owner=None, status="queued", epoch=0, origin=b"of a", state=b"\x80", wakes=3)
        forked = store.fork(run.no, 3, given)
        assert forked is not None and forked == store.get("b") and flaw_of_run(forked) is None
        assert (forked.owner, forked.status, forked.epoch, forked.wakes) == (None, "queued", 0, 3)
        assert (forked.origin, forked.state, forked.created_ms) == (b"of a", b"\x80", clock.now)
        found = store.load(forked.no)
        assert [row.name for row in found] == ["s1", "s2", "s3"]
        for row, source in zip(found, rows, strict=False):
            assert row == replace(source, run_no=forked.no, epoch=0, checksum=row.compute_checksum())
        assert store.load(run.no) == rows and store.claims(forked.no) == []

    def test_its_own_epochs_count_from_one_and_the_shared_ones_down_from_zero(self, store: Store) -> None:
        (run,) = create(store, "a")
        append(store, checkpoint(run.no, 1))
        second = claim(store, run)
        assert second is not None
        append(store, checkpoint(run.no, 2, epoch=2))
        forked = store.fork(run.no, 2, run_row("b", owner=None, status="queued", epoch=0))
        assert forked is not None
        owned = claim(store, forked)
        assert owned is not None and owned.epoch == 1
        assert append(store, checkpoint(owned.no, 3, epoch=1)) == set()
        assert [row.epoch for row in store.load(owned.no)] == [-1, 0, 1]
        again = store.fork(owned.no, 3, run_row("c", owner=None, status="queued", epoch=0))
        assert again is not None and [row.epoch for row in store.load(again.no)] == [-2, -1, 0]

    def test_what_the_shared_rows_cost_is_not_counted_again(self, store: Store) -> None:
        (run,) = create(store, "a")
        append(store, checkpoint(run.no, 1, tokens=100, usd=1.0))
        forked = store.fork(run.no, 1, run_row("b", owner=None, status="queued", epoch=0))
        assert forked is not None and store.spent([forked.no]) == {forked.no: Spent()}
        owned = claim(store, forked)
        assert owned is not None
        append(store, checkpoint(owned.no, 2, tokens=7, started_ms=1000, duration_ms=5.0))
        assert store.spent([forked.no]) == {forked.no: Spent(tokens=7, steps=1, last_ms=1005)}
        assert store.spent([run.no])[run.no].tokens == 100

    def test_an_id_that_is_taken_is_not_forked_into(self, store: Store) -> None:
        run, other = create(store, "a", "b")
        append(store, checkpoint(run.no, 1), checkpoint(other.no, 1, name="other"))
        assert store.fork(run.no, 1, run_row("b", owner=None)) is None
        assert store.get("b") == other and [row.name for row in store.load(other.no)] == ["other"]

    def test_many_fork_into_one_id_and_one_wins(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(4)]
        (run,) = create(stores[0], "a")
        append(stores[0], *[checkpoint(run.no, seq) for seq in range(1, 301)])
        made = at_once(4, lambda n: stores[n].fork(run.no, 150 + n, run_row("b", owner=None, origin=b"%d" % n)))
        (won,) = [n for n, row in enumerate(made) if row is not None]
        found = stores[0].get("b")
        assert found is not None and found == made[won]
        assert numbers(stores[0], found) == list(range(1, 151 + won))
        for store in stores:
            store.close()

    def test_a_fork_is_as_damaged_as_what_it_is_a_fork_of(self, store: Store) -> None:
        (run,) = create(store, "a")
        row = checkpoint(run.no, 1)
        row.checksum ^= 4
        append(store, row, checkpoint(run.no, 2))
        forked = store.fork(run.no, 2, run_row("b", owner=None))
        assert forked is not None
        first, second = store.load(forked.no)
        assert first.checksum != first.compute_checksum() and second.checksum == second.compute_checksum()

    def test_a_fork_outlives_its_source_and_goes_its_own_way(self, store: Store) -> None:
        (run,) = create(store, "a")
        append(store, checkpoint(run.no, 1))
        forked = store.fork(run.no, 0, run_row("b", owner=None, status="queued", epoch=0))
        assert forked is not None and store.load(forked.no) == []
        store.cancel("a")
        owned = claim(store, forked)
        assert owned is not None and finish(store, owned, "done", result=b"r") == set()
        source = store.get("a")
        assert source is not None and source.status == "cancelled" and numbers(store, source) == [1]
