"""Bugs planted in what a crash rests on: poison, fence, commit order, group commit, leases, checksums, history."""

from __future__ import annotations

from .plant import Plant

FLIPS = "tests/trust/test_flips.py::"
REPAIR = "tests/trust/test_repair.py"
HOSTILE = "tests/trust/test_hostile_bytes.py::"
PROMISES = "tests/crash/test_promises.py::"
ERRORS = "tests/crash/test_store_errors.py::"
OWNERS = "tests/crash/test_owners.py::"
SWEEP = "tests/crash/test_sweep.py::"
SUITE = "tests/store/test_store_suite.py"

PLANTED = [
    Plant(
        "a last checkpoint whose number was damaged to a negative one is forgotten",
        "src/holdfast/store/reading.py",
        "self, run_no: int, *, after: int = BEFORE_ALL, until",
        "self, run_no: int, *, after: int = 0, until",
        [FLIPS + "test_what_nothing_but_a_look_at_the_whole_finds"],
    ),
    Plant(
        "a damaged run forgets which failure is to be tried anew",
        "src/holdfast/execution.py",
        "            return self._failure.seqs\n        return sorted(run.ignored)",
        "            pass\n        return sorted(run.ignored)",
        [REPAIR + "::test_a_failed_run_that_was_damaged_tries_its_failure_anew"],
    ),
    # -- what must stop a run ------------------------------------------------------------------------------
    Plant(
        "a step of a poisoned run starts anyway",
        "src/holdfast/run.py",
        "            raise Stop(self.stop.error)\n        if self.finished:",
        "            pass\n        if self.finished:",
        [PROMISES + "test_a_fenced_owner_writes_nothing_and_starts_nothing"],
    ),
    # -- the fence -----------------------------------------------------------------------------------------
    Plant(
        "the fence of SQLite does not look at the epoch",
        "src/holdfast/store/queries.sql",
        "WHERE r.no = v.column1 AND r.epoch = v.column3 AND r.owner IS NOT NULL",
        "WHERE r.no = v.column1 AND r.owner IS NOT NULL",
        [SUITE + "::TestSQLite", PROMISES + "test_a_fenced_owner_writes_nothing_and_starts_nothing"],
    ),
    Plant(
        "the fence of SQLite does not look at the owner",
        "src/holdfast/store/queries.sql",
        "WHERE r.no = v.column1 AND r.epoch = v.column3 AND r.owner IS NOT NULL",
        "WHERE r.no = v.column1 AND r.epoch = v.column3",
        [SUITE + "::TestSQLite"],
    ),
    Plant(
        "the fence of the memory store does not look at the epoch",
        "src/holdfast/store/memory.py",
        "if run is None or {row.epoch for row in rows} | {finish.epoch for finish in finishes} != {run.epoch}:",
        "if run is None:",
        [SUITE + "::TestMemory", PROMISES + "test_a_fenced_owner_writes_nothing_and_starts_nothing"],
    ),
    Plant(
        "a claim leaves the epoch as it is",
        "src/holdfast/store/queries.sql",
        "UPDATE holdfast.run SET epoch = epoch + 1, owner = :owner, status = 'running'",
        "UPDATE holdfast.run SET owner = :owner, status = 'running'",
        [SUITE + "::TestSQLite"],
    ),
    Plant(
        "a claim takes a run whose epoch has moved on",
        "src/holdfast/store/queries.sql",
        "WHERE no = :no AND epoch = :epoch AND status NOT IN ('done', 'cancelled')\n    AND NOT EXISTS (SELECT 1 FROM "
        "holdfast.claim WHERE run_no = :no AND epoch > :epoch)\nRETURNING",
        "WHERE no = :no AND status NOT IN ('done', 'cancelled')\nRETURNING",
        [SUITE + "::TestSQLite"],
    ),
    Plant(
        "an epoch that was changed to an earlier one is claimed",
        "src/holdfast/store/queries.sql",
        "\n    AND NOT EXISTS (SELECT 1 FROM holdfast.claim WHERE run_no = :no AND epoch > :epoch)\nRETURNING",
        "\nRETURNING",
        ["tests/trust/test_both_databases.py"],
    ),
    Plant(
        "what the fence refused is acknowledged",
        "src/holdfast/journal.py",
        "        if row.run_no in committed.fenced:\n",
        "        if row.run_no in ():\n",
        [PROMISES + "test_a_fenced_owner_writes_nothing_and_starts_nothing"],
    ),
    # -- durable before the next line ----------------------------------------------------------------------
    Plant(
        "acknowledged before it is committed",
        "src/holdfast/journal.py",
        "        committed = Committed()\n        verdicts: dict[int, Verdict] = {}\n",
        """        committed = Committed()
        verdicts: dict[int, Verdict] = {}
        early = [entry for entry in entries if isinstance(entry.row, Checkpoint)]
        for entry in early:
            self._ports[entry.loop].post([(Entry(entry.row, entry.loop, entry.done), None, None)])
            entry.done = lambda *told: None
""",
        [PROMISES + "test_a_step_returns_when_it_is_committed_and_not_before", SWEEP + "test_sequential"],
    ),
    Plant(
        "rows of a run are written in another order",
        "src/holdfast/journal.py",
        "SimpleQueue[Entry | Callable[[], None]] = SimpleQueue()",
        "Any = __import__('queue').LifoQueue()",
        [PROMISES + "test_rows_are_written_in_the_order_of_seq"],
    ),
    Plant(
        "the end of a run is written before its rows",
        "src/holdfast/store/sqlite_batch.py",
        "        if batch.creates or batch.revisions or batch.finishes or len(rows) > SIZES[-1]:\n",
        "        _finish(db, batch.finishes, now)\n"
        "        if batch.creates or batch.revisions or batch.finishes or len(rows) > SIZES[-1]:\n",
        [PROMISES + "test_an_end_stands_behind_every_row", SUITE + "::TestSQLite"],
    ),
    Plant(
        "a commit does not wait for the disk",
        "src/holdfast/store/sqlite_file.py",
        'db.execute("PRAGMA synchronous = FULL")',
        'db.execute("PRAGMA synchronous = OFF")',
        ["tests/store/test_sqlite_faults.py"],
    ),
    # -- group commit --------------------------------------------------------------------------------------
    Plant(
        "the error of a commit is swallowed",
        "src/holdfast/journal.py",
        "            except Exception as error:\n                self._failed = error\n",
        "            except Exception:\n                pass\n",
        [ERRORS + "test_a_failed_commit_stops_the_run_and_the_same_line_resumes"],
    ),
    Plant(
        "only the first of a failed batch is told",
        "src/holdfast/journal.py",
        "if special else (entry, None, None)",
        "if special and entry is entries[0] else (entry, None, None)",
        [ERRORS + "test_every_caller_of_the_batch_is_told"],
    ),
    Plant(
        "a run goes on in a new journal after a lost commit",
        "src/holdfast/execution.py",
        "        self.journal.submit(row, self.loop, committed)",
        "        self.home._journal.submit(row, self.loop, committed)",
        [ERRORS + "test_a_row_behind_a_lost_commit_is_not_written"],
    ),
    Plant(
        "batches behind a lost commit are written",
        "src/holdfast/journal.py",
        "        if self._failed is None:\n            extensions = ",
        "        if True:\n            extensions = ",
        [ERRORS + "test_a_row_behind_a_lost_commit_is_not_written"],
    ),
    # -- leases --------------------------------------------------------------------------------------------
    Plant(
        "a lease that lapsed is ignored",
        "src/holdfast/claiming.py",
        "return not 0 < row.lease_until_ms - await self._now_ms() <= lease.SECONDS_MAX * 1000",
        "return False",
        [PROMISES + "test_a_lease_that_lapsed_is_taken_over"],
    ),
    Plant(
        "a lease is taken before it lapsed",
        "src/holdfast/claiming.py",
        "return not 0 < row.lease_until_ms - await self._now_ms() <= lease.SECONDS_MAX * 1000",
        "return True",
        [PROMISES + "test_a_lease_that_lapsed_is_taken_over"],
    ),
    Plant(
        "an owner past its deadline starts the next step",
        "src/holdfast/calls.py",
        "    if clock.monotonic() > run.lease_deadline:\n",
        "    if False:\n",
        [PROMISES + "test_an_owner_past_its_deadline_asks_before_it_starts_a_step"],
    ),
    Plant(
        "a dead owner's lease is waited for",
        "src/holdfast/claiming.py",
        "            dead = before.owner is not None and lease.is_dead(before.owner)\n",
        "            dead = False\n",
        [OWNERS + "test_a_killed_owner_is_taken_over_at_once"],
    ),
    Plant(
        "deaths are not counted",
        "src/holdfast/store/queries.sql",
        "deaths = deaths + CASE WHEN",
        "deaths = deaths + 0 * CASE WHEN",
        [SUITE + "::TestSQLite", SWEEP + "test_an_initial_state_goes_along"],
    ),
    Plant(
        "two calls of one id are two runs",
        "src/holdfast/app.py",
        "            live = self._live.get(id)\n            if live is not None and not live.outcome.done():",
        "            live = None\n            if live is not None and not live.outcome.done():",
        [PROMISES + "test_two_calls_of_one_id_execute_once"],
    ),
    # -- history -------------------------------------------------------------------------------------------
    Plant(
        "checksums are not verified",
        "src/holdfast/store/damage.py",
        "        return None if row.checksum == row.compute_checksum() else _CHANGED",
        "        return None",
        [PROMISES + "test_a_changed_row_is_not_believed"],
    ),
    Plant(
        "a checksum leaves out the change of state",
        "src/holdfast/store/protocol.py",
        "self.fingerprint, self.inputs, self.result, self.delta, self.blobs)",
        "self.fingerprint, self.inputs, self.result, self.blobs)",
        [PROMISES + "test_a_changed_row_is_not_believed"],
    ),
    Plant(
        "a checksum leaves out the costs",
        "src/holdfast/store/protocol.py",
        "held = (self.tokens, self.usd, self.fingerprint",
        "held = (self.fingerprint",
        [FLIPS + "test_what_nothing_but_a_look_at_the_whole_finds"],
    ),
    Plant(
        "what a run stands at is not compared with its claims",
        "src/holdfast/store/damage.py",
        "    if run.deaths != sum(",
        "    if False and run.deaths != sum(",
        [FLIPS + "test_what_nothing_but_a_look_at_the_whole_finds"],
    ),
    Plant(
        "a status that is none is believed",
        "src/holdfast/store/damage.py",
        "    if row.status not in STATUSES:",
        "    if False:",
        ["tests/trust/test_raw.py::test_the_runs_of_a_store_with_a_damaged_row"],
    ),
    Plant(
        "text that is no UTF-8 hides the rows beside it",
        "src/holdfast/store/sqlite_rows.py",
        "    except UnicodeDecodeError:\n        return taken(",
        "    except ZeroDivisionError:\n        return taken(",
        ["tests/trust/test_raw.py::test_the_list_names_damaged_runs_among_the_others"],
    ),
    Plant(
        "a repair is one without its note",
        "src/holdfast/repairs.py",
        "    notes = [row for row in rows if row.status == REPAIR and flaw_of(row) is None]\n"
        "    return {seq for seq in map(_repairs, notes) if seq is not None}",
        "    return {row.seq - 1 for row in rows if row.status == 'not_done'} | {1}",
        [REPAIR],
    ),
    Plant(
        "a place that was changed is written to",
        "src/holdfast/store/damage.py",
        'row.kind == "step" and _is_placed(row))',
        'row.kind == "step")',
        [REPAIR],
    ),
    Plant(
        "a result stands for a change of state as well",
        "src/holdfast/resolving.py",
        "        return bool(decode_change(damaged).step)",
        "        return False",
        [REPAIR],
    ),
    Plant(
        "what is sealed is believed",
        "src/holdfast/codec/sealing.py",
        "seal(sealed[:-_SIZE], *numbers) != sealed:",
        "False:",
        [HOSTILE + "test_what_is_sealed_is_refused_when_it_was_changed"],
    ),
    Plant(
        "a bytearray is made of whatever there is",
        "src/holdfast/codec/reading.py",
        "    BYTEARRAY: bytes,\n",
        "    BYTEARRAY: int,\n",
        [HOSTILE + "test_hostile_bytes_are_refused_in_little_room"],
    ),
    Plant(
        "a recorded change of state is taken for one as it is",
        "src/holdfast/state.py",
        "        delta.refuse_malformed(ops, where)",
        "        pass",
        [HOSTILE + "test_what_is_no_change_of_state_is_refused"],
    ),
    Plant(
        "the row of a run is believed as it is",
        "src/holdfast/records.py",
        "    if (flaw := flaw_of_run(row)) is not None:\n        tell_damaged",
        "    if (flaw := None) is not None:\n        tell_damaged",
        [PROMISES + "test_a_changed_row_of_a_run_is_not_believed"],
    ),
    Plant(
        "a call that the workflow cancelled is not recorded",
        "src/holdfast/calls.py",
        "            if run.is_leaving:\n                raise\n            # The workflow's own",
        "            raise\n            # The workflow's own",
        [PROMISES + "test_a_call_the_workflow_cancelled_stays_cancelled"],
    ),
    Plant(
        "cancelled records are dropped",
        "src/holdfast/recall.py",
        '            if row.kind != "save":',
        '            if row.kind != "save" and row.status != "cancelled":',
        [PROMISES + "test_a_call_the_workflow_cancelled_stays_cancelled"],
    ),
    Plant(
        "failures are not recalled",
        "src/holdfast/recall.py",
        '            if row.kind != "save":',
        '            if row.kind != "save" and row.status != "failed":',
        [PROMISES + "test_failures_that_the_workflow_went_past_are_recalled", SWEEP + "test_failures_that_are_history"],
    ),
    Plant(
        "the failure that ended a run is recalled for ever",
        "src/holdfast/execution.py",
        "            ignored=set(self._failure.seqs) if self._failure is not None else set(),\n",
        "            ignored=set(),\n",
        [PROMISES + "test_the_failure_that_ended_a_run_is_tried_anew"],
    ),
    Plant(
        "Ctrl-C is recorded as a failure",
        "src/holdfast/execution.py",
        "        if isinstance(error, (Diverged, CodecError, InDoubt, VersionMismatch)):\n",
        "        if isinstance(error, (Diverged, CodecError, InDoubt, VersionMismatch, Unloaded)):\n",
        [PROMISES + "test_ctrl_c_is_no_failure"],
    ),
    Plant(
        "Ctrl-C keeps the lease",
        "src/holdfast/execution.py",
        "        try:\n            await self._committed(finish)\n        except HoldfastError as lost:",
        "        try:\n            pass\n        except HoldfastError as lost:",
        [PROMISES + "test_ctrl_c_is_no_failure"],
    ),
    Plant(
        "every recorded step is executed again",
        "src/holdfast/calls.py",
        "    if row is not None:\n        return await _recalled(call, row)\n",
        "    if False:\n        return await _recalled(call, row)\n",
        [SWEEP + "test_an_initial_state_goes_along"],
    ),
]
