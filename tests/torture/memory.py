"""Generated programs on the memory store, their records cut after every checkpoint: the campaign of tests/order."""

from __future__ import annotations

import sys
import time

from .case import ROOT, Findings


def run(seed: int, until: float, *, only: int | None = None) -> Findings:
    """``seed`` numbers the first program; with ``only`` that one is run, on both loops."""
    sys.path.insert(0, str(ROOT / "tests" / "order"))
    import harness
    import programs

    findings, began = Findings(), time.monotonic()
    number = seed if only is None else only
    while (time.monotonic() < until and only is None) or number == only:
        shown = repr(programs.tree_of(number))
        for loop in ("asyncio", "uvloop"):
            one = harness.Campaign("generated", lambda number=number: programs.generated(number), number, shown=shown)
            try:
                harness.on_loop(loop, one.through())
            except harness.Wrong as wrong:
                findings.wrong.append(f"order {number} (on {loop}):\n{wrong}")
            findings.injected["resumes in memory"] += one.resumes
        findings.cases += 1
        number += 1
    findings.seconds = time.monotonic() - began
    return findings
