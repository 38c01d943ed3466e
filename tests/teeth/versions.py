"""Bugs planted in what becomes of a run under other code."""

from __future__ import annotations

from .plant import Plant

MATRIX = "tests/versions/test_matrix.py"
SALVAGE = "tests/versions/test_salvage.py"
CODE = "tests/versions/test_code.py"
SUITE = "tests/store/test_store_suite.py"

PLANTED = [
    Plant(
        "the row of a run keeps its old version",
        "src/holdfast/store/sqlite_batch.py",
        "    _revise(db, batch.revisions)\n    if _finish",
        "    if _finish",
        [SUITE + "::TestSQLite", MATRIX],
    ),
    Plant(
        "a fenced owner revises the run",
        "src/holdfast/store/memory.py",
        "            return False\n        standing.update(fresh)\n",
        "            pass\n        standing.update(fresh)\n",
        [SUITE + "::TestMemory"],
    ),
    Plant(
        "a result is kept twice",
        "src/holdfast/salvage.py",
        "        self._claimed.add(seq)\n",
        "",
        [SALVAGE + "::test_each_result_is_kept_once"],
    ),
    Plant(
        "what was kept before a crash is kept again",
        "src/holdfast/salvage.py",
        "        for source in sources.values():\n            self._claim(source)\n",
        "",
        [SALVAGE + "::test_a_salvage_that_was_cut_off_goes_on_with_what_it_has"],
    ),
    Plant(
        "a call without arguments takes the result of another branch",
        "src/holdfast/salvage.py",
        ' or (row.kind != "signal" and row.fingerprint != _NO_INPUTS):\n            self._anywhere[what].append(row)',
        " or True:\n            self._anywhere[what].append(row)",
        [MATRIX],
    ),
    Plant(
        "a kept call does not stand for its insides",
        "src/holdfast/salvage.py",
        "        self._claimed.update(each.seq for each in inside)\n",
        "",
        [SALVAGE + "::test_what_is_inside_of_a_kept_call_is_not_kept_once_more"],
    ),
    Plant(
        "a restart keeps what was done",
        "src/holdfast/salvage.py",
        '            keeps = keeps and begins.status == "salvage"\n',
        "",
        [MATRIX, SALVAGE],
    ),
    Plant(
        "a restart does what was done once again",
        "src/holdfast/salvage.py",
        "if row.seq in self._once or (keeps and row.seq not in self._misshapen):",
        "if keeps and row.seq not in self._misshapen:",
        [SALVAGE],
    ),
    Plant(
        "other inputs do again what was done once",
        "src/holdfast/salvage.py",
        "            self._refuse_repetition(sought)\n",
        "",
        [SALVAGE],
    ),
    Plant(
        "a result that changed a state of another shape is kept",
        "src/holdfast/salvage.py",
        "                    self._misshapen.add(row.seq)\n",
        "                    pass\n",
        [CODE + "::test_the_state_of_a_run_is_migrated_and_what_changed_it_is_done_anew"],
    ),
    Plant(
        "what is kept leaves its change of the state behind",
        "src/holdfast/calls.py",
        "await recorded(call, row, decode_change(source).step, source.seq)",
        "await recorded(call, row, None, source.seq)",
        [SALVAGE + "::test_state_comes_along_with_what_is_kept"],
    ),
    Plant(
        "the state of an earlier attempt is read with this one's",
        "src/holdfast/state.py",
        "    for each in present(list(rows)):\n",
        "    for each in rows:\n",
        ["tests/versions/test_show.py"],
    ),
    Plant(
        "Python's version does not count",
        "src/holdfast/versions.py",
        "    return (row.version, row.schema_version, row.python) != now\n",
        "    return (row.version, row.schema_version) != now[:2]\n",
        [SALVAGE + "::test_another_python_counts_as_another_version"],
    ),
    Plant(
        "an upgrade skips the versions between",
        "src/holdfast/upgrades.py",
        "    chain = list(definition.upgrade.values())[definition.older_versions.index(row.version) :]\n",
        "    chain = list(definition.upgrade.values())[definition.older_versions.index(row.version) :][:1]\n",
        [CODE + "::test_results_are_upgraded_step_by_step"],
    ),
    Plant(
        "an upgraded result is not checked",
        "src/holdfast/upgrades.py",
        "    data = codec.encode(value, definition.result_types, where, root=row.name)\n",
        "    return value\n    data = codec.encode(value, definition.result_types, where, root=row.name)\n",
        [CODE + "::test_an_upgrade_that_fails_parks_the_run_and_loses_nothing"],
    ),
    Plant(
        "docstrings are code",
        "src/holdfast/syntax.py",
        "        value = value[1:] or [ast.Pass()] if ast.get_docstring(node, clean=False) is not None else value\n",
        "        pass\n",
        [CODE],
    ),
    Plant(
        "a sleep that has begun begins again",
        "src/holdfast/waits.py",
        '            since, until = (codec.readable(earlier.result or b"")[name] for name in ("since", "until"))\n',
        "            pass\n",
        [SALVAGE + "::test_waits_of_the_attempt_before_are_not_waited_for_again"],
    ),
    Plant(
        "a worker that refuses takes states of another shape",
        "src/holdfast/known.py",
        "PYTHON, definition.schema_version or 0) if refuses",
        "PYTHON) if refuses",
        ["tests/worker/test_left_alone.py::test_a_state_of_another_shape_is_other_code"],
    ),
    Plant(
        "a session's save leaves its schema version as it was",
        "src/holdfast/session.py",
        "self._revision(row, checkpoint) if is_other else checkpoint",
        "checkpoint",
        ["tests/versions/test_sessions.py"],
    ),
]
