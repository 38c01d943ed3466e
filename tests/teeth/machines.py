"""Planted bugs in what is done when machines, servers and the network between them fail."""

from __future__ import annotations

from .plant import Plant

_LOST = "tests/faults/test_lost_answers.py::"
_SERVERS = "tests/faults/test_servers_lost.py::"
_CLOCKS = "tests/faults/test_clocks.py::"
_SUITE = "tests/store/test_store_suite.py::"
_REFUSED = "tests/crash/test_refused_runs.py::"
_ZOMBIES = "tests/faults/test_zombies.py::"

PLANTED = [
    Plant(
        "a hand-back that was refused is forgotten",
        "src/holdfast/unreturned.py",
        "left = {no: _after(ends[no], why) for no, why in refused.items() if isinstance(no, int)}",
        "left = dict[int, Finish]()",
        [
            _REFUSED + "test_a_hand_back_that_is_refused_for_now_is_tried_again",
            _REFUSED + "test_a_hand_back_that_is_refused_for_good_is_cut_down_to_that[memory]",
        ],
    ),
    Plant(
        "a doubt that cannot be written down is told to nobody",
        "src/holdfast/failure.py",
        "self.message = _storable(self.message)",
        "pass",
        [_REFUSED + "test_what_ended_a_run_may_hold_a_name_that_is_no_text[memory]"],
    ),
    Plant(
        "a run that waits too long for a lock takes the others of its batch along",
        "src/holdfast/store/postgres_errors.py",
        'frozenset({"57014", "55P03", "53200"})',
        'frozenset({"57014", "53200"})',
        ["tests/store/test_refused_rows.py::test_a_statement_that_takes_too_long_for_one_run"],
    ),
    Plant(
        "zombies write to a server whose fence is open",
        "src/holdfast/store/queries.sql",
        "JOIN locked AS r ON r.no = v.column1 AND r.epoch = v.column3",
        "JOIN locked AS r ON r.no = v.column1",
        [_ZOMBIES + "test_no_zombie_writes_to_a_server"],
    ),
    Plant(
        "zombies write to a file whose fence is open",
        "src/holdfast/store/queries.sql",
        "WHERE r.no = v.column1 AND r.epoch = v.column3 AND r.owner IS NOT NULL",
        "WHERE r.no = v.column1 AND r.owner IS NOT NULL",
        [_ZOMBIES + "test_no_zombie_writes_to_a_file"],
    ),
    Plant(
        "what is sent again is not fenced",
        "src/holdfast/store/settling.py",
        "if run is None or {row.epoch for row in rows} | {finish.epoch for finish in finishes} != {run.epoch}:",
        "if run is None:",
        [_LOST + "test_what_another_owner_wrote_is_not_taken_for_ones_own"],
    ),
    Plant(
        "what is sent again is not compared with what stands",
        "src/holdfast/store/settling.py",
        "        if stands is None:\n            fresh[row.seq] = row\n",
        "        if True:\n            fresh[row.seq] = row\n",
        [_LOST + "test_what_nobody_touched_is_written_once"],
    ),
    Plant(
        "what was lost on the way is taken for written",
        "src/holdfast/store/postgres.py",
        "again=lambda db: self._settle(db, part, sent_before=True),",
        "again=lambda db: Committed(),",
        [_LOST + "test_a_run_does_not_notice"],
    ),
    Plant(
        "a transaction that nobody goes on with is kept open",
        "src/holdfast/store/postgres_connect.py",
        "SET LOCAL idle_in_transaction_session_timeout = '5s'",
        "SET LOCAL idle_in_transaction_session_timeout = 0",
        [_LOST + "test_who_is_paused_in_a_transaction_does_not_keep_a_run"],
    ),
    Plant(
        "who is paused while it makes the tables keeps the lock",
        "src/holdfast/store/postgres_schema.py",
        "        db.execute(LET_GO, prepare=False)\n",
        "",
        [_LOST + "test_who_is_paused_while_it_makes_the_tables_does_not_keep_others_from_it"],
    ),
    Plant(
        "leases are compared by this machine's clock",
        "src/holdfast/store/postgres.py",
        'return self._clock() if self._clock else int(self._ask("now", {})[0][0])',
        "return int(__import__('time').time() * 1000)",
        [_CLOCKS + "test_who_died_is_taken_over_when_its_lease_lapses[dead one ahead]"],
    ),
    Plant(
        "a commit does not wait for the server's disk",
        "src/holdfast/store/postgres_connect.py",
        '"fallback_application_name": "holdfast", ',
        '"fallback_application_name": "holdfast", "options": "-c synchronous_commit=off", ',
        [_SERVERS + "test_a_server_crashes_in_the_middle_of_a_batch_and_comes_back"],
    ),
    Plant(
        "a refused row takes the whole batch along",
        "src/holdfast/store/settling.py",
        "        if len(parts) == 1:\n",
        "        if True:\n",
        [_SUITE + "TestPostgres", _SUITE + "TestSQLite"],
    ),
    Plant(
        "rows are written behind one that was refused",
        "src/holdfast/journal.py",
        "            self._refused[row.run_no] = row.epoch, refused\n",
        "            pass\n",
        [_REFUSED + "test_behind_a_refused_row_nothing_of_its_run_is_written"],
    ),
    Plant(
        "a run whose row was refused cannot be handed back",
        "src/holdfast/journal.py",
        "            or (isinstance(row, Finish) and row.status not in FINISHED)\n",
        "",
        [_REFUSED + "test_behind_a_refused_row_nothing_of_its_run_is_written"],
    ),
    Plant(
        "runs that a refused batch created are taken for another's",
        "src/holdfast/store/postgres.py",
        "if part is batch else self._settle(db, part, sent_before=True),",
        "if part is batch else self._settle(db, part),",
        ["tests/store/test_refused_rows.py::test_runs_that_a_refused_batch_created_are_known_for_its_own"],
    ),
    Plant(
        "a worker takes what other code recorded",
        "src/holdfast/known.py",
        "            code = Code(definition.version, PYTHON, definition.schema_version or 0) if refuses else None\n",
        "            code = None\n",
        ["tests/worker/test_left_alone.py::test_a_run_that_its_version_refuses_is_left_to_workers_of_the_old_one"],
    ),
    Plant(
        "a takeover by a worker is not recorded as a death",
        "src/holdfast/store/queries.sql",
        "deaths = r.deaths + CASE WHEN lost IS NULL THEN 0 ELSE 1 END",
        "deaths = r.deaths",
        [_SUITE + "TestPostgres"],
    ),
]
