"""Bugs planted in what is executed once: intents, doubts, who is asked, what is gone past, what a person says."""

from __future__ import annotations

from .plant import Plant

ONCE = "tests/once/test_once.py::"
RESOLVE = "tests/once/test_resolve.py::"
ANEW = "tests/once/test_anew.py::"
MATRIX = "tests/once/test_kill_matrix.py::test_never_more_than_promised[sqlite]"

PLANTED = [
    Plant(
        "the body begins before its intent is durable",
        "src/holdfast/once.py",
        "        while not committed.done():\n",
        "        while False:\n",
        [MATRIX],
    ),
    Plant(
        "an intent without outcome is not looked for on resume",
        "src/holdfast/once.py",
        "        if intent is None:\n            await self._all_met()",
        "        if True:\n            await self._all_met()",
        [ONCE + "test_an_error_is_a_doubt"],
    ),
    Plant(
        "an error that was not declared is an ordinary failure",
        "src/holdfast/once.py",
        "            if isinstance(error, self._call.definition.not_done) and not is_ours(error):\n",
        "            if isinstance(error, Exception) and not is_ours(error):\n",
        [ONCE + "test_an_error_is_a_doubt"],
    ),
    Plant(
        "our own timeout counts as declared",
        "src/holdfast/once.py",
        "            if isinstance(error, self._call.definition.not_done) and not is_ours(error):\n",
        "            if isinstance(error, self._call.definition.not_done):\n",
        [ONCE + "test_our_own_timeout_is_no_refusal"],
    ),
    Plant(
        "who cannot tell is taken to say that it has not happened",
        "src/holdfast/once.py",
        '                why = f"{why}; verify= could not tell ({_said(unsure)})"\n',
        "                self._close()\n                return None\n",
        [ONCE + "test_outside_may_settle_it"],
    ),
    Plant(
        "a doubt is an exception that programs catch",
        "src/holdfast/doubt.py",
        "        raise Stop(run.poison(self._doubt).error) from doubt.__cause__\n",
        "        raise self._doubt from doubt.__cause__\n",
        [ONCE + "test_an_agent_that_catches_everything"],
    ),
    Plant(
        "a doubt cuts off the others in flight",
        "src/holdfast/doubt.py",
        "        while any(scope_of(*place_of(each)) not in around for each in self._flying):\n",
        "        while False:\n",
        [ONCE + "test_others_in_flight_come_to_their_end_first"],
    ),
    Plant(
        "calls begin while a doubt lets others finish",
        "src/holdfast/doubt.py",
        "        return self._doubt is not None and not (frame.step is not None and frame.step.in_once)\n",
        "        return False\n",
        [ONCE + "test_others_in_flight_come_to_their_end_first"],
    ),
    Plant(
        "a program may end without asking for what is in doubt",
        "src/holdfast/doubt.py",
        "            for intent in [*earlier, *run.records.intents][:1]:\n",
        "            for intent in earlier:\n",
        [ONCE + "test_a_program_that_never_asks_again"],
    ),
    Plant(
        "a run ends over what is in flight",
        "src/holdfast/execution.py",
        "            await run.irreversible.over(root)\n",
        "",
        [ONCE + "test_a_program_that_returns_meanwhile"],
    ),
    Plant(
        "what took effect need not be asked for again",
        "src/holdfast/once.py",
        "        while (row := run.records.unmet(call.frame.scope)) is not None:\n",
        "        while (row := None) is not None:\n",
        [ONCE + "test_another_place_than_that_of_what_took_effect"],
    ),
    Plant(
        "a doubt has no inputs",
        "src/holdfast/recall.py",
        "            if not _fits(row, (version,), digest):\n                raise diverged(",
        "            if False:\n                raise diverged(",
        [ONCE + "test_other_inputs_at_the_place_of_a_doubt"],
    ),
    Plant(
        "an attempt that has not happened is closed under the epoch before",
        "src/holdfast/once.py",
        '        self._run.note(replace(self._row, status="not_done"',
        '        self._run.note(replace(self._intent, status="not_done", delta=None',
        [MATRIX],
    ),
    Plant(
        "a thread that is cancelled is not waited for",
        "src/holdfast/threads.py",
        "        while call.definition.once and not ended.done():\n",
        "        while False:\n",
        [ONCE + "test_a_thread_is_waited_for_whoever_cancels"],
    ),
    Plant(
        "the key is that of the step, not of the call",
        "src/holdfast/doubt.py",
        "    place = (run_id, *place_of(row), row.fingerprint)\n",
        "    place = (run_id, row.name)\n",
        [ONCE + "test_keys"],
    ),
    Plant(
        "steps are called in verify=",
        "src/holdfast/calls.py",
        "    if frame.step is not None and frame.step.is_asking:\n",
        "    if False:\n",
        [ONCE + "test_steps_are_refused_in_verify"],
    ),
    Plant(
        "a result that cannot be stored was never there",
        "src/holdfast/calls.py",
        '            if definition.once and row.status == "done" and row.seq == 0:\n',
        "            if False:\n",
        [ONCE + "test_a_result_that_cannot_be_stored_is_a_doubt"],
    ),
    Plant(
        "a person's result is of any type",
        "src/holdfast/resolving.py",
        "    if annotation not in (codec.MISSING, Any, object):\n",
        "    if False:\n",
        [RESOLVE + "test_a_result_has_the_type_of_the_step"],
    ),
    Plant(
        "a run that somebody advances is resolved",
        "src/holdfast/resolving.py",
        "    await _refuse_owned(home, row)\n",
        "",
        [RESOLVE + "test_a_run_that_is_owned"],
    ),
    Plant(
        "a child in doubt has failed, for its parent",
        "src/holdfast/children.py",
        "    except InDoubt:\n        return await _resolved(home, wait)\n",
        "",
        [RESOLVE + "test_the_parent_of_a_child_in_doubt_waits_on"],
    ),
    Plant(
        "a finished call that nobody asks for again stands for what took effect inside it",
        "src/holdfast/recall.py",
        "        if any(call.seq in self._claimed for each",
        "        if any(True for each",
        [ANEW + "test_in_a_call_that_is_worded_differently"],
    ),
    Plant(
        "behind a failure that ended the run, what took effect need never again be asked for",
        "src/holdfast/recall.py",
        "failed < seq <= until and is_inside",
        "failed < seq and is_inside",
        [ANEW + "test_after_a_failure_that_was_tried_anew"],
    ),
    Plant(
        "what an attempt made good is demanded of the next one",
        "src/holdfast/recall.py",
        "        self._detours.append((row.scope, row.seq, self._last))\n",
        "",
        [ANEW + "test_another_way_behind_an_inner_failure"],
    ),
    Plant(
        "what is beside a new attempt waits for it",
        "src/holdfast/recall.py",
        "        if row.seq in self._asked_anew and not is_inside(scope, self._asked_anew[row.seq]):\n",
        "        if False:\n",
        [ANEW + "test_beside_a_call_that_is_attempted_anew"],
    ),
    Plant(
        "a failed attempt cuts off what is in flight",
        "src/holdfast/attempts.py",
        "    await run.irreversible.landed(scope)\n",
        "",
        [ANEW + "test_a_failed_attempt_lets_it_finish"],
    ),
    Plant(
        "a run may fail over what is in doubt",
        "src/holdfast/doubt.py",
        "        if error is None or isinstance(error, Exception):\n",
        "        if error is None:\n",
        [ANEW + "test_a_program_that_fails_before_it_asks_again"],
    ),
    Plant(
        "what waited for a doubt begins behind it",
        "src/holdfast/once.py",
        "        if run.irreversible.holds(call.frame):",
        "        if False:",
        [ANEW + "test_nothing_begins_that_has_waited_for_a_doubt"],
    ),
    Plant(
        "a sys.exit in verify= is gone past",
        "src/holdfast/once.py",
        "                self._not_gone_past(ending)\n",
        "",
        [ANEW + "test_what_ends_without_an_outcome_is_not_gone_past[verify]"],
    ),
    Plant(
        "a result that cannot be stored counts as declared",
        "src/holdfast/once.py",
        "    return is_late(error) or isinstance(error, CodecError)\n",
        "    return is_late(error)\n",
        [ANEW + "test_whatever_is_declared_a_result_that_cannot_be_stored_is_a_doubt"],
    ),
    Plant(
        "whatever verify= returns is a result",
        "src/holdfast/once.py",
        "            self._refuse_slip(answer)\n",
        "            pass\n",
        [ANEW + "test_a_verify_that_forgets_its_return"],
    ),
    Plant(
        "what a person said is taken for lost, as the run is taken on",
        "src/holdfast/resolving.py",
        "        with suppress(Fenced):",
        "        if True:",
        [RESOLVE + "test_somebody_goes_on_with_it_at_once"],
    ),
    Plant(
        "a doubt waits for a call that waits for what it holds",
        "src/holdfast/once.py",
        "        while not doubts.holds(call.frame) and (row := run.records.unmet(call.frame.scope)) is not None:\n"
        "            waited_s = run.loop.time() - waited_from\n"
        "            is_moving = not doubts.is_pending and branches",
        "        while (row := run.records.unmet(call.frame.scope)) is not None:\n"
        "            waited_s = run.loop.time() - waited_from\n"
        "            is_moving = branches",
        [ANEW + "test_doubts_beside_each_other_are_told_one_after_the_other"],
    ),
    Plant(
        "a call that is executed again stands for what it does not ask for",
        "src/holdfast/recall.py",
        "if any(call.seq in self._claimed and call.seq <= self._recorded_until for call in around):",
        "if any(call.seq in self._claimed for call in around):",
        [ANEW + "test_outside_of_a_call_that_asked_for_it_before_it_was_cut_off"],
    ),
]
