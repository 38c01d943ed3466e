"""Bugs planted in maps and loops: who is known by what, what is begun when, what stands for what."""

from __future__ import annotations

from .plant import Plant

_MAP = "tests/scopes/test_map.py::"

PLANTED = [
    Plant(
        "an item of a map is known by its position",
        "src/holdfast/mapped.py",
        "items.append(_Item(position, known_by, len(same), value))",
        "items.append(_Item(position, str(position), len(same), value))",
        [_MAP + "test_an_item_that_is_added_shifts_nothing"],
    ),
    Plant(
        "a map waits for what is recorded of items that are gone",
        "src/holdfast/recall.py",
        "                return (row.key, row.n) in ids\n",
        "                return True\n",
        [_MAP + "test_an_item_that_is_removed_shifts_nothing_and_is_not_waited_for"],
    ),
    Plant(
        "after a failure a map goes on to the next items",
        "src/holdfast/mapped.py",
        "                if self._failed:\n                    break",
        "                if not self._items:\n                    break",
        [_MAP + "test_after_a_failure_nothing_begins_and_what_is_in_flight_is_finished"],
    ),
    Plant(
        "of several items that failed only the first is tried anew",
        "src/holdfast/failure.py",
        'return [] if seq is None else [seq, *getattr(error, "beside", ())]',
        "return [] if seq is None else [seq]",
        [_MAP + "test_all_failures_are_tried_anew_at_once"],
    ),
    Plant(
        "an item of a map sees what the items before it have changed",
        "src/holdfast/views.py",
        "return self.anew()  # others are under way, or may be",
        "return self._around.begin(alone=alone)",
        [_MAP + "test_items_begin_with_the_state_as_it_was_when_the_map_began"],
    ),
]
