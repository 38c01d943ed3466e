"""Planted bugs in what is done when the disk fails, the power goes or a process is killed."""

from __future__ import annotations

from .plant import Plant

_TORTURE = "tests/torture/test_torture.py::"
_FAULTS = _TORTURE + "test_calls_fail"
_CUTS = _TORTURE + "test_the_power_is_cut_before_every_call"
_STORE = "tests/store/test_sqlite_faults.py::"
_KILLS = _TORTURE + "test_processes_are_killed_at_any_moment"

_GIVEN_UP = (
    "                told = self._explained(error)\n"
    "                self._give_up_writer()\n"
    "                raise told from error\n"
)

PLANTED = [
    Plant(
        "a commit waits for the disk only when the log is copied",
        "src/holdfast/store/sqlite_file.py",
        'db.execute("PRAGMA synchronous = FULL")',
        'db.execute("PRAGMA synchronous = NORMAL")',
        [_CUTS],
    ),
    Plant(
        "a commit that the disk refused is acknowledged",
        "src/holdfast/journal.py",
        "            except Exception as error:\n                self._failed = error\n        self._tell",
        "            except Exception:\n                pass\n        self._tell",
        [_FAULTS],
    ),
    Plant(
        "a failed sync is tried again on the same handle",
        "src/holdfast/store/sqlite.py",
        _GIVEN_UP,
        "                if isinstance(error, apsw.IOError) and self._writer is not None:\n"
        "                    return work(self._writer)\n" + _GIVEN_UP,
        [_FAULTS],
    ),
    Plant(
        "a full disk is swallowed",
        "src/holdfast/store/sqlite.py",
        _GIVEN_UP,
        "                if isinstance(error, apsw.FullError):\n                    return Committed()\n" + _GIVEN_UP,
        [_FAULTS],
    ),
    Plant(
        "a failed handle is closed before another is open",
        "src/holdfast/store/sqlite.py",
        "            self._failed.append(db)\n",
        "            abandon(db)\n            Path(f'{self.path}-unsynced').unlink(missing_ok=True)\n",
        [_STORE + "test_a_commit_after_a_failed_sync_writes_its_pages_again"],
    ),
    Plant(
        "a log whose sync failed is believed",
        "src/holdfast/store/sqlite.py",
        "            settle_log(self.path, self._vfs)\n",
        "            pass\n",
        [_STORE + "test_a_log_left_by_a_failed_sync_is_written_anew_before_it_is_believed"],
    ),
    Plant(
        "a log in doubt is written over",
        "src/holdfast/store/sqlite_log.py",
        """    anew = f"{log}-anew"\n""",
        """    anew = log\n""",
        [_STORE + "test_a_log_left_by_a_failed_sync_is_written_anew_before_it_is_believed"],
    ),
    Plant(
        "a process that is killed has been told too early",
        "src/holdfast/journal.py",
        "                committed = self.store.commit(_batch(sent))\n",
        "                early = [entry for entry in entries if isinstance(entry.row, Checkpoint)]\n"
        "                for entry in early:\n"
        "                    self._ports[entry.loop].post([(entry, None, None)])\n"
        "                __import__('time').sleep(0.002)\n"
        "                committed = self.store.commit(_batch(sent))\n"
        "                entries = [entry for entry in entries if entry not in early]\n",
        [_KILLS],
    ),
    Plant(
        "a resume on a real store does not repeat the order",
        "src/holdfast/run.py",
        "        if self.tasks == 1:\n            pending.deliver()",
        "        if self.tasks == 1 or pending.row.seq <= self.recorded_until:\n            pending.deliver()",
        [_KILLS],
    ),
]
