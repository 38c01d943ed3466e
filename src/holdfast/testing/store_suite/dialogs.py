"""The suite on dialogs: events in the order of writing, each after the last; keys that nobody loses; no trace left."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from holdfast.errors import CodecError
from holdfast.store import Dialog, DialogEvent, Extension, SharedKey, Store, owner_of

from .rows import MakeStore, at_once


def dialog(id: str = "s", *, app: str = "loans", user_id: str = "u", at: float = 1.5) -> Dialog:
    """A dialog as it is given to be opened."""
    row = Dialog(app=app, user_id=user_id, id=id, at=at)
    row.checksum = row.compute_checksum()
    return row


def shared_key(owner: str, key: str, value: bytes = b"1") -> SharedKey:
    row = SharedKey(owner, key, value)
    row.checksum = row.compute_checksum()
    return row


def opened(store: Store, *ids: str, app: str = "loans", user_id: str = "u") -> list[Dialog]:
    rows = [dialog(id, app=app, user_id=user_id) for id in ids]
    for row in rows:
        no = store.open_dialog(row, [])
        assert no is not None
        row.no = no
    return rows


def extension(
    last: Dialog, *keys: SharedKey, data: bytes = b"said", turn: str = "t", at: float | None = None, seq: int = 0
) -> Extension:
    """What adds an event to a dialog whose row as it is now is ``last``."""
    event = DialogEvent(last.no, seq or last.seq + 1, turn, last.at + 1 if at is None else at, data)
    event.checksum = event.compute_checksum(last.owner)
    row = replace(last, seq=event.seq, at=event.at, turns=b"turns %d" % event.seq)
    row.checksum = row.compute_checksum()
    return Extension(dialog=row, event=event, shared=list(keys))


def talk(store: Store, row: Dialog, count: int) -> Dialog:
    """Add so many events, one after the other; the row as it is then."""
    for _ in range(count):
        next_one = extension(row)
        assert store.extend([next_one]) == [True]
        row = next_one.dialog
    return row


def events(store: Store, row: Dialog) -> list[DialogEvent]:
    return store.dialog_events(row.no, until=2**31)


class Talking:
    """Dialogs: opened once, extended by whoever knows the last event, read at one moment, deleted whole."""

    def test_a_dialog_is_opened_once_with_its_keys(self, store: Store) -> None:
        assert store.dialog("loans", "u", "s") is None
        own, app = shared_key(dialog().owner, "step", b"null"), shared_key(owner_of("loans"), "rate", b"0.5")
        no = store.open_dialog(dialog(), [own, app])
        assert no
        found = store.dialog("loans", "u", "s")
        assert found is not None
        assert found.dialog == replace(dialog(), no=no)
        assert found.shared == sorted([app, own], key=lambda row: row.owner)
        late = shared_key(owner_of("loans"), "rate", b"9")
        assert store.open_dialog(dialog(at=7), [late]) is None, "and nothing of it was written"
        assert store.dialog("loans", "u", "s") == found
        for app_name, user, id in (("loans", "u", "S"), ("loans", "v", "s"), ("other", "u", "s"), ("a\0", "u", "s")):
            assert store.dialog(app_name, user, id) is None

    def test_who_opens_at_once_opens_one(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(4)]
        stores[0].dialog("loans", "u", "s")
        made = at_once(4, lambda n: stores[n].open_dialog(dialog(), [shared_key(owner_of("loans"), "k", b"%d" % n)]))
        (winner,) = [n for n, no in enumerate(made) if no is not None]
        assert [row.value for row in stores[0].shared([owner_of("loans")])] == [b"%d" % winner]
        for each in stores:
            each.close()

    def test_an_event_comes_with_what_it_sets(self, store: Store) -> None:
        (row,) = opened(store, "s")
        first = extension(row, shared_key(row.owner, "a"), shared_key(owner_of("loans", "u"), "name", b'"x"'))
        assert store.extend([first]) == [True]
        second = extension(first.dialog, shared_key(row.owner, "a", b"2"), data=b"", turn="", at=-3.25)
        assert store.extend([second]) == [True]
        assert events(store, row) == [first.event, second.event]
        found = store.dialog("loans", "u", "s")
        assert found is not None and found.dialog == second.dialog
        assert [(key.key, key.value) for key in found.shared] == [("a", b"2"), ("name", b'"x"')]
        assert store.extend([]) == []

    def test_who_is_not_at_the_last_event_adds_nothing(self, store: Store) -> None:
        (row,) = opened(store, "s")
        mine, other = extension(row, shared_key("o", "mine")), extension(row, shared_key("o", "other"), data=b"other")
        assert store.extend([other]) == [True]
        assert store.extend([mine]) == [False]
        assert store.extend([extension(replace(row, seq=4))]) == [False], "nor may there be a gap"
        assert events(store, row) == [other.event]
        assert [key.key for key in store.shared(["o"])] == ["other"]
        assert store.extend([other]) == [True], "sent again it stands already"
        assert events(store, row) == [other.event]
        later = extension(other.dialog)
        assert store.extend([later]) == [True]
        assert store.extend([other]) == [True], "also when others came after it"
        found = store.dialog("loans", "u", "s")
        assert found is not None and found.dialog == later.dialog
        assert store.extend([extension(replace(row, no=99))]) == [False]

    @pytest.mark.parametrize("size", [1, 2, 17, 300])
    def test_many_dialogs_are_extended_at_once(self, store: Store, size: int) -> None:
        rows = opened(store, *(f"d{n}" for n in range(size)))
        both = owner_of("loans", "u")
        given = [
            extension(row, shared_key(both, f"k{n}"), shared_key(both, "same", b"%d" % n)) for n, row in enumerate(rows)
        ]
        stale = extension(rows[0], shared_key(both, "stale"), data=b"stale")
        assert store.extend([*given, stale]) == [True] * size + [False]
        assert [events(store, row) for row in rows] == [[each.event] for each in given]
        kept = {key.key: key.value for key in store.shared([both])}
        assert kept == {**{f"k{n}": b"1" for n in range(size)}, "same": b"%d" % (size - 1)}, "the later one counts"

    def test_of_what_is_refused_for_its_place_no_key_counts(self, store: Store) -> None:
        """Not even where it comes last in a batch, behind one that sets the same key."""
        first, second = opened(store, "a", "b")
        talk(store, second, 1)
        given = [
            extension(first, shared_key("o", "k", b"good")),
            extension(second, shared_key("o", "k"), data=b"stale"),
        ]
        assert store.extend(given) == [True, False]
        assert [key.value for key in store.shared(["o"])] == [b"good"]

    def test_a_dialog_twice_in_a_batch_goes_in_turn(self, store: Store) -> None:
        row, other = opened(store, "a", "b")
        first = extension(row)
        second = extension(first.dialog)
        assert store.extend([first, extension(other), second, extension(first.dialog, data=b"stale")]) == [
            True,
            True,
            True,
            False,
        ]
        assert [event.seq for event in events(store, row)] == [1, 2]

    @pytest.mark.parametrize("writers", [2, 5])
    def test_of_those_who_extend_at_once_one_does(self, make_store: MakeStore, writers: int) -> None:
        stores = [make_store() for _ in range(writers)]
        (row,) = opened(stores[0], "s")
        for seq in range(1, 11):
            given = [extension(row, shared_key("o", f"{seq} {n}"), data=b"%d" % n) for n in range(writers)]
            told = at_once(writers, lambda n, given=given: stores[n].extend([given[n]]))  # type: ignore[misc]
            (winner,) = [n for n, (verdict,) in enumerate(told) if verdict is True]
            assert events(stores[0], row)[-1].data == b"%d" % winner
            row = given[winner].dialog
        assert len(events(stores[0], row)) == 10 == len(stores[0].shared(["o"]))
        for each in stores:
            each.close()

    def test_keys_that_are_set_at_once_are_all_kept(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(4)]
        rows = opened(stores[0], *(f"d{n}" for n in range(12)))
        user, seed = owner_of("loans", "u"), random.randrange(2**32)

        def work(n: int) -> None:
            mine, order = rows[n::4], random.Random(seed + n)
            for turn in range(10):
                keys = [[shared_key(user, f"{row.id} {turn}"), shared_key(user, "all", b"%d" % n)] for row in mine]
                for each in keys:
                    order.shuffle(each)
                given = [extension(row, *keys[k]) for k, row in enumerate(mine)]
                order.shuffle(given)
                assert stores[n].extend(given) == [True] * len(given), f"seed {seed}"
                by_no = {each.dialog.no: each.dialog for each in given}
                mine = [by_no[row.no] for row in mine]

        at_once(4, work)
        assert len(stores[0].shared([user])) == 121, f"seed {seed}"
        for each in stores:
            each.close()

    def test_what_cannot_be_held_is_refused_alone(self, store: Store) -> None:
        rows = opened(store, *(f"d{n}" for n in range(5)))
        given = [extension(row) for row in rows]
        given[3] = extension(rows[3], shared_key("o", "k"))
        given[3].event.checksum = 2**63
        told = store.extend(given)
        assert [verdict if isinstance(verdict, bool) else type(verdict) for verdict in told] == [
            True,
            True,
            True,
            CodecError,
            True,
        ]
        assert events(store, rows[3]) == [] == store.shared(["o"])

    def test_events_are_read_by_place_turn_and_time(self, store: Store) -> None:
        row, other = opened(store, "s", "other")
        talk(store, other, 3)
        for n in range(10):
            given = extension(row, turn="ab"[n // 3 % 2], at=float(n // 2), data=b"%d" % n)
            assert store.extend([given]) == [True]
            row = given.dialog

        def seqs(after: int, until: int, turn: str | None = None) -> list[int]:
            return [event.seq for event in store.dialog_events(row.no, after=after, until=until, turn=turn)]

        assert seqs(0, 10) == list(range(1, 11)) and seqs(0, 4) == [1, 2, 3, 4] and seqs(8, 99) == [9, 10]
        assert seqs(0, 10, "b") == [4, 5, 6, 10] and seqs(4, 9, "b") == [5, 6] and seqs(0, 10, "c") == []
        assert [store.last_before(row.no, at, until=10) for at in (-1.0, 0.0, 0.5, 2.0, 9.0)] == [0, 0, 2, 4, 10]
        assert store.last_before(row.no, 9.0, until=3) == 3
        assert store.dialog_events(99, until=9) == [] and store.last_before(99, 1.0, until=9) == 0

    def test_dialogs_are_listed_in_pages(self, store: Store) -> None:
        for user in ("v", "U", "ü", "u"):
            opened(store, "a", "B", "c", user_id=user)
        opened(store, "a", app="other")
        listed: list[tuple[str, str]] = []
        while page := store.dialogs("loans", None, after=listed[-1] if listed else ("", ""), limit=5):
            assert len(page) <= 5
            listed += [(row.user_id, row.id) for row in page]
        assert listed == [(user, id) for user in ("U", "u", "v", "ü") for id in ("B", "a", "c")]
        assert [row.id for row in store.dialogs("loans", "u", limit=2)] == ["B", "a"]
        assert [row.id for row in store.dialogs("loans", "u", after=("u", "a"), limit=2)] == ["c"]
        assert store.dialogs("loans", "nobody", limit=9) == [] == store.dialogs("none", None, limit=9)

    def test_keys_are_found_by_owner(self, store: Store) -> None:
        owners = [owner_of("a"), owner_of("a", "b"), owner_of('a","b'), owner_of("a\0", "\ud800")]
        store.open_dialog(dialog(), [shared_key(owner, f"k{n}") for n, owner in enumerate(owners)])
        for n, owner in enumerate(owners):
            assert [key.key for key in store.shared([owner])] == [f"k{n}"]
        assert len(store.shared([*owners, *owners, "nobody"])) == 4 and store.shared([]) == []

    def test_a_deleted_dialog_leaves_nothing(self, store: Store) -> None:
        assert not store.delete_dialog("loans", "u", "s")
        row, other = opened(store, "s", "other")
        last = extension(row, shared_key(row.owner, "own"), shared_key(owner_of("loans", "u"), "users"))
        assert store.extend([last, extension(other)]) == [True, True]
        assert store.delete_dialog("loans", "u", "s") and not store.delete_dialog("loans", "u", "s")
        assert store.dialog("loans", "u", "s") is None and events(store, row) == []
        assert store.shared([row.owner]) == [] and len(store.shared([owner_of("loans", "u")])) == 1
        assert len(events(store, other)) == 1
        (again,) = opened(store, "s")
        assert again.no != row.no, "a number is never given out again"
        assert store.extend([extension(last.dialog)]) == [False] and events(store, again) == []

    def test_dialogs_outlive_their_store(self, make_store: MakeStore) -> None:
        store = make_store()
        (row,) = opened(store, "s")
        row = talk(store, row, 3)
        store.close()
        found = make_store().dialog("loans", "u", "s")
        assert found is not None and found.dialog == row and len(events(store, row)) == 3
        store.close()
