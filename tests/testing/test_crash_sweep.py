"""The crash sweep finds what is wrong, says where, and can be told to go there again."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sabotage

from holdfast import workflow
from holdfast.testing import crash_sweep

pytestmark = pytest.mark.crash


def failure(target: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        crash_sweep(target, seed=7, **options)
    return str(caught.value)


def test_the_report() -> None:
    sweep = crash_sweep(sabotage.summed(2), seed=7, second=3)
    assert sweep.result == 1 and sweep.unreached == []
    # create, two steps (the second with the end of the run or before it)
    assert sweep.points[:4] == ["commit 1 before", "commit 1 after", "commit 2 before", "commit 2 after"]
    assert sweep.kills >= len(sweep.points) and sweep.processes > sweep.kills and sweep.seconds > 0
    assert str(sweep).startswith("crash sweep of summed(n=2): ") and "seed 7" in str(sweep)


def test_the_seed_chooses() -> None:
    sweeps = [crash_sweep(sabotage.summed(4), seed=seed, limit=2, second=2).points for seed in (1, 1, 2, 3)]
    assert sorted(sweeps[0]) == sorted(sweeps[1]) and any(sorted(each) != sorted(sweeps[0]) for each in sweeps[2:])


def test_only_one_point() -> None:
    assert crash_sweep(sabotage.summed(2), only="commit 2 after").points == ["commit 2 after"]
    twice = "commit 1 after, then claim 1 before"
    sweep = crash_sweep(sabotage.summed(2), only=twice)
    assert (sweep.points, sweep.kills, sweep.processes) == ([twice], 2, 5)
    assert crash_sweep(sabotage.summed(2), only="commit 99 after").unreached == ["commit 99 after"]
    with pytest.raises(ValueError, match="commit 3 after"):
        crash_sweep(sabotage.summed(2), only="commit three")


def test_arguments_of_every_kind() -> None:
    assert crash_sweep(sabotage.summed(1, 10, 20, start=5), limit=2, second=0).result == 35


def test_a_store_of_ones_own() -> None:
    assert crash_sweep(sabotage.summed(2), store=sabotage.sound, second=2).result == 1


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (sabotage.forgetful, "seq has a gap: [1, 3]"),
        (sabotage.forgetful, "add#1 returned in process 1, and its row is lost"),
        (sabotage.forgetful, "the commit of seq 2 (add#1) was acknowledged, and is lost or changed"),
        (sabotage.amnesiac, "add#1 (seq 2, done) was committed under epoch 1, and executed again under epoch 2"),
        (sabotage.undying, "1 owners of it were killed, it counts 0 deaths"),
    ],
)
def test_a_store_with_something_wrong(store: Callable[[Path], Any], told: str) -> None:
    text = failure(sabotage.summed(3), store=store)
    assert told in text, text
    assert "seed 7" in text and "ledger:\n  process 1: " in text
    found = re.search(r"replay: crash_sweep\(…, (?:only='(.*)', )?seed=7\)", text)
    assert found is not None, text
    assert told in failure(sabotage.summed(3), store=store, only=found[1])


def test_an_outcome_that_differs() -> None:
    assert "a run nobody killed, with [3, " in failure(sabotage.where_it_ran())


def test_a_program_that_fails() -> None:
    text = failure(sabotage.broken())
    assert "the program itself: ZeroDivisionError" in text and "raises=" in text
    crash_sweep(sabotage.broken(), raises=ZeroDivisionError, second=1)
    assert "and not with OSError" in failure(sabotage.summed(1), raises=OSError)


# -- what can be swept ---------------------------------------------------------------------------------------


def test_what_another_process_cannot_find() -> None:
    @workflow(version="1")
    async def local() -> None: ...

    with pytest.raises(TypeError, match="made inside a function"):
        crash_sweep(local())
    with pytest.raises(TypeError, match="expected the call of a workflow"):
        crash_sweep(42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="made inside a function"):
        crash_sweep(sabotage.summed(1), store=lambda folder: sabotage.sound(folder))


SCRIPT = """
    import asyncio
    import holdfast
    from holdfast import step, workflow
    from holdfast.testing import crash_sweep

    @step
    async def check(app_id: str) -> int:
        print("printed by a step")
        return len(app_id)

    @workflow(version="1")
    async def review(app_id: str) -> int:
        return await check(app_id) + await check(app_id + "x")

    @workflow
    def plain(app_id: str) -> str:
        return app_id * 2

    def under(app_id: str) -> str:
        return app_id

    renamed = workflow(version="1", name="another")(under)
"""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "loans.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(script))
    return subprocess.run([sys.executable, "loans.py"], cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_script(tmp_path: Path) -> None:
    done = run(
        """
        if __name__ == "__main__":
            print(crash_sweep(review("A-17"), second=1))
            print(crash_sweep(plain.bind("A-17"), second=1).result)
            print(crash_sweep(renamed.bind("B"), second=1))
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith("crash sweep of review(app_id='A-17'): ") and second == "A-17A-17"
    assert third.startswith("crash sweep of another(app_id='B'): ")


def test_a_script_that_sweeps_when_it_is_imported(tmp_path: Path) -> None:
    done = run('crash_sweep(review("A-17"))\n', tmp_path)
    assert done.returncode == 1 and 'put it under if __name__ == "__main__":' in done.stderr


def test_a_module_that_starts_threads(tmp_path: Path) -> None:
    done = run(
        """
        import threading
        threading.Thread(target=threading.Event().wait, daemon=True, name="poller").start()
        if __name__ == "__main__":
            crash_sweep(review("A-17"))
        """,
        tmp_path,
    )
    assert done.returncode == 1 and "started threads (poller)" in done.stderr


def test_a_program_that_hangs(tmp_path: Path) -> None:
    done = run(
        """
        @workflow(version="1")
        async def hanging() -> None:
            await check("x")
            await asyncio.sleep(100)

        if __name__ == "__main__":
            crash_sweep(hanging(), timeout=2)
        """,
        tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "did not end within 2 s" in done.stderr and "Timeout (0:00:01.800000)!" in done.stderr
