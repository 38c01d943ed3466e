"""Real workers, killed, stopped and told to end; what they did is in a ledger outside of the store."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from importlib import import_module
from itertools import accumulate
from typing import Any

import pytest
from scene import Scene

from holdfast import lease

pytestmark = pytest.mark.crash
ENDED, CUT_OFF, INTERRUPTED = 0, 143, 130


@pytest.fixture
def jobs(scene: Scene) -> Any:
    """The module that the workers have; it needs the scene's environment to be imported."""
    return import_module("jobs")


def ids_of(number: int) -> list[str]:
    return [f"run-{n}" for n in range(number)]


def check_nothing_done_twice(scene: Scene, ids: list[str], stages: int, killed: set[str]) -> None:
    """Each stage was executed once; or again, if all who had it in flight before were killed, and recorded nothing."""
    began: dict[str, list[str]] = {}
    for line in scene.ledger():
        name, what, stage = line.split(" ", 2)
        if what == "began":
            began.setdefault(stage, []).append(name)
    for id in ids:
        rows = scene.rows(id)
        assert [row.seq for row in rows] == list(range(1, stages + 1))
        claimed_by = [claim.owner for claim in scene.claims(id)]
        for n, row in enumerate(rows):
            by = began[f"{id} {n}"]
            assert set(by[:-1]) <= killed and len(set(by)) == len(by), f"{id} stage {n} was executed by {by}"
            assert len(claimed_by) >= row.epoch >= len(by), f"{id} stage {n} was executed after it was recorded"


def test_kill_9_of_a_worker_with_200_runs(scene: Scene, jobs: Any) -> None:
    ids = ids_of(200)
    scene.hold(1, "a")
    scene.submit(*((id, jobs.staged(id, 3)) for id in ids))
    first = scene.worker("a", "--concurrency", "200")
    scene.until(lambda: sum(line.endswith(" 1") for line in scene.ledger()) == 200, lambda: len(scene.ledger()))
    first.kill()
    first.wait()
    scene.worker("b", "--concurrency", "120")
    scene.worker("c", "--concurrency", "120")
    scene.done(*ids)
    began = Counter(line.partition(" ")[2] for line in scene.ledger() if " began " in line)
    assert {n: {began[f"began {id} {n}"] for id in ids} for n in range(3)} == {0: {1}, 1: {2}, 2: {1}}
    assert {line.split()[0] for line in scene.ledger() if line.endswith((" 1", " 2")) and "ended" in line} <= {"b", "c"}
    for id in ids:
        row = scene.row(id)
        assert (row.deaths, row.epoch, [claim.found for claim in scene.claims(id)]) == (1, 2, ["queued", "died"])
    check_nothing_done_twice(scene, ids, 3, {"a"})


def test_kill_9_at_any_moment(scene: Scene, jobs: Any) -> None:
    """Workers are killed one after another, in the middle of whatever they do, until all runs are done."""
    seed = int(os.environ.get("HOLDFAST_SEED") or random.randrange(10**6))
    print(f"HOLDFAST_SEED={seed} replays it")
    chance = random.Random(seed)
    ids = ids_of(60)
    scene.submit(*((id, jobs.staged(id, 5)) for id in ids))
    killed: set[str] = set()
    for n in range(6):
        name = f"w{n}"
        process = scene.worker(name, "--concurrency", "20")
        scene.until(lambda name=name: any(line.startswith(name) for line in scene.ledger()), scene.told)  # type: ignore[misc]
        after = len(scene.ledger()) + chance.randrange(60)
        scene.until(lambda after=after: len(scene.ledger()) >= min(after, 500), scene.ledger)  # type: ignore[misc]
        process.kill()
        process.wait()
        killed.add(name)
    scene.worker("last", "--concurrency", "20")
    scene.done(*ids)
    check_nothing_done_twice(scene, ids, 5, killed)


def test_a_run_of_hf_run_is_taken_over_by_a_worker_when_its_process_dies(scene: Scene, jobs: Any) -> None:
    scene.hold(1, "program")
    line = f"-m holdfast run jobs:staged run-0 2 --id run-0 --store {scene.url}"
    program = scene.start("program", line.split())
    scene.has("program began run-0 1")
    scene.worker("a")
    scene.logs("a", "serves default")
    program.kill()
    scene.done("run-0")
    assert [line for line in scene.ledger() if " 0" in line and "began" in line] == ["program began run-0 0"]


# -- drain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_drained_a_worker_loses_no_step_in_flight(scene: Scene, jobs: Any, number: signal.Signals) -> None:
    scene.hold(1, "a")
    scene.hold(50, "a")
    for n in (2, 51):
        scene.hold(n, "b")
    scene.submit(
        ("run-0", jobs.staged("run-0", 3)),
        ("run-1", jobs.plain_staged.bind("run-1", 3)),
        ("rest", jobs.resting("rest")),
    )
    first = scene.worker("a")
    scene.has("a began run-0 1", "a began run-1 1", "a ended rest 0")
    first.send_signal(number)
    scene.logs("a", "draining 3 runs")
    scene.submit(("run-2", jobs.staged("run-2", 1)))
    scene.worker("b")
    scene.has("b ended run-2 0", "b began rest 51")  # it had no step in flight, and was let go of at once
    scene.release(1, "a")
    scene.ends(first, status=ENDED)
    assert not any(line.startswith("a") and line.endswith(" 2") for line in scene.ledger()), scene.ledger()
    scene.has("b began run-0 2", "b began run-1 2")
    for n in (2, 51):
        scene.release(n, "b")
    scene.done("run-0", "run-1", "run-2", "rest")
    for id in ("run-0", "run-1"):
        began = [line for line in scene.ledger() if f"began {id}" in line]
        assert began == [f"a began {id} 0", f"a began {id} 1", f"b began {id} 2"]
        assert scene.row(id).deaths == 0
    assert not any("cancelled" in line for line in scene.ledger())


def test_what_a_step_in_flight_calls_is_finished_with_it(scene: Scene, jobs: Any) -> None:
    scene.hold(0, "a")
    scene.submit(("in", jobs.inner_steps("in", 3)), ("wf", jobs.nested("wf", 3)), ("many", jobs.at_once("many", 3)))
    first = scene.worker("a")
    scene.has("a began in 0", "a began wf 0", "a began many 0", "a ended many 2")
    first.terminate()
    scene.logs("a", "draining 3 runs")
    scene.release(0, "a")
    scene.ends(first)
    ended = {line for line in scene.ledger() if " ended " in line}
    assert ended == {
        *(f"a ended in {n}" for n in range(3)),  # the inner steps of a step belong to it
        "a ended wf 0",  # a nested workflow is no step: it stops between two
        *(f"a ended many {n}" for n in range(3)),
    }
    scene.worker("b")
    scene.done("in", "wf", "many")
    began = [line.partition(" ")[2] for line in scene.ledger() if " began " in line]
    assert len(began) == len(set(began)), began


def test_drained_a_run_that_waits_is_let_go_of_and_goes_on_elsewhere(scene: Scene, jobs: Any) -> None:
    """One waits already, the other comes to it while its worker is drained: neither takes the grace period."""
    scene.hold(60, "a")
    scene.submit(("comes", jobs.asked("comes")), ("waits", jobs.waits("waits")))
    first = scene.worker("a", "--grace", "3600")
    scene.has("a began comes 60", "a ended waits 0")
    first.terminate()
    scene.logs("a", "draining")
    scene.release(60, "a")
    scene.ends(first)
    assert [scene.row(id).owner for id in ("waits", "comes")] == [None, None]
    scene.worker("b")
    scene.stands("waiting", "waits", "comes")
    scene.send("answer", 7, "waits", "comes")
    scene.done("waits", "comes")
    began = [line.partition(" ")[2] for line in scene.ledger() if " began " in line]
    assert len(began) == len(set(began)), began


def test_when_the_grace_period_ends_what_is_left_is_cut_off(scene: Scene, jobs: Any) -> None:
    scene.hold(0, "a")
    scene.submit(("run-0", jobs.staged("run-0", 2)), ("run-1", jobs.plain_staged.bind("run-1", 2)))
    first = scene.worker("a", "--grace", "0.2")
    scene.has("a began run-0 0", "a began run-1 0")
    first.terminate()
    scene.ends(first, status=CUT_OFF)
    assert "a cancelled run-0 0" in scene.ledger()
    assert [(scene.row(id).status, scene.row(id).owner) for id in ids_of(2)] == [("running", None)] * 2
    scene.worker("b")
    scene.done("run-0", "run-1")
    assert "b began run-0 0" in scene.ledger() and scene.row("run-0").deaths == 0


def test_what_is_cut_off_may_clean_up(scene: Scene, jobs: Any) -> None:
    scene.hold(0)
    scene.submit(("run-0", jobs.tidies("run-0")))
    worker = scene.worker("a", "--grace", "0.1")
    scene.has("a began run-0 0")
    worker.terminate()
    scene.ends(worker, status=CUT_OFF)
    assert scene.ledger()[-2:] == ["a cancelled run-0 0", "a tidied run-0"]


def test_a_second_signal_ends_it_at_once(scene: Scene, jobs: Any) -> None:
    scene.hold(0, "a")
    scene.submit(("run-0", jobs.staged("run-0", 2)))
    first = scene.worker("a", "--grace", "3600")
    scene.has("a began run-0 0")
    first.send_signal(signal.SIGINT)
    scene.logs("a", "draining 1 run,")
    first.send_signal(signal.SIGINT)
    scene.ends(first, status=INTERRUPTED)
    assert "a cancelled run-0 0" in scene.ledger()
    assert scene.row("run-0").owner is None


def test_a_worker_with_nothing_in_hand_ends_at_once(scene: Scene, jobs: Any) -> None:
    first = scene.worker("a")
    scene.logs("a", "serves default")
    first.terminate()
    scene.ends(first)


# -- zombies -------------------------------------------------------------------------------------------------


def test_a_worker_that_sleeps_past_its_lease_is_fenced_and_its_step_cancelled(scene: Scene, jobs: Any) -> None:
    scene.hold(1, "a")
    scene.submit(("run-0", jobs.staged("run-0", 3)))
    zombie = scene.worker("a", "--lease", "1")
    scene.has("a began run-0 1")
    zombie.send_signal(signal.SIGSTOP)
    second = scene.worker("b", "--lease", "1")
    scene.done("run-0")
    zombie.send_signal(signal.SIGCONT)
    scene.has("a cancelled run-0 1")
    scene.logs("a", "fenced")
    assert [claim.found for claim in scene.claims("run-0")] == ["queued", "lapsed"]
    assert [row.epoch for row in scene.rows("run-0")] == [1, 2, 2]
    second.terminate()
    scene.ends(second)
    scene.submit(("run-1", jobs.staged("run-1", 1)))  # and it goes on with others
    scene.has("a ended run-1 0")
    assert zombie.poll() is None


# -- limits --------------------------------------------------------------------------------------------------


def test_the_limit_of_a_queue_is_never_exceeded(scene: Scene, jobs: Any) -> None:
    """Three workers with two slots each: no one of them reaches the limit alone, and all together could exceed it."""
    ids = ids_of(40)
    scene.hold(0)
    scene.submit(*((id, jobs.counted(id)) for id in ids), queue="narrow")
    for name in ("a", "b", "c"):
        scene.worker(name, "--queue", "default", "--queue", "narrow:3", "--concurrency", "2")
    scene.until(lambda: len([line for line in scene.ledger() if " in " in line]) >= 3, scene.ledger)
    scene.release(0)
    scene.done(*ids)
    steps = [1 if " in " in line else -1 for line in scene.ledger() if " in " in line or " out " in line]
    assert max(accumulate(steps)) == 3, scene.ledger()


# -- runs that end their workers -----------------------------------------------------------------------------


def test_a_run_that_kills_its_workers_is_parked_and_the_others_finish(scene: Scene, jobs: Any) -> None:
    (scene.folder / "told").touch()
    scene.submit(("bad", jobs.deadly("bad")), ("good", jobs.staged("good", 2)))
    for name in ("a", "b"):
        (scene.folder / "told").write_text("")
        process = scene.worker(name, "--lease", "1")
        scene.has(f"{name} began bad crunch")
        scene.until(lambda: b"crunch" in (scene.row("bad").doing or b""), lambda: scene.row("bad"))
        (scene.folder / "told").write_text("crunch")
        scene.ends(process, status=-signal.SIGKILL)
    scene.worker("c", "--lease", "1")
    scene.done("good")
    scene.stands("parked", "bad")
    scene.logs("c", "parked: TooManyDeaths: 2 processes in a row died", "crunch (2 of 2)")
    assert scene.row("bad").deaths == 2 and "c began bad crunch" not in scene.ledger()


def test_a_run_with_progress_is_not_parked(scene: Scene, jobs: Any) -> None:
    """It kills more workers than it may in a row, and gets further with each."""
    scene.submit(("sure", jobs.sure_but_deadly("sure", 4)))
    for name in ("a", "b", "c"):
        scene.ends(scene.worker(name, "--lease", "1"), status=-signal.SIGKILL)
    scene.worker("d", "--lease", "1")
    scene.done("sure")
    assert scene.row("sure").deaths == 3


@pytest.mark.parametrize("how", ["leaves", "interrupts"])
def test_a_run_that_exits_in_its_own_code_does_not_take_the_worker_along(scene: Scene, jobs: Any, how: str) -> None:
    scene.hold(0, "a")
    scene.submit(("bad", getattr(jobs, how)("bad")), ("good", jobs.staged("good", 2)))
    worker = scene.worker("a")
    scene.has("a began bad 0", "a began good 0")
    scene.release(0, "a")
    scene.done("good")
    scene.stands("parked", "bad")
    assert worker.poll() is None
    scene.submit(("more", jobs.staged("more", 2)))
    scene.done("more")
    assert [line for line in scene.ledger() if "good" in line and "began" in line] == [
        "a began good 0",
        "a began good 1",
    ]


def test_owners_of_one_process_do_not_share_a_name() -> None:
    assert lease.owner_name() != lease.owner_name()
