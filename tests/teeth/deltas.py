"""Bugs planted in what makes the state incremental: views, edits, and values written whole."""

from __future__ import annotations

from .plant import Plant

DELTA = "tests/test_delta.py::"
REPLAY = "tests/state/test_replay.py::"
INCREMENTAL = "tests/state/test_incremental.py::"
VIEWS = "src/holdfast/views.py"

PLANTED = [
    Plant(
        "a step is handed the value that others see",
        VIEWS,
        "        value = values[key] = delta.copy_of_recorded(value)\n",
        "        values[key] = value\n",
        [INCREMENTAL + "test_what_nobody_touches_is_neither_copied_nor_compared"],
    ),
    Plant(
        "a touch of one key copies the state",
        VIEWS,
        "            self._values = dict(self._base)\n        return self._values\n\n    def _perform",
        "            self._values = delta.copy(self._base)\n        return self._values\n\n    def _perform",
        [INCREMENTAL + "test_what_nobody_touches_is_neither_copied_nor_compared"],
    ),
    Plant(
        "a change in place is seen only when the key is set",
        VIEWS,
        "        self._own.add(key)\n        self._changed[key] = None\n        return value",
        "        self._own.add(key)\n        return value",
        [REPLAY + "test_what_a_reader_arrives_at_is_the_live_state"],
    ),
    Plant(
        "what a step put where a number was is handed out as it is",
        VIEWS,
        "        self._own.discard(key)\n        self._changed.pop(key, None)\n",
        "        self._changed.pop(key, None)\n",
        [REPLAY + "test_what_a_reader_arrives_at_is_the_live_state"],
    ),
    Plant(
        "hunks are made from the first to the last",
        "src/holdfast/delta/applying.py",
        "    for hunk in reversed(step[1]):\n",
        "    for hunk in step[1]:\n",
        [DELTA + "test_an_edit_inside_of_a_list_is_as_big_as_what_changed"],
    ),
    Plant(
        "an edit does not look at what overlapped with it",
        "src/holdfast/delta/applying.py",
        "        if before != guard[1]:\n",
        "        if False:\n",
        [DELTA + "test_which_form_a_change_is_written_in_is_no_part_of_what_it_means"],
    ),
    Plant(
        "no value is written whole again",
        "src/holdfast/weights.py",
        "SLACK = 1.25 ",
        "SLACK = 1e9 ",
        [INCREMENTAL + "test_a_value_is_written_whole_again_when_its_changes_outweigh_it"],
    ),
    Plant(
        "a session that is opened anew forgets how much was written",
        "src/holdfast/session.py",
        "BodyView(saved.state, [], saved.weights)",
        "BodyView(saved.state, [])",
        [INCREMENTAL + "test_a_session_is_written_whole_though_it_is_opened_for_each_save"],
    ),
    Plant(
        "the digest of a whole value is not checked",
        "src/holdfast/state.py",
        "            if delta.digest(value, key) != told:\n",
        "            if False:\n",
        [INCREMENTAL + "test_a_value_that_is_not_what_it_was_is_named_by_run_key_and_seq"],
    ),
]
