"""The suite on news: kept in order and in bounded room, fenced, and cleared."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.store import Store

from .rows import Clock, MakeStore, append, checkpoint, claim, create, finish, news


class Telling:
    """News, and the stamp by which watchers see that there are any."""

    def test_news_come_back_in_the_order_of_telling(self, store: Store) -> None:
        run, other = create(store, "a", "b")
        assert store.news(run.no) == []
        store.tell([news(run.no, 3, data=b"x"), news(other.no, 1)])
        store.tell([news(run.no, 9, count=2, data=bytes(100_000))])
        assert store.news(run.no) == [news(run.no, 3, data=b"x"), news(run.no, 9, count=2, data=bytes(100_000))]
        assert [row.n for row in store.news(run.no, epoch=1, n=3)] == [9]
        assert store.news(run.no, epoch=1, n=9) == [] == store.news(run.no, epoch=2)
        store.tell([])

    @pytest.mark.parametrize("size", [1, 17, 300])
    def test_many_runs_tell_at_once(self, store: Store, size: int) -> None:
        runs = create(store, *(f"r{n}" for n in range(size)))
        store.tell([news(run.no, 1, data=b"%d" % run.no) for run in runs])
        assert [store.news(run.no) for run in runs] == [[news(run.no, 1, data=b"%d" % run.no)] for run in runs]

    def test_who_lost_the_run_tells_nothing(self, store: Store) -> None:
        lost, kept = create(store, "lost", "kept")
        store.tell([news(lost.no, 1)])
        claim(store, lost)
        store.tell([news(lost.no, 2), news(kept.no, 1), news(99, 1)])
        assert store.news(lost.no) == [news(lost.no, 1)] and len(store.news(kept.no)) == 1
        store.tell([news(lost.no, 1, epoch=2)])
        assert [(row.epoch, row.n) for row in store.news(lost.no)] == [(1, 1), (2, 1)]
        assert [(row.epoch, row.n) for row in store.news(lost.no, epoch=1, n=1)] == [(2, 1)]
        finish(store, kept)
        store.tell([news(kept.no, 2)])
        assert len(store.news(kept.no)) == 1, "nobody owns it, so nobody tells"

    def test_old_news_are_forgotten_when_new_ones_say_so(self, store: Store) -> None:
        run, other = create(store, "a", "b")
        store.tell([news(run.no, n) for n in range(1, 6)] + [news(other.no, 1)])
        store.tell([news(run.no, 6, forget=4)])
        assert [row.n for row in store.news(run.no)] == [5, 6] and len(store.news(other.no)) == 1
        for epoch in (2, 3):
            row = store.get("a")
            assert row is not None and claim(store, row) is not None
            store.tell([news(run.no, 1, epoch=epoch, forget=0)])
            assert sorted({row.epoch for row in store.news(run.no)}) == [epoch - 1, epoch], "the last owner's stay"

    def test_news_of_runs_that_rest_are_cleared(self, store: Store, clock: Clock) -> None:
        done, early, owned = create(store, "a", "b", "c")
        store.tell([news(run.no, 1) for run in (done, early, owned)])
        finish(store, early, "waiting")
        clock.now += 50
        finish(store, done)
        clock.now += 60
        store.clear_news(idle_ms=100)
        assert [len(store.news(run.no)) for run in (done, early, owned)] == [1, 0, 1]
        clock.now += 1000
        store.clear_news(idle_ms=100)
        assert [len(store.news(run.no)) for run in (done, early, owned)] == [0, 0, 1]

    def test_the_stamp_moves_with_every_change_by_whomever(self, make_store: MakeStore) -> None:
        mine, other = make_store(), make_store()
        (run,) = create(mine, "a")
        stamp = mine.stamp()
        assert mine.stamp() == stamp, "nothing happened"
        changes: list[Callable[[], object]] = [
            lambda: create(other, "b"),
            lambda: append(other, checkpoint(run.no, 1)),
            lambda: append(mine, checkpoint(run.no, 2)),
            lambda: other.tell([news(run.no, 1)]),
            lambda: mine.tell([news(run.no, 2)]),
            lambda: claim(other, run),
            lambda: mine.cancel("a"),
        ]
        for change in changes:
            change()
            before, stamp = stamp, mine.stamp()
            assert stamp != before
        mine.close()
        append(other, checkpoint(run.no, 3))
        create(other, "c")
        assert mine.stamp() != stamp, "also across a close"
        mine.close()
        other.close()
