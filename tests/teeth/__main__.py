"""``python -m tests.teeth [part of a name …]``"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import PLANTED, plant


def main(parts: list[str]) -> int:
    chosen = [each for each in PLANTED if not parts or any(part in each.name for part in parts)]
    began, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="holdfast-teeth-") as name, ThreadPoolExecutor(2) as pool:
        folders = [Path(name) / str(number) for number in range(len(chosen))]

        def timed(each: plant.Plant, folder: Path) -> tuple[str | None, float]:
            start = time.monotonic()
            return plant.verdict(each, folder), time.monotonic() - start

        for each, (verdict, seconds) in zip(chosen, pool.map(timed, chosen, folders), strict=True):
            wrong += verdict is not None
            print(f"{'noticed' if verdict is None else 'NOT NOTICED'} ({seconds:.1f} s): {each.name}", flush=True)
            if verdict is not None:
                print(verdict, flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} planted bugs noticed in {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
