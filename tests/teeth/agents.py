"""Bugs planted in what goes through ADK's turns again."""

from __future__ import annotations

from .plant import Plant

ADK = "src/holdfast/adapters/adk/"
TURNS = "tests/adk/test_turns.py::"
MESSAGES = "tests/adk/test_messages.py::"
ONCE = "tests/adk/test_once_tools.py::"
CHANGES = "tests/adk/test_changed_agents.py::"

PLANTED = [
    Plant(
        "a recorded call of a tool is executed again",
        ADK + "tools.py",
        "    if found is not None:\n        invocation.recalled += 1\n        return",
        "    if False:\n        return",
        [TURNS + "test_a_parallel_call_that_was_finished_is_recalled_with_its_state"],
    ),
    Plant(
        "what a tool changed is not recalled with it",
        ADK + "tools.py",
        "    context.state.update(actions.state_delta)\n",
        "",
        [TURNS + "test_a_parallel_call_that_was_finished_is_recalled_with_its_state"],
    ),
    Plant(
        "an answer of a model is handed on before it is durable",
        ADK + "models.py",
        "        await invocation.record(row)\n        if held is not None:\n            yield held\n",
        "        if held is not None:\n            yield held\n        await invocation.record(row)\n",
        [TURNS + "test_streams_are_recalled_whole"],
    ),
    Plant(
        "the instructions count as what a model was asked",
        ADK + "models.py",
        "        contents = [content.model_dump_json(exclude_none=True) for content in request.contents]\n",
        "        contents = [content.model_dump_json(exclude_none=True) for content in request.contents]\n"
        "        contents.append(str(request.config.system_instruction))\n",
        [TURNS + "test_an_instruction_that_tells_the_time_costs_nothing_twice"],
    ),
    Plant(
        "events that are stored are stored again",
        ADK + "history.py",
        "        waiting = self._stored.get(fingerprint(event)) if self._stored else None\n",
        "        waiting: deque[Event] | None = None\n",
        [TURNS + "test_what_was_yielded_before_is_not_yielded_again"],
    ),
    Plant(
        "the state of a turn is not taken back when it is gone through again",
        ADK + "history.py",
        '            if "was" in before:\n                session.state[key] = before["was"]\n',
        "            if True:\n                pass\n",
        [TURNS + "test_the_own_code_of_an_agent_runs_again_and_state_does_not_go_back"],
    ),
    Plant(
        "nodes are told apart by their number alone",
        ADK + "nodes.py",
        'place = around.inside(name if context is None else f"{name}[{digest[:_SHOWN].hex()}]")\n',
        "place = around.inside(name)\n",
        [CHANGES + "test_dynamic_nodes_are_matched_by_what_they_are_given"],
    ),
    Plant(
        "an unfinished invocation takes any message",
        ADK + "turn.py",
        "        if self.message is not None and plain(self.message) != plain(again.began.message):\n",
        "        if False:\n",
        [MESSAGES + "test_another_message_for_an_unfinished_invocation_is_refused"],
    ),
    Plant(
        "the same message again begins anew",
        ADK + "turn.py",
        "        if began is None or plain(began.message) != plain(self.message):\n",
        "        if True:\n",
        [MESSAGES + "test_the_same_message_again_goes_on"],
    ),
    Plant(
        "a payment begins without its intent",
        ADK + "tools.py",
        "    await invocation.record(place.intent)\n",
        "",
        [ONCE + "test_a_payment_in_flight_is_in_doubt"],
    ),
    Plant(
        "a restart forgets what must happen once",
        ADK + "results.py",
        "if keeps_all or place_of(row) in once]",
        "if keeps_all]",
        [ONCE + "test_a_restart_keeps_what_must_happen_once"],
    ),
    Plant(
        "a number that comes back without its fraction is another one",
        ADK + "history.py",
        ", parse_float=_number)",
        ")",
        ["tests/adk/test_plugin.py::test_an_event_is_met_by_the_one_that_vertex_ai_keeps_of_it"],
    ),
    Plant(
        "URLs of holdfast's mean nothing to ADK's tools",
        ADK + "__init__.py",
        "\nregister_services()\n",
        "",
        ["tests/adk/test_served.py::test_a_url_names_our_sessions[memory]"],
    ),
    Plant(
        "without a message nothing is unfinished",
        ADK + "turn.py",
        '            if self.message is None and not self.asked.get("invocation_id"):\n',
        "            if False:\n",
        [
            "tests/adk/test_plugin.py::"
            "test_without_a_store_it_takes_that_of_the_sessions_and_without_a_message_what_is_unfinished"
        ],
    ),
]
