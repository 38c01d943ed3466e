"""The suite on a store's life: opened, closed, forked, read while it is written."""

from __future__ import annotations

import threading

from holdfast.store import Store

from .rows import Clock, MakeStore, append, at_once, checkpoint, claim, create, numbers


class Life:
    """Opening, closing, reading beside a writer."""

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
