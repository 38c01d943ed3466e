"""One watcher, look by look, on rows that the test commits: no clock, no threads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast import Checkpoint, Emitted, Event, Progress, Skipped, codec
from holdfast.news import CHUNK_MAX_BYTES, KEPT_BYTES, WAITING_MAX_BYTES, Bulletin, Told, encode_chunk, told_in
from holdfast.store import Store, open_store
from holdfast.testing.store_suite import append, checkpoint, claim, create, finish, news
from holdfast.watching import Watcher


@pytest.fixture
def store() -> Store:
    return open_store("memory://")


def tell(store: Store, run_no: int, n: int, *chunks: tuple[int, str], epoch: int = 1) -> None:
    """Chunks, each after the checkpoint of this number; ``n`` is the number of the last."""
    told = [Told(after, "talk", "talk#0", 1, encode_chunk(chunk)) for after, chunk in chunks]
    data = codec.seal(msgspec.msgpack.encode(told), run_no, epoch, n, len(told))
    store.tell([news(run_no, n, epoch=epoch, count=len(told), data=data)])


def words(events: list[Event]) -> list[object]:
    return [
        event.seq
        if isinstance(event, Checkpoint)
        else event.chunk
        if isinstance(event, Emitted)
        else f"skipped {event.count}"
        if isinstance(event, Skipped)
        else event
        for event in events
    ]


def test_looks_tell_each_thing_once(store: Store) -> None:
    (run,) = create(store, "a")
    watcher = Watcher(store, "a", 0)
    assert words(watcher.look()) == []
    tell(store, run.no, 2, (0, "x"), (0, "y"))
    append(store, checkpoint(run.no, 1))
    assert words(watcher.look()) == ["x", "y", 1]
    assert words(watcher.look()) == []
    tell(store, run.no, 3, (1, "z"))
    append(store, checkpoint(run.no, 2), checkpoint(run.no, 3))
    assert words(watcher.look()) == ["z", 2, 3] and not watcher.ended
    finish(store, run)
    assert words(watcher.look()) == [] and watcher.ended


def test_news_wait_for_the_checkpoint_they_came_after(store: Store) -> None:
    (run,) = create(store, "a")
    watcher = Watcher(store, "a", 0)
    tell(store, run.no, 3, (0, "x"), (1, "y"), (2, "z"))
    assert words(watcher.look()) == ["x"]
    append(store, checkpoint(run.no, 1))
    assert words(watcher.look()) == [1, "y"]
    append(store, checkpoint(run.no, 2))
    assert words(watcher.look()) == [2, "z"]


def test_news_after_a_checkpoint_that_never_came_are_void(store: Store) -> None:
    """The owner told, and died before its checkpoint 2 was committed; the next owner's is another one."""
    (run,) = create(store, "a")
    watcher = Watcher(store, "a", 0)
    append(store, checkpoint(run.no, 1))
    tell(store, run.no, 2, (1, "kept"), (2, "void"))
    assert words(watcher.look()) == [1, "kept"]
    claim(store, run)
    tell(store, run.no, 1, (1, "again"), epoch=2)
    append(store, checkpoint(run.no, 2, epoch=2))
    assert words(watcher.look()) == ["again", 2]
    assert words(Watcher(store, "a", 0).look()) == [1, "kept", "again", 2]


def test_who_fell_behind_is_told_how_far(store: Store) -> None:
    (run,) = create(store, "a")
    watcher = Watcher(store, "a", 0)
    tell(store, run.no, 5, (0, "five"))
    assert words(watcher.look()) == ["five"], "it came in the middle, so it missed nothing it was there for"
    tell(store, run.no, 9, (0, "eight"), (0, "nine"))
    assert words(watcher.look()) == ["skipped 2", "eight", "nine"]
    claim(store, run)
    tell(store, run.no, 3, (0, "three"), epoch=2)
    assert words(watcher.look()) == ["skipped 2", "three"]
    numbered = [(event.epoch, event.number) for event in Watcher(store, "a", 0).look() if isinstance(event, Emitted)]
    assert numbered == [(1, 5), (1, 8), (1, 9), (2, 3)]


def test_who_was_there_from_the_start_is_told_what_it_missed(store: Store) -> None:
    (run,) = create(store, "a")
    watcher = Watcher(store, "a", 0)
    watcher.look()
    tell(store, run.no, 5, (0, "five"))
    assert words(watcher.look()) == ["skipped 4", "five"]


def test_an_end_is_seen_with_everything_before_it(store: Store) -> None:
    """The run ends while a watcher looks: it looks once more."""
    (run,) = create(store, "a")

    class Ending:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def news(self, run_no: int, *, epoch: int, n: int) -> Any:
            found = store.news(run_no, epoch=epoch, n=n)
            if append(store, checkpoint(run_no, 1)) == set():
                finish(store, run)
            return found

    watcher = Watcher(Ending(), "a", 0)  # type: ignore[arg-type]
    assert words(watcher.look()) == [] and not watcher.ended
    assert words(watcher.look()) == [1] and watcher.ended


def test_news_from_before_are_left_out(store: Store) -> None:
    (run,) = create(store, "a")
    tell(store, run.no, 1, (0, "before"))
    append(store, checkpoint(run.no, 1))
    tell(store, run.no, 2, (1, "after"))
    assert words(Watcher(store, "a", 1).look()) == ["after"]


def test_news_that_cannot_be_read_are_none(store: Store) -> None:
    (run,) = create(store, "a")
    store.tell([news(run.no, 1, data=b"\xc1")])
    assert words(Watcher(store, "a", 0).look()) == []


# -- what is gathered ----------------------------------------------------------------------------------------


def told(said: Any, place: str = "talk#0") -> Told:
    return Told(0, "talk", place, 1, said)


def test_of_a_bar_only_the_last_state_is_kept_and_it_keeps_its_turn() -> None:
    bulletin = Bulletin(1, 1)
    assert bulletin.add(told((1, 9))), "the first one"
    said = [b"a", (2, 9), b"b", (3, 9)]
    assert not any(bulletin.add(told(each)) for each in said)
    bulletin.add(told((1, 5), place="other#0"))
    row = bulletin.take()
    assert [each.said for each in told_in(row)] == [b"a", b"b", (3, 9), (1, 5)]
    assert (row.n, row.count) == (4, 4)
    assert bulletin.add(told(b"c"))
    assert bulletin.take().n == 5


def test_what_waits_is_bounded_and_what_was_dropped_is_counted() -> None:
    bulletin = Bulletin(1, 1)
    chunk = bytes(CHUNK_MAX_BYTES)
    for _ in range(200):
        bulletin.add(told(chunk))
    row = bulletin.take()
    assert row.n == 200 and WAITING_MAX_BYTES / 2 < len(row.data) <= WAITING_MAX_BYTES
    assert row.count == len(told_in(row)) < 200


@pytest.mark.parametrize("chunks", [1, 60])
def test_what_is_kept_is_bounded(store: Store, chunks: int) -> None:
    """Of small rows and of the biggest."""
    (run,) = create(store, "a")
    bulletin = Bulletin(run.no, 1)
    most = 0
    for _ in range(1000 // chunks):
        for _ in range(chunks):
            bulletin.add(told(bytes(CHUNK_MAX_BYTES)))
        store.tell([bulletin.take()])
        kept = sum(len(row.data) for row in store.news(run.no))
        most = max(most, kept)
    assert KEPT_BYTES <= kept <= most < 10 << 20
    assert store.news(run.no)[-1].n == 1000 // chunks * chunks


def test_progress_is_told_with_its_numbers(store: Store) -> None:
    (run,) = create(store, "a")
    bulletin = Bulletin(run.no, 1)
    bulletin.add(told((1, 2.5)))
    store.tell([bulletin.take()])
    assert Watcher(store, "a", 0).look() == [Progress("talk", "talk#0", 1, 2.5, after=0, attempt=1, epoch=1, number=1)]
