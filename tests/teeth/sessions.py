"""Bugs planted in what ADK sessions rest on: one event after the last, all or nothing, windows, what is believed."""

from __future__ import annotations

from .plant import Plant

SUITE = "tests/store/test_store_suite.py::TestSQLite::"
CONTRACT = "tests/adk/test_session_contract.py::"
WINDOWS = "tests/adk/test_session_windows.py::"
SERVICE = "tests/adk/test_session_service.py::"

PLANTED = [
    Plant(
        "an event is written whatever the last one is",
        "src/holdfast/store/dialogs.sql",
        "WHERE dialog.no = v.column1 AND dialog.seq = v.column2 - 1\n",
        "WHERE dialog.no = v.column1\n",
        [SUITE + "test_who_is_not_at_the_last_event_adds_nothing"],
    ),
    Plant(
        "the keys of an event that is not written are",
        "src/holdfast/store/sqlite_dialogs.py",
        "for each in moved for key in each.shared",
        "for each in given for key in each.shared",
        [SUITE + "test_of_what_is_refused_for_its_place_no_key_counts"],
    ),
    Plant(
        "an event and its keys are several transactions",
        "src/holdfast/store/sqlite.py",
        "in_transaction(db, lambda: sqlite_dialogs.extend(db, part))",
        "sqlite_dialogs.extend(db, part)",
        [SUITE + "test_what_cannot_be_held_is_refused_alone"],
    ),
    Plant(
        "an event that is sent again is taken for another's",
        "src/holdfast/store/sqlite_dialogs.py",
        "            if found == [(event.dialog_no, event.checksum)]:\n",
        "            if False:\n",
        [SUITE + "test_who_is_not_at_the_last_event_adds_nothing"],
    ),
    Plant(
        "the state of a deleted session stays",
        "src/holdfast/store/dialog_writing.py",
        '        db.ask("delete_shared", {"owner": owner_of(app, user_id, id)})\n',
        "",
        [SUITE + "test_a_deleted_dialog_leaves_nothing"],
    ),
    Plant(
        "a window has only what was asked for",
        "src/holdfast/adapters/adk/loading.py",
        "    if kept is not None and kept.first <= after:\n",
        "    if kept is not None and kept.first < 0:\n",
        [WINDOWS + "test_what_a_window_keeps[memory]"],
    ),
    Plant(
        "the end of any agent is the end of all",
        "src/holdfast/adapters/adk/revision.py",
        'root != "" and root == _speaker_of(event)',
        'root != ""',
        [WINDOWS + "test_what_ended_inside_an_invocation_is_not_its_end"],
    ),
    Plant(
        "tasks that share a session do not take turns",
        "src/holdfast/adapters/adk/sessions.py",
        "        lock = self._lock_of(session)\n",
        "        lock = asyncio.Lock()\n",
        [CONTRACT + "test_tasks_that_share_a_session_append_in_turn[memory]"],
    ),
    Plant(
        "an event is believed though its row was changed",
        "src/holdfast/adapters/adk/rows.py",
        "    if not _is_as_written(row, owner):\n",
        "    if row.seq < 0:\n",
        ["tests/adk/test_session_damage.py"],
    ),
    Plant(
        "sessions are read on the loop's thread",
        "src/holdfast/adapters/adk/sessions.py",
        "        return await self._holdfast._read(work, self._holdfast._store, *given)\n",
        "        return work(self._holdfast._store, *given)\n",
        [SERVICE + "test_the_store_is_never_called_on_the_loops_thread"],
    ),
]
