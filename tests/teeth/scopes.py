"""Bugs planted in maps and loops: who is known by what, what is begun when, what stands for what."""

from __future__ import annotations

from .plant import Plant

_MAP = "tests/scopes/test_map.py::"
_EACH = "tests/scopes/test_each.py::"
_ATTACKED = "tests/scopes/test_attacked.py::"

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
    Plant(
        "a loop goes on by the number of its turns, whatever has become of its items",
        "src/holdfast/turns.py",
        "        if came_to == self._keys:",
        "        if len(first) == self._turns:",
        [_EACH + "test_with_keys_other_items_shift_nothing"],
    ),
    Plant(
        "the rows of finished turns stay live",
        "src/holdfast/turns.py",
        "        self.frame.run.folding.fold(folded)\n",
        "",
        [_EACH + "test_a_resume_reads_a_handful_of_rows_however_many_turns_there_were"],
    ),
    Plant(
        "turns are folded that have changed the state since the whole change was told",
        "src/holdfast/turns.py",
        "    return row.delta is not None and (row.seq > whole or",
        "    return row.delta is not None and (row.seq > whole + 2 or",
        [_EACH + "test_state_that_grows_is_what_it_was"],
    ),
    Plant(
        "what the body changed before the loop is folded with its first turn",
        "src/holdfast/turns.py",
        "bool(decode_change(row).body))",
        "False)",
        [_EACH + "test_state_that_grows_is_what_it_was"],
    ),
    Plant(
        "a loop that others run beside tells its whole change at once",
        "src/holdfast/turns.py",
        "        self._alone = self._alone and self._is_alone\n",
        "",
        [_EACH + "test_loops_side_by_side_leave_the_state_in_the_recorded_order"],
    ),
    Plant(
        "a turn may grow a list from before the loop",
        "src/holdfast/watched.py",
        'return name, "changed", held',
        "continue",
        [_EACH + "test_a_local_from_before_the_loop_must_not_change"],
    ),
    Plant(
        "a turn may leave a task behind",
        "src/holdfast/turns.py",
        "        self._refuse_left(scope)\n",
        "",
        [_EACH + "test_a_task_must_end_in_its_turn"],
    ),
    Plant(
        "code behind a loop that was left is still in its turn",
        "src/holdfast/turns.py",
        "            if branches.frame_of(self._task) is turn.frame:",
        "            if False:",
        [_EACH + "test_behind_the_loop_the_scope_is_the_one_before_it"],
    ),
    Plant(
        "a row that is missing is taken for folded",
        "src/holdfast/folding.py",
        "            return rows, False\n",
        "            return rows, True\n",
        ["tests/crash/test_promises.py::test_a_step_whose_row_is_out_of_place_is_not_executed_again"],
    ),
    Plant(
        "what an attempt left in a turn stays live when the turn is finished",
        "src/holdfast/folding.py",
        "self._left[scope] = self._open.pop(scope, [])",
        "self._open.pop(scope, [])",
        [_ATTACKED + "test_what_an_attempt_left_in_a_turn_is_folded_with_it"],
    ),
    Plant(
        "a finished turn stands for payments it went past",
        "src/holdfast/turns.py",
        "inside = run.records.without_unmet(run.folding.close(scope))",
        "inside = run.folding.close(scope)",
        [_ATTACKED + "test_a_finished_turn_does_not_stand_for_a_payment_that_it_never_asked_for"],
    ),
    Plant(
        "the row of a turn does not tell of payments",
        "src/holdfast/turns.py",
        "state, once=self._once)",
        "state)",
        [_ATTACKED + "test_payments_in_turns_nobody_asks_for_stop_the_next_payment"],
    ),
    Plant(
        "after a turn that could not be recorded the program goes on",
        "src/holdfast/turns.py",
        "raise run.poison(unfit) from None",
        "raise",
        [_ATTACKED + "test_a_turn_that_cannot_be_recorded_loses_none_before_it"],
    ),
]
