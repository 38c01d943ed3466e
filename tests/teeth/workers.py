"""Bugs planted in queues and workers: what is submitted, taken, let go of, parked, and finished in a drain."""

from __future__ import annotations

from .plant import Plant

WORKER = "tests/worker/test_worker.py::"
PARKED = "tests/worker/test_parked.py::"
SUBMIT = "tests/worker/test_submit.py::"
TROUBLE = "tests/worker/test_trouble.py::"
PROCESSES = "tests/worker/test_worker_processes.py::"

PLANTED = [
    Plant(
        "the id of another work is submitted without a word",
        "src/holdfast/submitting.py",
        "    refuse_other_work(found, call.definition, inputs)\n",
        "",
        [SUBMIT + "test_the_same_id_is_the_same_run[memory]"],
    ),
    Plant(
        "a run that submits without an id submits another one on each resume",
        "src/holdfast/submitting.py",
        "from .context import uuid4, uuid4_in\n",
        "from uuid import uuid4\n\nuuid4_in = lambda frame: uuid4()\n",
        [
            SUBMIT + "test_a_run_that_submits_without_an_id_submits_the_same_on_a_resume[memory]",
            SUBMIT + "test_a_plain_def_submits_without_an_id_too[memory]",
        ],
    ),
    Plant(
        "the runs of a program are in no queue of their workflow",
        "src/holdfast/admission.py",
        "        queue=definition.queue,\n",
        '        queue="default",\n',
        [SUBMIT + "test_the_queue_is_the_workflows_or_the_one_named[memory]"],
    ),
    Plant(
        "the limit of a queue is each worker's own affair",
        "src/holdfast/worker.py",
        "at_once=queue.limit,",
        "at_once=None,",
        [WORKER + "test_the_limit_of_a_queue_holds_over_two_workers[memory]"],
    ),
    Plant(
        "a run that waits for its slot is begun",
        "src/holdfast/worker.py",
        "limit=free - len(claimed),",
        "limit=free - len(claimed) + 1,",
        [WORKER + "test_no_more_runs_at_once_than_there_are_slots[memory]"],
    ),
    Plant(
        "a store that fails for a moment ends the worker",
        "src/holdfast/worker.py",
        "            except StoreError as error:\n                away_s",
        "            except ZeroDivisionError as error:\n                away_s",
        [TROUBLE + "test_no_one_call_that_fails_for_a_while_stops_it[owners]"],
    ),
    Plant(
        "a run that the store refuses is tried again without end",
        "src/holdfast/served.py",
        "RETRY_FIRST_S * 2.0 ** min(failed, 32)",
        "RETRY_FIRST_S",
        [TROUBLE + "test_a_run_that_the_store_refuses_is_tried_again_ever_more_seldom"],
    ),
    Plant(
        "deaths before the last checkpoint count",
        "src/holdfast/served.py",
        'claim.found in ("died", "lapsed") and claim.epoch > since',
        'claim.found in ("died", "lapsed")',
        [PARKED + "test_deaths_in_a_row"],
    ),
    Plant(
        "a person's resume does not count anew",
        "src/holdfast/served.py",
        "list(takewhile(lambda",
        "list(filter(lambda",
        [PARKED + "test_deaths_in_a_row"],
    ),
    Plant(
        "a run parked by a worker forgets which failures are tried anew",
        "src/holdfast/served.py",
        "seqs=_tried_anew(before)",
        "seqs=[]",
        [PARKED + "test_a_parked_run_keeps_the_failures_that_are_to_be_tried_anew[memory]"],
    ),
    Plant(
        "a drained run begins its next step",
        "src/holdfast/calls.py",
        "        await run.hold()\n",
        "        pass\n",
        [PROCESSES + "test_drained_a_worker_loses_no_step_in_flight[sqlite-SIGTERM]"],
    ),
    Plant(
        "a drain cuts the step in flight off",
        "src/holdfast/run.py",
        'row.kind == "step" and row.seq == 0 for row',
        "row.seq < 0 for row",
        [PROCESSES + "test_drained_a_worker_loses_no_step_in_flight[sqlite-SIGTERM]"],
    ),
    Plant(
        "a run that is parked is told of twice",
        "src/holdfast/execution.py",
        " and not is_told:\n",
        ":\n",
        [TROUBLE + "test_a_run_that_diverged_is_told_of_in_one_line"],
    ),
]
