"""Many short workflows at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from measure import VALUE, Result, SQLiteFloor, figure, ratios, rounded

import holdfast
from holdfast import step, workflow

TITLE = "200 workflows of 3 steps"
FLOOR = (
    "The floor is how many 1 KB rows a second one committed `INSERT` after the other makes. The workflows are started "
    "together; each writes a row for its start, one for each step, and its end. The same is done with workflows "
    "without a step, in turns: what these cost the loop's thread is the start and end of a run, and the rest of it the "
    "steps."
)
HELD_BY = (
    "What holds it: the Python on the loop's thread, which is one for all workflows. It alone takes the CPU time "
    "above, so no commit, however fast, would bring more workflows a second than that."
)

WORKFLOWS, STEPS = 200, 3


@step
async def fetch(i: int) -> bytes:
    return VALUE


@workflow(version="1")
async def short(steps: int) -> None:
    for i in range(steps):
        await fetch(i)


def measure(folder: Path, quick: bool) -> Result:
    floor = SQLiteFloor(folder / "floor.db")
    floor.warm()
    base, ours, loop, others, empty, each = [list[float]() for _ in range(6)]

    async def together(hf: holdfast.Holdfast, steps: int, turn: int) -> tuple[float, float, float]:
        """Microseconds a workflow: in all, CPU time of the loop's thread, CPU time of the others."""
        start, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        await asyncio.gather(*(hf.run(short(steps), id=f"{steps}-{turn}-{i}") for i in range(WORKFLOWS)))
        took, busy = time.perf_counter() - start, time.thread_time() - thread
        us = 1e6 / WORKFLOWS
        return took * us, busy * us, (time.process_time() - process - busy) * us

    async def main() -> None:
        async with holdfast.open(folder / "holdfast.db") as hf:
            for turn in range(-3, 2 if quick else 21):
                floor_us = floor.mean_us(300)
                whole, busy, other = await together(hf, STEPS, turn)
                _, without, _ = await together(hf, 0, turn)
                if turn >= 0:
                    rounds = (base, ours, loop, others, empty, each)
                    for times, took in zip(
                        rounds, (floor_us, whole, busy, other, without, (busy - without) / STEPS), strict=True
                    ):
                        times.append(took)

    asyncio.run(main())
    floor.close()
    return Result(
        [
            figure("workflows/s ÷ the floor's rows/s", ratios(base, ours), target=2, at_least=True),
            figure("a workflow", ours, "µs"),
            figure("the floor, a row", base, "µs"),
            figure("of a workflow, CPU time of the loop's thread", loop, "µs"),
            figure("of that, the start and end of the run", empty, "µs"),
            figure("of that, each step", each, "µs"),
            figure("CPU time of the other threads", others, "µs"),
        ],
        {
            "workflow_us": rounded(ours),
            "floor_us": rounded(base),
            "loop_us": rounded(loop),
            "start_and_end_us": rounded(empty),
            "step_us": rounded(each),
            "other_threads_us": rounded(others),
        },
    )
