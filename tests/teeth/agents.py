"""Bugs planted in what goes through ADK's turns again."""

from __future__ import annotations

from .plant import Plant

ADK = "src/holdfast/adapters/adk/"
TURNS = "tests/adk/test_turns.py::"
MESSAGES = "tests/adk/test_messages.py::"
ONCE = "tests/adk/test_once_tools.py::"
CHANGES = "tests/adk/test_changed_agents.py::"
WORKERS = "tests/adk/test_resumed_by_workers.py::"
EXPLICIT = "tests/adk/test_explicit_style.py::"

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
        "            await invocation.record(row)\n        finally:\n            invocation.landed(flight)\n"
        "        if held is not None:\n            yield held\n",
        "        finally:\n            invocation.landed(flight)\n"
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
        ["tests/adk/test_adk_servers.py::test_a_url_names_our_sessions[memory]"],
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
    Plant(
        "a worker takes what waits for a person, again and again",
        ADK + "invocation.py",
        "                finish.due_ms = NEVER_MS\n",
        "                pass\n",
        [WORKERS + "test_one_that_waits_for_a_person_is_left_alone"],
    ),
    Plant(
        "a worker goes on with nothing to go on with",
        ADK + "serving.py",
        "        if began_last(claimed.rows) is None:\n",
        "        if False:\n",
        [WORKERS + "test_one_whose_message_was_never_stored"],
    ),
    Plant(
        "an invocation that a worker has claimed is claimed once more",
        ADK + "serving.py",
        "        self._plugin.handed[names.run_id] = self._invocation\n",
        "",
        [WORKERS + "test_one_that_kills_its_workers_is_parked"],
    ),
    Plant(
        "an agent goes on while its worker drains",
        ADK + "invocation.py",
        "        if self._quiet is not None:\n            await self._hold()\n",
        "",
        [WORKERS + "test_sigterm_lets_calls_in_flight_finish_and_begins_none"],
    ),
    Plant(
        "a worker that drains cuts off the calls in flight",
        ADK + "invocation.py",
        "        if self._quiet is not None and self._is_held and not self.flying:\n",
        "        if self._quiet is not None:\n",
        [WORKERS + "test_sigterm_lets_calls_in_flight_finish_and_begins_none"],
    ),
    Plant(
        "invocations that somebody is at are listed as abandoned",
        ADK + "abandoned.py",
        "    if row.owner is None:\n        return True\n",
        "    if True:\n        return True\n",
        [WORKERS + "test_abandoned_ones_are_listed_by_their_names"],
    ),
    Plant(
        "what an agent saved is not there when it is resumed",
        ADK + "saving.py",
        "    await made._saves.restore()\n",
        "",
        [EXPLICIT + "test_a_checkpoint_whose_event_was_not_stored"],
    ),
    Plant(
        "the event of a save comes before its checkpoint",
        ADK + "saving.py",
        "                delta = {key: _as_json(key, value) for key, value in changed.items()}\n",
        "                delta = {key: _as_json(key, value) for key, value in changed.items()}\n"
        "                await self._append(delta)\n",
        [EXPLICIT + "test_a_checkpoint_whose_event_was_not_stored"],
    ),
    Plant(
        "what an agent appends itself is stored again",
        ADK + "turn.py",
        "            made.session_service = self.sessions  # also for agents that append events themselves\n",
        "",
        [EXPLICIT + "test_inside_a_graph_and_between_agents"],
    ),
    Plant(
        "a change inside a list is not seen",
        ADK + "saving.py",
        "        return codec.fingerprint(to_json(value))\n",
        "        return id(value)\n",
        [EXPLICIT + "test_what_changed_is_saved_and_nothing_else"],
    ),
]
