"""Bugs planted in what keeps values beside their rows."""

from __future__ import annotations

from .plant import Plant

APART = "tests/blobs/test_apart.py::"
BLOBS = "src/holdfast/blobs.py"

BLOB = "tests/blobs/test_blob.py::"
BUCKETS = "tests/blobs/test_buckets.py::"
PLANTED = [
    Plant(
        "what is read of a blob is not compared with its hash",
        BLOBS,
        "        if digest.digest() != named.hash:\n",
        "        if False:\n",
        [APART + "test_a_lost_one_is_named_and_the_run_stays_resumable"],
    ),
    Plant(
        "a blob that was damaged counts as kept",
        BLOBS,
        "self._store.renew_blob(named.hash) and self.flaw_of(named) is None",
        "self._store.renew_blob(named.hash)",
        [APART + "test_a_blob_is_not_trusted_to_say_how_much_memory_it_takes"],
    ),
    Plant(
        "a blob says itself how much memory it takes",
        BLOBS,
        "        if zstandard.frame_content_size(data) != size_bytes:\n",
        "        if False:\n",
        [APART + "test_a_blob_is_not_trusted_to_say_how_much_memory_it_takes"],
    ),
    Plant(
        "recalled values are all brought at once",
        "src/holdfast/bringing.py",
        "AHEAD_MAX = 8",
        "AHEAD_MAX = 8_000",
        [APART + "test_many_at_once_are_brought_in_their_order_and_few_at_a_time"],
    ),
    Plant(
        "what is delivered next may have to wait for what is delivered later",
        "src/holdfast/bringing.py",
        " or self._waiting[0][0] < min(self._turns)):",
        "):",
        [APART + "test_what_is_delivered_next_may_always_be_brought"],
    ),
    Plant(
        "what comes behind a value does not wait until that is brought",
        "src/holdfast/apart.py",
        "        run.delivery.hold(row.seq)  # what comes behind it waits\n",
        "        pass\n",
        [APART + "test_what_comes_behind_waits_for_a_slow_one"],
    ),
    Plant(
        "a cancellation while a value is kept leaves its call without an outcome",
        "src/holdfast/apart.py",
        "            if run.is_leaving:\n                raise\n            interrupted = True\n    run.check()",
        "            raise\n    run.check()",
        [APART + "test_a_cancellation_while_it_is_kept_finds_the_outcome_recorded"],
    ),
    Plant(
        "a row names only the blob that its result became",
        "src/holdfast/apart.py",
        "hashes_in(named.encode(), row.result)",
        "named.hash",
        ["tests/blobs/test_blob.py::test_a_big_result_of_blobs_names_them_all"],
    ),
    Plant(
        "a file is replaced by what is damaged",
        "src/holdfast/blob.py",
        '            with os.fdopen(handle, "wb") as copied:\n',
        '            os.close(handle)\n            with target.open("wb") as copied:\n',
        ["tests/blobs/test_blob.py::test_what_is_damaged_is_not_given_out"],
    ),
    Plant(
        "a trouble with the store while a value is kept is the step's own failure",
        "src/holdfast/apart.py",
        "        raise run.poison(error) from None\n\n\ndef _moved",
        "        raise RuntimeError(str(error)) from None\n\n\ndef _moved",
        [APART + "test_one_that_cannot_be_kept_stops_the_run_and_is_no_failure_of_the_step"],
    ),
    Plant(
        "what was kept before there was a bucket is lost",
        "src/holdfast/buckets.py",
        "            return self._from_database(named)\n",
        "            raise self._missing(named) from None\n",
        ["tests/blobs/test_buckets.py::test_what_was_in_the_database_before_is_found[file]"],
    ),
    Plant(
        "a row names a file that is in a folder and not on the disk",
        "src/holdfast/buckets.py",
        "            _sync(self._folder / name)\n",
        "            pass\n",
        ["tests/blobs/test_buckets.py::test_what_another_put_in_a_folder_is_on_the_disk_before_it_is_named"],
    ),
    Plant(
        "a plan keeps big values",
        "src/holdfast/cli/planning.py",
        "blobs=unwritten_blobs(hf._blobs)",
        "blobs=hf._blobs",
        ["tests/blobs/test_buckets.py::test_a_plan_keeps_nothing"],
    ),
    Plant(
        "what a bucket gives is not compared with its hash",
        "src/holdfast/buckets.py",
        "            yield bytes(piece)\n        if digest.digest() != named.hash:\n",
        "            yield bytes(piece)\n        if False:\n",
        ["tests/blobs/test_buckets.py::test_a_damaged_file_is_not_given_out[file]"],
    ),
    Plant(
        "a file is in memory whole while it is copied",
        "src/holdfast/blob.py",
        "            for part in self._held().parts(self._named):\n                target.write(part)\n",
        '            target.write(b"".join(self._held().parts(self._named)))\n',
        [BLOB + "test_memory_does_not_grow_with_it", BUCKETS + "test_memory_does_not_grow_with_a_file"],
    ),
]
