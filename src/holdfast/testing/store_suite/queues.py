"""The suite on what workers do: queues, waits, and what wakes a run."""

from __future__ import annotations

import time
from typing import Any

import pytest

from holdfast.store import NEVER_MS, Batch, Code, Finish, RunRow, Store, Taken

from .rows import Clock, MakeStore, at_once, claim, create, finish, run_row

KNOWN = {"review_loan": None, "other": None}


def submit(store: Store, *ids: str, **more: Any) -> list[RunRow]:
    given = {"owner": None, "status": "queued", "queue": "q", **more}
    created = store.commit(Batch(creates=[run_row(id, **given) for id in ids])).created
    return [created[id] for id in ids]


def take(store: Store, limit: int = 100, *, owner: str = "w", **more: Any) -> list[Taken]:
    given: dict[str, Any] = {"queue": "q", "workflows": KNOWN, "dead": (), "at_once": None, **more}
    return store.claim_due(owner, ttl_ms=30_000, limit=limit, **given)


def ids(taken: list[Taken]) -> list[str]:
    return [each.row.id for each in taken]


def asleep(store: Store, run: RunRow, **more: Any) -> set[int]:
    given: dict[str, Any] = {"due_ms": NEVER_MS, "waiting": b"w", "wakes": run.wakes, **more}
    end = Finish(run_no=run.no, epoch=run.epoch, status="waiting", **given)
    return store.commit(Batch(finishes=[end])).fenced


def found(store: Store, id: str) -> RunRow:
    row = store.get(id)
    assert row is not None
    return row


class Queues:
    def test_a_submitted_run_is_taken_once(self, store: Store, clock: Clock) -> None:
        (run,) = submit(store, "a")
        assert (run.status, run.owner, run.queue) == ("queued", None, "q") and store.claims(run.no) == []
        clock.now += 5
        (taken,) = take(store)
        assert taken.before == run and taken.lost is None and taken.row == store.get("a")
        row = taken.row
        assert (row.status, row.owner, row.epoch, row.lease_until_ms) == ("running", "w", 2, clock.now + 30_000)
        assert [(c.epoch, c.owner, c.found) for c in store.claims(run.no)] == [(2, "w", "queued")]
        assert take(store) == [] and store.owners() == ["w"]

    def test_only_its_queue_and_known_workflows(self, store: Store) -> None:
        submit(store, "a")
        submit(store, "b", queue="r")
        submit(store, "c", workflow="unknown")
        assert ids(take(store, queue="r")) == ["b"]
        assert ids(take(store)) == ["a"]
        assert take(store, workflows={}) == []
        assert found(store, "c").status == "queued"

    def test_what_other_code_recorded_is_left_to_others(self, store: Store, clock: Clock) -> None:
        """While a new version is rolled out its workers leave the runs of the old one to the old workers."""
        submit(store, "old", "other", workflow="w", version="1")
        submit(store, "new", workflow="w", version="2")
        submit(store, "python", workflow="w", version="2", python="3.12")
        submit(store, "state", workflow="w", version="2", schema_version=1)
        submit(store, "any", workflow="v", version="1")
        submit(store, "later", workflow="w", version="1", due_ms=5)
        create(store, "lost", queue="q", workflow="w", version="1", owner="dead")
        clock.now += 5
        accepted = {"w": Code("2", "3.11"), "v": None}
        assert ids(take(store, workflows=accepted, dead=["dead"])) == ["new", "any"]
        assert (found(store, "old").status, found(store, "lost").owner) == ("queued", "dead"), "as they were"
        assert take(store, workflows={"w\n2\n3.11": None}) == []
        left = {"w": Code("1", "3.11")}
        assert ids(take(store, workflows=left, dead=["dead"])) == ["old", "other", "later", "lost"]
        assert ids(take(store, workflows={"w": Code("2", "3.11", 1)})) == ["state"]
        assert ids(take(store)) == [] and ids(take(store, workflows={"w": None})) == ["python"]

    def test_priority_then_age(self, store: Store, clock: Clock) -> None:
        submit(store, "old", "older")
        submit(store, "high", priority=5)
        submit(store, "low", priority=-1)
        (late,) = submit(store, "late", due_ms=50, priority=1)
        assert late.due_ms == clock.now + 50
        clock.now += 50
        assert ids(take(store, 2)) == ["high", "late"]
        assert ids(take(store)) == ["old", "older", "low"]

    def test_not_before_its_time(self, store: Store, clock: Clock) -> None:
        submit(store, "a", due_ms=50)
        clock.now += 49
        assert take(store) == []
        clock.now += 1
        assert ids(take(store)) == ["a"]

    def test_what_was_handed_back_is_taken(self, store: Store) -> None:
        for id, status in (("r", "running"), ("d", "done"), ("f", "failed"), ("p", "parked")):
            (run,) = create(store, id, queue="q")
            finish(store, run, status)
        create(store, "live", queue="q")
        assert ids(take(store)) == ["r"]

    def test_a_lost_owner_is_taken_over(self, store: Store, clock: Clock) -> None:
        died, lapsed, lives = (create(store, id, queue="q", owner=id)[0] for id in ("died", "lapsed", "lives"))
        create(store, "strange", queue="q", owner="died", workflow="unknown")
        assert store.owners() == ["died", "lapsed", "lives"]
        clock.now += 30_000
        store.renew("died", ttl_ms=500)
        store.renew("lives", ttl_ms=500)
        taken = take(store, dead=["died"])
        assert [(each.row.id, each.lost, each.row.deaths) for each in taken] == [
            ("died", "died", 1),
            ("lapsed", "lapsed", 1),
        ]
        assert taken[0].before.owner == "died" and claim(store, died) is None and claim(store, lapsed) is None
        assert (found(store, "lives").owner, found(store, "lives").epoch) == ("lives", lives.epoch)

    def test_nobody_takes_over_from_himself(self, store: Store, clock: Clock) -> None:
        """Whoever asks lives: a heartbeat that is late prolongs the lease, unless another was faster."""
        (run,) = create(store, "a", queue="q", owner="w")
        clock.now += 40_000
        assert take(store) == [] and take(store, at_once=1) == []
        assert store.renew("w", ttl_ms=500) == {run.no}
        clock.now += 500
        assert ids(take(store, owner="other")) == ["a"]

    def test_no_more_at_once_than_the_limit(self, store: Store, clock: Clock) -> None:
        submit(store, "a", "b", "c", "d")
        submit(store, "else", queue="r")
        assert ids(take(store, queue="r")) == ["else"]
        assert ids(take(store, at_once=2)) == ["a", "b"]
        assert take(store, at_once=2, owner="w2") == []
        finish(store, found(store, "a"))
        assert ids(take(store, at_once=2, owner="w2")) == ["c"]
        clock.now += 30_000
        assert ids(take(store, 1, owner="w3", at_once=2, dead=["w2"])) == ["b"], "lost ones are no living owners"

    def test_many_workers_never_share_a_run(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(4)]
        submit(stores[0], *(f"r{n}" for n in range(40)))

        def work(number: int) -> list[str]:
            mine: list[str] = []
            for _ in range(40):
                mine += ids(take(stores[number], 3, owner=f"w{number}"))
            return mine

        taken = [id for some in at_once(4, work) for id in some]
        assert sorted(taken) == sorted(f"r{n}" for n in range(40))
        for store in stores:
            store.close()

    def test_many_workers_keep_the_limit(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(4)]
        submit(stores[0], *(f"r{n}" for n in range(20)))
        taken = at_once(4, lambda n: ids(take(stores[n], 3, owner=f"w{n}", at_once=5)))
        more = [ids(take(stores[n], 3, owner=f"w{n}", at_once=5)) for n in range(4)]
        assert sum(map(len, taken + more)) == 5
        for store in stores:
            store.close()

    # -- waiting -------------------------------------------------------------------------------------------

    def test_a_waiting_run_sleeps_until_its_time(self, store: Store, clock: Clock) -> None:
        (run,) = create(store, "a", queue="q")
        assert asleep(store, run, due_ms=clock.now + 100) == set()
        row = found(store, "a")
        assert (row.status, row.owner, row.due_ms, row.waiting) == ("waiting", None, clock.now + 100, b"w")
        assert take(store) == []
        clock.now += 100
        (taken,) = take(store)
        assert taken.before.waiting == b"w"
        assert (taken.row.waiting, taken.row.due_ms, taken.row.status) == (None, 0, "running")

    def test_a_signal_wakes(self, store: Store, clock: Clock) -> None:
        (run,) = create(store, "a", queue="q")
        asleep(store, run)
        clock.now += 3
        row = store.send("a", "approval", b"yes", key=None)
        assert row is not None and row == store.get("a") and row.wakes == 1
        (signal,) = store.signals(run.no)
        assert (signal.n, signal.name, signal.value, signal.key) == (1, "approval", b"yes", None)
        assert signal.sent_ms == clock.now and signal.checksum == signal.compute_checksum()
        assert ids(take(store)) == ["a"]

    def test_a_signal_sent_before_the_sleep_is_not_missed(self, store: Store) -> None:
        (run,) = create(store, "a", queue="q")
        store.send("a", "approval", b"yes", key=None)
        assert found(store, "a").owner == "me", "the owner keeps what it has"
        asleep(store, run)
        assert ids(take(store)) == ["a"]
        taken = found(store, "a")
        asleep(store, taken)
        assert taken.wakes == 1 and take(store) == [], "this one it has seen"

    def test_a_signal_beside_the_sleep_is_not_missed(self, make_store: MakeStore) -> None:
        stores = [make_store(), make_store()]
        for n in range(30):
            (run,) = create(stores[0], f"r{n}", queue="q")
            work = (lambda run=run: asleep(stores[0], run), lambda run=run: stores[1].send(run.id, "s", b"", key=None))
            at_once(2, lambda k, work=work: work[k]())  # type: ignore[misc]
            assert ids(take(stores[0])) == [run.id]
        for store in stores:
            store.close()

    def test_signals_keep_their_order_and_none_is_put_twice(self, store: Store) -> None:
        run, _ = create(store, "a", "b")
        for name, value, key in (("x", b"1", "k"), ("y", b"2", None), ("x", b"3", "k"), ("x", b"4", "m")):
            store.send("a", name, value, key=key)
        store.send("b", "x", b"5", key="k")
        signals = store.signals(run.no)
        assert [(s.name, s.value) for s in signals] == [("x", b"1"), ("y", b"2"), ("x", b"4")]
        assert [s.n for s in signals] == sorted(s.n for s in signals)
        assert store.signals(run.no, after=signals[1].n) == signals[2:]

    def test_many_senders_at_once_lose_nothing(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(4)]
        (run,) = create(stores[0], "a")

        def work(number: int) -> None:
            for k in range(10):
                stores[number].send("a", "x", bytes([number, k]), key=None)
                stores[number].send("a", "y", b"", key=f"k{k}")

        at_once(4, work)
        signals = stores[0].signals(run.no)
        assert sorted(s.value for s in signals if s.name == "x") == [bytes([n, k]) for n in range(4) for k in range(10)]
        assert sorted(s.key or "" for s in signals if s.name == "y") == [f"k{k}" for k in range(10)]
        for store in stores:
            store.close()

    @pytest.mark.parametrize("status", ["done", "cancelled"])
    def test_an_ended_run_takes_no_signal(self, store: Store, status: str) -> None:
        (run,) = create(store, "a")
        finish(store, run, status)
        before = store.get("a")
        assert store.send("a", "x", b"", key=None) == before == store.get("a")
        assert store.signals(run.no) == [] and store.send("none", "x", b"", key=None) is None

    def test_wakes(self, store: Store) -> None:
        a, b = create(store, "a", "b")
        store.send("a", "x", b"", key=None)
        assert store.wakes([a.no, b.no, 99]) == {a.no: 1, b.no: 0}

    def test_statuses(self, store: Store) -> None:
        create(store, "a", "b")
        store.cancel("b")
        others = [f"none-{n}" for n in range(2500)]  # more than a statement takes
        assert store.statuses(["a", *others, "b", "no\0text", "no\udfff"]) == {"a": "running", "b": "cancelled"}
        assert store.statuses([]) == {}

    def test_what_an_owner_waits_for_goes_with_its_lease(self, store: Store) -> None:
        (run,) = create(store, "a", owner="me")
        store.renew("me", ttl_ms=500, waiting={run.no: b"x"})
        assert (found(store, "a").status, found(store, "a").waiting) == ("waiting", b"x")
        assert [row.id for row in store.runs(status="waiting", workflow=None, limit=9, after=None)] == ["a"]
        store.renew("you", ttl_ms=500, waiting={run.no: None})
        assert found(store, "a").status == "waiting"
        store.renew("me", ttl_ms=500, waiting={run.no: None})
        assert (found(store, "a").status, found(store, "a").waiting) == ("running", None)

    # -- children ------------------------------------------------------------------------------------------

    def test_the_end_of_a_child_wakes_its_parent(self, store: Store) -> None:
        (parent,) = create(store, "p", queue="q")
        one, _, three = create(store, "one", "two", "three", parent_no=parent.no)
        asleep(store, parent)
        finish(store, one, parent_no=parent.no)
        (taken,) = take(store)
        assert (taken.row.id, taken.row.wakes) == ("p", 1)
        asleep(store, taken.row)
        assert take(store) == []
        store.cancel("two")
        assert ids(take(store)) == ["p"]
        finish(store, three, "failed", parent_no=parent.no)
        asleep(store, found(store, "p"), wakes=2)
        assert ids(take(store)) == ["p"]

    def test_cancelling_reaches_the_children(self, store: Store) -> None:
        (top,) = create(store, "top")
        (child,) = create(store, "child", parent_no=top.no)
        (done,) = create(store, "done", parent_no=top.no)
        finish(store, done, result=b"r")
        (grand,) = submit(store, "grand", parent_no=child.no)
        (failed,) = create(store, "failed", parent_no=top.no)
        create(store, "below", parent_no=failed.no)
        finish(store, failed, "failed")
        create(store, "stranger")
        store.cancel("top")
        assert {
            id: found(store, id).status for id in ("top", "child", "done", "grand", "failed", "below", "stranger")
        } == {
            "top": "cancelled",
            "child": "cancelled",
            "done": "done",
            "grand": "cancelled",
            "failed": "failed",
            "below": "cancelled",
            "stranger": "running",
        }
        assert found(store, "child").epoch == child.epoch + 1 and found(store, "grand").epoch == grand.epoch + 1

    def test_a_child_of_a_cancelled_run_is_cancelled(self, store: Store) -> None:
        """It was on its way to the store when its parent was cancelled."""
        (top,) = create(store, "top")
        store.cancel("top")
        (child, other), (stranger,) = create(store, "child", "other", parent_no=top.no), create(store, "stranger")
        for id, row in (("child", child), ("other", other)):
            assert (row.status, row.owner, row.epoch) == ("cancelled", None, 2)
            assert found(store, id) == row
        assert stranger.status == "running"

    # -- listening -----------------------------------------------------------------------------------------

    def test_who_listens_hears_of_a_new_run(self, make_store: MakeStore) -> None:
        stores = [make_store(), make_store()]
        submit(stores[0], "before")
        stores[1].listen(0.01)

        def work(number: int) -> float:
            began = time.monotonic()
            if number == 0:
                stores[1].listen(20)
            else:
                time.sleep(0.1)  # whoever listens is to be listening; were it not yet, it would hear all the same
                for n in range(100):
                    if submit(stores[0], f"r{n}"):
                        time.sleep(0.02)
            return time.monotonic() - began

        heard, _ = at_once(2, work)
        assert heard < 15
        for store in stores:
            store.close()

    def test_who_listens_in_vain_goes_on(self, store: Store) -> None:
        create(store, "a")
        store.listen(0.02)
