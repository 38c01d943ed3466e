"""Bugs planted in what watchers rest on: order, exactness, the fence of news, and their bounds."""

from __future__ import annotations

from .plant import Plant

WATCH = "tests/watch/test_watch.py::"
WATCHER = "tests/watch/test_watcher.py::"
SUITE = "tests/store/test_store_suite.py::TestSQLite"

PLANTED = [
    Plant(
        "a checkpoint is committed before what was told ahead of it",
        "src/holdfast/journal.py",
        "                    self._newsroom.write_before(entry.row for entry in entries)\n",
        "",
        [WATCH + "test_checkpoints_and_news_come_in_the_order_of_happening"],
    ),
    Plant(
        "a watcher forgets which checkpoints it has seen",
        "src/holdfast/watching.py",
        "                self._seq, self._row_epoch = each.at, each.epoch\n",
        "                self._row_epoch = each.epoch\n",
        [WATCHER + "test_looks_tell_each_thing_once"],
    ),
    Plant(
        "news overtake the checkpoint they came after",
        "src/holdfast/watching.py",
        "            elif each.at > self._seq:\n",
        "            elif False:\n",
        [WATCHER + "test_news_wait_for_the_checkpoint_they_came_after"],
    ),
    Plant(
        "what a dead owner told after a lost checkpoint is shown",
        "src/holdfast/watching.py",
        "            elif each.at < self._seq or each.epoch >= self._row_epoch:\n",
        "            else:\n",
        [WATCHER + "test_news_after_a_checkpoint_that_never_came_are_void"],
    ),
    Plant(
        "a watcher reads the end of a run after its news",
        "src/holdfast/watching.py",
        "        events = list(self._in_order(rows, news))\n",
        "        events = list(self._in_order(rows, news))\n        run = self._store.get(self._id) or run\n",
        [WATCHER + "test_an_end_is_seen_with_everything_before_it"],
    ),
    Plant(
        "watchers hang when the one that looks for them goes",
        "src/holdfast/watching.py",
        "            beat.set_result(stamp)\n",
        "            if stamp is not None:\n                beat.set_result(stamp)\n",
        [WATCH + "test_watchers_with_nothing_to_see_look_together_and_read_nothing"],
    ),
    Plant(
        "the fence of news does not look at the epoch",
        "src/holdfast/store/queries.sql",
        "WHERE r.no = v.column1 AND r.epoch = v.column2 AND r.owner IS NOT NULL",
        "WHERE r.no = v.column1 AND r.owner IS NOT NULL",
        [SUITE],
    ),
    Plant(
        "what waits to be written has no bound",
        "src/holdfast/news.py",
        "            while self._bytes > WAITING_MAX_BYTES:\n",
        "            while False:\n",
        [WATCHER + "test_what_waits_is_bounded_and_what_was_dropped_is_counted"],
    ),
    Plant(
        "what is kept has no bound",
        "src/holdfast/news.py",
        "                news.forget, size = self._segments.popleft()\n",
        "                _, size = self._segments.popleft()\n",
        [WATCHER + "test_what_is_kept_is_bounded"],
    ),
    Plant(
        "a chunk is a write",
        "src/holdfast/news.py",
        "        if (self._arrived or self._waiting) and time.monotonic() >= self._written + FLUSH_EVERY_S:\n",
        "        if self._arrived or self._waiting:\n",
        [WATCH + "test_ten_thousand_chunks_take_few_writes_and_all_arrive"],
    ),
]
