"""Planted bugs in waits: times, mailboxes, children, and what is taken for waiting."""

from __future__ import annotations

from .plant import Plant

_WAITS = "tests/waiting/test_waits.py"
_REST = "tests/waiting/test_rest.py"
_CIRCLES = "tests/waiting/test_circles.py"
_SUBMIT = "tests/worker/test_submit.py"
_SLOTS = "tests/waiting/test_slots.py"
_MANY = "tests/waiting/test_many.py"
_OVERLOOKED = "tests/waiting/test_overlooked.py"

PLANTED = [
    Plant(
        name="a signal whose number was damaged to a higher one hides all that come after it",
        file="src/holdfast/mailbox.py",
        old="            if flaw_of_signal(signal) is not None:\n",
        new="            if signal.n > self.last_n and flaw_of_signal(signal) is not None:\n"
        "                self.last_n = signal.n\n",
        tests=[f"{_WAITS}::test_a_damaged_signal_is_set_aside_and_named"],
    ),
    Plant(
        name="a sleep begins anew in each process",
        file="src/holdfast/waits.py",
        old="        if begun is not None:\n",
        new="        if begun is not None and False:\n",
        tests=[f"{_WAITS}::test_a_sleep_ends_when_it_was_to_end_however_often_it_is_resumed"],
    ),
    Plant(
        name="a signal that was taken is taken again after a resume",
        file="src/holdfast/mailbox.py",
        old="                if signal.n not in self._taken:\n",
        new="                if True:\n",
        tests=[f"{_WAITS}::test_mail_is_kept_if_sent_early_and_first_in_is_first_out"],
    ),
    Plant(
        name="a signal meant for a wait that was cancelled is lost",
        file="src/holdfast/waits.py",
        old="                self.mailbox.give_back(wait.signal)\n",
        new="                pass\n",
        tests=[f"{_WAITS}::test_a_signal_meant_for_a_wait_that_is_cancelled_goes_to_the_next"],
    ),
    Plant(
        name="a timeout does not look whether its signal came in time",
        file="src/holdfast/waits.py",
        old='        elif wait.row.kind == "signal":\n'
        "            self._overdue[wait] = None\n            self.look()\n",
        new='        elif wait.row.kind == "signal":\n'
        '            wait.settle("failed", Failure("TimeoutError", _late(wait)).encode())\n',
        tests=[f"{_WAITS}::test_what_was_sent_in_time_is_in_time_although_nobody_looked"],
    ),
    Plant(
        name="a signal that came too late is taken for one in time",
        file="src/holdfast/waits.py",
        old="wait.until_ms is not None and signal.sent_ms > wait.until_ms",
        new="False",
        tests=[f"{_WAITS}::test_what_was_sent_in_time_is_in_time_although_nobody_looked"],
    ),
    Plant(
        name="waits of one name are served last come, first served",
        file="src/holdfast/waits.py",
        old="_Line(lambda each: each.begins.seq)",
        new="_Line(lambda each: -each.begins.seq)",
        tests=[f"{_WAITS}::test_waits_of_one_name_are_served_in_the_order_they_were_made"],
    ),
    Plant(
        name="who goes to sleep does not tell which wakes it has seen",
        file="src/holdfast/execution.py",
        old="            wakes=run.waits.wakes if self.home._serving else 0,\n",
        new="",
        tests=[f"{_REST}::test_a_signal_sent_while_it_goes_to_sleep_wakes_it[before]"],
    ),
    Plant(
        name="a wait that comes while outside is looked at counts as looked for",
        file="src/holdfast/lookout.py",
        old="waits.looked(looked_for, ",
        new="waits.looked(list(waits.unlooked), ",
        tests=[f"{_OVERLOOKED}::test_a_child_that_ends_while_its_parent_looks_for_something_else"],
    ),
    Plant(
        name="a child of a cancelled run is begun",
        file="src/holdfast/store/sqlite_batch.py",
        old="    owners.cancel_orphans(Transaction(db), now, created)\n",
        new="",
        tests=[f"{_OVERLOOKED}::test_who_is_cancelled_elsewhere_begins_no_child[sqlite-here]"],
    ),
    Plant(
        name="a run with a timer of asyncio's around its wait counts as waiting",
        file="src/holdfast/resting.py",
        old="    return Rest.IDLE if any(_is_timed(each) for each in chain) else Rest.WAITS\n",
        new="    return Rest.WAITS\n",
        tests=[f"{_REST}::test_which_programs_only_wait[{name}-uvloop]" for name in ("timed", "limited")],
    ),
    Plant(
        name="a run counts as waiting beside a task that waits for outside",
        file="src/holdfast/resting.py",
        old="    if not (in_thread or _is_of(waiter, own) or (chain and _is_by_asyncio(chain[-1], own))):\n",
        new="    if False:\n",
        tests=[f"{_REST}::test_which_programs_only_wait[beside_a_future-asyncio]"],
    ),
    Plant(
        name="a run let go of in a lock that others hold does not look again",
        file="src/holdfast/execution.py",
        old="        if resting.leans_on_others(run):\n",
        new="        if False:\n",
        tests=["tests/worker/test_waiting.py::test_a_lock_that_runs_share_wakes_who_was_let_go_of[memory]"],
    ),
    Plant(
        name="a child whose outcome is recorded is run again",
        file="src/holdfast/waiting.py",
        old="        if row is not None:\n            await recalled(self, row)\n",
        new='        if row is not None and self.kind != "run":\n            await recalled(self, row)\n',
        tests=[f"{_WAITS}::test_the_child_s_result_is_recalled_without_touching_the_child"],
    ),
    Plant(
        name="a timer of asyncio's takes the slot of a run that waits",
        file="src/holdfast/worker.py",
        old="sum(served.is_idle for",
        new="sum(served.is_waiting for",
        tests=[f"{_SLOTS}::test_a_timer_holds_no_slot[{name}]" for name in ("limited", "beside_a_sleep")],
    ),
    Plant(
        name="a run that was idle is not looked at again",
        file="src/holdfast/resting.py",
        old="        if found is not Rest.WAITS:  # what",
        new="        if found is Rest.WORKS:  # what",
        tests=[f"{_SLOTS}::test_what_goes_on_behind_a_timer_takes_its_slot_again"],
    ),
    Plant(
        name="a run of thousands of tasks is looked at after each outcome",
        file="src/holdfast/resting.py",
        old="            self._not_before = began + _SHARE * took\n",
        new="            pass\n",
        tests=[f"{_MANY}::test_a_costly_look_is_not_taken_often"],
    ),
    Plant(
        name="a parent reads each of its children whenever one has ended",
        file="src/holdfast/lookout.py",
        old="for id, status in stand.items() if status in _ENDED}",
        new="for id, status in stand.items()}",
        tests=[f"{_MANY}::test_who_waits_for_many_children_reads_those_that_ended"],
    ),
    Plant(
        name="mail is handed out by asking everybody who waits",
        file="src/holdfast/waits.py",
        old="        for name in dict.fromkeys([*names, *new]):\n",
        new="        for name in dict.fromkeys([*names, *new, *self._lines]):\n",
        tests=[f"{_MANY}::test_a_signal_among_many_that_are_waited_for_asks_only_its_own"],
    ),
    Plant(
        name="what a row told a moment ago is taken for a circle",
        file="src/holdfast/circles.py",
        old="await asyncio.sleep(_TOLD_LATE_S)",
        new="await asyncio.sleep(0)",
        tests=[f"{_CIRCLES}::test_who_has_gone_on_is_no_part_of_a_circle[memory]"],
    ),
    Plant(
        name="a run may wait for the run that began it",
        file="src/holdfast/circles.py",
        old="    if id not in execution.ancestors:\n",
        new="    if True:\n",
        tests=[f"{_CIRCLES}::test_nobody_waits_for_who_began_it_elsewhere[sqlite]"],
    ),
    Plant(
        name="two runs may wait for each other",
        file="src/holdfast/circles.py",
        old="            if id == end:\n",
        new="            if False:\n",
        tests=[f"{_CIRCLES}::test_two_that_run_each_other[sqlite-in two processes]"],
    ),
    Plant(
        name="a run that was cancelled elsewhere submits",
        file="src/holdfast/submitting.py",
        old="    if row is None or row.epoch != run.epoch:\n",
        new="    if False:\n",
        tests=[f"{_SUBMIT}::test_who_was_cancelled_elsewhere_submits_nothing[sqlite]"],
    ),
    Plant(
        name="a run that must stop submits",
        file="src/holdfast/submitting.py",
        old="            await _refuse_if_stopped(home, run)\n",
        new="            pass\n",
        tests=[f"{_SUBMIT}::test_what_a_stopped_run_submits_on_its_way_out_is_not_submitted"],
    ),
    Plant(
        name="a run that submits while its Holdfast is closed fails of that",
        file="src/holdfast/submitting.py",
        old="        await run.hold()  # it is about to be unloaded\n",
        new="        pass\n",
        tests=[f"{_SUBMIT}::test_a_run_that_submits_while_its_holdfast_closes_does_not_fail"],
    ),
    Plant(
        name="what is typed before it is asked for is text for ever",
        file="src/holdfast/cli/sending.py",
        old="    return Typed(text)\n",
        new="    return text\n",
        tests=["tests/cli/test_sending.py::test_what_is_typed_too_early_is_read_as_what_is_asked_for_later"],
    ),
]
