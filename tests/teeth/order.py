"""Planted bugs in places and order (promises 4 and 5): each is one a prototype had, or one that these tests found."""

from __future__ import annotations

from .plant import Plant

_ORDER = "tests/order/test_order.py"
_EDITS = "tests/order/test_edits.py"


def _zoo(program: str, loop: str = "asyncio") -> str:
    return f"{_ORDER}::test_a_program_repeats_its_record_at_every_cut[{program}-{loop}]"


_FALLBACK = (
    "        if here is None:\n"
    "            return None  # it was in flight; a later call with the same inputs keeps its own record\n"
    "        for row in self._named(frame.scope, frame.branch, name):\n"
)

PLANTED = [
    Plant(
        name="recalls are delivered at once, not in seq order",
        file="src/holdfast/run.py",
        old="        if self.tasks == 1:\n            pending.deliver()",
        new="        if self.tasks == 1 or pending.row.seq <= self.recorded_until:\n            pending.deliver()",
        tests=[_zoo("worker_pool"), _zoo("first_completed")],
    ),
    Plant(
        name="a live outcome overtakes recalls",
        file="src/holdfast/run.py",
        old="        if self.tasks == 1:\n            pending.deliver()",
        new="        if self.tasks == 1 or pending.row.seq > self.recorded_until:\n            pending.deliver()",
        tests=[_zoo("bounded_queue"), _zoo("made_in_completion_order")],
    ),
    Plant(
        name="outcomes are delivered before the code has come to rest",
        file="src/holdfast/delivery.py",
        old="        if self._turns < self.turns_needed:",
        new="        if self._turns < 1:",
        tests=[f"{_ORDER}::test_outcomes_come_up_through_deep_trees_before_the_next_is_delivered"],
    ),
    Plant(
        name="a call takes any unclaimed record of its name and inputs, in any branch",
        file="src/holdfast/recall.py",
        old=_FALLBACK,
        new="        for row in [*(each for each in self._at.values() if each.name == name), here]:\n"
        "            if row is None:\n                return None\n",
        tests=[f"{_EDITS}::test_a_record_of_another_branch_is_not_taken", _zoo("same_inputs")],
    ),
    Plant(
        name="a call that was in flight takes the record of its twin",
        file="src/holdfast/recall.py",
        old=_FALLBACK,
        new="        for row in [*self._named(frame.scope, frame.branch, name), here]:\n"
        "            if row is None:\n                return None\n",
        tests=[f"{_EDITS}::test_a_call_in_flight_does_not_take_the_record_of_its_twin", _zoo("first_of_twins")],
    ),
    Plant(
        name="branches are numbered by bare creation order, not per qualname",
        file="src/holdfast/branches.py",
        old="        k = self.children.get(name, 0)\n        self.children[name] = k + 1",
        new='        k = self.children.get("", 0)\n        self.children[""] = k + 1',
        tests=[_zoo("library_tasks")],
    ),
    Plant(
        name="the tasks of as_completed are numbered in the order of its set",
        file="src/holdfast/branches.py",
        old="        if listed is not None:\n",
        new="        if False:\n",
        tests=[f"{_EDITS}::test_numbers_do_not_depend_on_where_as_completed_finds_its_coroutines"],
    ),
    Plant(
        name="a step's view is the live state",
        file="src/holdfast/views.py",
        old="        if alone:\n            return View(self.current)",
        new="        if True:\n            return View(self.current)",
        tests=[f"{_ORDER}::test_a_step_keeps_its_own_view_while_another_outcome_is_delivered"],
    ),
    Plant(
        name="an outcome does not wait for a recorded one whose thread is on its way",
        file="src/holdfast/delivery.py",
        old="        if self._must_wait(self._ready[0][0]):",
        new="        if False:",
        tests=[_zoo("threads_gathered")],
    ),
    Plant(
        name="now() of the body follows what happens inside of other calls",
        file="src/holdfast/logical_time.py",
        old="            self._told_ms[scope] = ended",
        new='            self._told_ms[""] = ended',
        tests=[f"{_ORDER}::test_time_in_the_body_does_not_follow_the_inside_of_other_calls"],
    ),
    Plant(
        name="a cancelled call is recalled without waiting for its canceller",
        file="src/holdfast/calls.py",
        old="        await clock.sleep(run.patience.usual_s(row) + row.duration_ms / 1000 * 1.5 + 1)\n",
        new="        await clock.sleep(0)\n",
        tests=[_zoo("waiting_too_long")],
    ),
    Plant(
        name="a cancellation wins over an outcome that is recorded",
        file="src/holdfast/delivery.py",
        old="                if run.is_leaving and not isinstance(self._error, Stop):\n                    raise\n",
        new="                raise\n",
        tests=[_zoo("first_completed"), f"{_ORDER}::test_generated_programs_repeat_their_record"],
    ),
]
