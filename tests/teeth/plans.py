"""Planted bugs in plans, forks, and what is told of records that do not fit."""

from __future__ import annotations

from .plant import Plant

_PLANS = "tests/planning/test_plans.py::"
_FORKS = "tests/api/test_forks.py::"
_SUITE = "tests/store/test_store_suite.py::"
_MEMORY, _SQLITE = (f"{_SUITE}Test{kind}::" for kind in ("Memory", "SQLite"))

PLANTED = [
    Plant(
        "what a salvage would leave unused is not listed",
        "src/holdfast/planning.py",
        "            if run.pool is not None:",
        "            if False:",
        ["tests/planning/test_plans.py::test_other_code_makes_of_a_run_what_its_on_change_says"],
    ),
    Plant(
        "a plan executes the first step that is not recorded",
        "src/holdfast/calls.py",
        '    if run.rehearsal is not None and definition.kind == "step":\n',
        '    if run.rehearsal is not None and definition.kind == "step" and run.recalled == 0:\n',
        [_PLANS + "test_what_would_run_is_told_with_its_inputs_and_line"],
    ),
    Plant(
        "a plan begins the waits it comes to",
        "src/holdfast/waiting.py",
        "        if run.rehearsal is not None:\n",
        '        if run.rehearsal is not None and self.kind != "sleep":\n',
        [_PLANS + "test_waits_without_outcome_would_be_waited"],
    ),
    Plant(
        "a time limit of the program's ends the rest of a call that nobody executes",
        "src/holdfast/rehearsal.py",
        "                if self._run.is_leaving:\n                    raise\n",
        "                raise\n",
        [_PLANS + "test_a_time_limit_around_what_would_run_says_nothing_of_what_comes_behind"],
    ),
    Plant(
        "a plan takes a timer of the program's for rest",
        "src/holdfast/rehearsal.py",
        '_LIMITS = frozenset({"_on_timeout", "_release_waiter"})',
        '_LIMITS = frozenset({"_on_timeout", "_release_waiter", "_set_result_unless_cancelled"})',
        [_PLANS + "test_code_between_steps_that_takes_its_time_is_waited_for"],
    ),
    Plant(
        "what a plan's code submits is submitted",
        "src/holdfast/planning.py",
        "        if batch.appends or batch.finishes or not known:\n",
        "        if not known:\n            return self._store.commit(batch)\n"
        "        if batch.appends or batch.finishes:\n",
        [_PLANS + "test_code_that_would_change_another_run_changes_nothing[submit]"],
    ),
    Plant(
        "a record is unclaimed as soon as a branch rests before it",
        "src/holdfast/recall.py",
        "                (passed if reached > row.seq else ahead).append(row)\n",
        "                (passed if reached >= 0 else ahead).append(row)\n",
        [_PLANS + "test_an_inserted_step_would_run_and_what_comes_behind_it_may_be_asked_for"],
    ),
    Plant(
        "what a finished run never asked for is in the log only",
        "src/holdfast/run.py",
        "        row.result = encode_unclaimed(unclaimed) if unclaimed else None\n",
        "        row.result = None\n",
        ["tests/api/test_unclaimed.py::test_they_are_told_in_the_log_and_in_show"],
    ),
    Plant(
        "a fork shares one row more than it says",
        "src/holdfast/store/queries.sql",
        "seq <= :until\nORDER BY seq LIMIT :limit",
        "seq <= :until + 1\nORDER BY seq LIMIT :limit",
        [_SQLITE + "test_a_fork_has_the_rows_up_to_the_one_named"],
    ),
    Plant(
        "a fork counts its rows on from the epochs of its source",
        "src/holdfast/store/protocol.py",
        "epoch=row.epoch - last_epoch)",
        "epoch=row.epoch)",
        [_MEMORY + "test_its_own_epochs_count_from_one_and_the_shared_ones_down_from_zero"],
    ),
    Plant(
        "a fork launders a damaged row",
        "src/holdfast/store/protocol.py",
        "    copy.checksum = copy.compute_checksum() ^ row.compute_checksum() ^ row.checksum\n",
        "    copy.checksum = copy.compute_checksum()\n",
        [_MEMORY + "test_a_fork_is_as_damaged_as_what_it_is_a_fork_of"],
    ),
    Plant(
        "a fork's signals are numbered from the beginning",
        "src/holdfast/forks.py",
        "        wakes=row.wakes,",
        "        wakes=0,",
        [_FORKS + "test_a_signal_taken_before_stays_taken_and_the_mailbox_is_the_forks_own"],
    ),
    Plant(
        "True is taken for 1 when it is told what differs",
        "src/holdfast/diverging.py",
        "    elif recorded == now and type(recorded) is type(now):\n",
        "    elif recorded == now:\n",
        ["tests/order/test_diverged.py::test_only_what_differs_is_told"],
    ),
    Plant(
        "the line of a call that is left to gather is not looked for",
        "src/holdfast/whereabouts.py",
        "    return _line_in(_running(frame)) or _line_in(_paused(frame.task))\n",
        "    return _line_in(_running(frame))\n",
        ["tests/order/test_diverged.py::test_of_a_call_left_to_gather_the_line_is_told_where_its_code_waits"],
    ),
]
