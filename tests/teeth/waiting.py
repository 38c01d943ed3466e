"""Planted bugs in waits: times, mailboxes, children, and what is taken for waiting."""

from __future__ import annotations

from .plant import Plant

_WAITS = "tests/waiting/test_waits.py"
_REST = "tests/waiting/test_rest.py"
_OVERLOOKED = "tests/waiting/test_overlooked.py"

PLANTED = [
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
        old='        elif wait.row.kind == "signal":  # it may be there, and was in time\n            self.look()\n',
        new='        elif wait.row.kind == "signal":\n'
        '            wait.settle("failed", Failure("TimeoutError", _late(wait)).encode())\n',
        tests=[f"{_WAITS}::test_what_was_sent_in_time_is_in_time_although_nobody_looked"],
    ),
    Plant(
        name="a signal that came too late is taken for one in time",
        file="src/holdfast/waits.py",
        old="(wait.until_ms is not None and signal.sent_ms > wait.until_ms)",
        new="False",
        tests=[f"{_WAITS}::test_what_was_sent_in_time_is_in_time_although_nobody_looked"],
    ),
    Plant(
        name="waits of one name are served last come, first served",
        file="src/holdfast/waits.py",
        old="        for wait in sorted(self.live, key=lambda each: each.begins.seq):\n            while",
        new="        for wait in sorted(self.live, key=lambda each: -each.begins.seq):\n            while",
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
        old="        for wait in watched:\n            wait.asked_ms = asked_ms\n",
        new="        for wait in waits.live:\n            wait.asked_ms = asked_ms\n",
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
        old="    if any(_is_timed(each) for each in chain):\n        return False\n",
        new="",
        tests=[f"{_REST}::test_which_programs_only_wait[{name}-uvloop]" for name in ("timed", "limited")],
    ),
    Plant(
        name="a run counts as waiting beside a task that waits for outside",
        file="src/holdfast/resting.py",
        old="    return bool(chain) and _is_by_asyncio(chain[-1], own)\n",
        new="    return True\n",
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
]
