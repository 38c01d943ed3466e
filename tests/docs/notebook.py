"""A notebook for the cells of a page: IPython in a process of its own, as a kernel has it.

It does what Jupyter's kernel does, without the sockets: one event loop for all cells, ``await`` at their top level, and
an interrupt that cancels the cell.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

END = "\x1e"  # stands at the end of what a cell printed


class Notebook:
    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=folder,
            env={**environ, "IPYTHONDIR": str(folder / ".ipython")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def run(self, cell: str, *, stop_at: str | None = None) -> str:
        """What the cell prints; with ``stop_at`` it is interrupted when it has printed that."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(cell) + "\n")
        process.stdin.flush()
        printed = ""
        while not printed.endswith(END):
            line = process.stdout.readline()
            assert line, f"the notebook died:\n{printed}"
            printed += line.rstrip("\n") if END in line else line
            if stop_at is not None and stop_at in line:
                process.send_signal(signal.SIGINT)
                stop_at = None
        assert stop_at is None, f"the cell ended without saying {stop_at!r}:\n{printed}"
        return printed.removesuffix(END)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


async def serve_cells() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_line_magic("xmode", "Minimal")
    shell.run_line_magic("colors", "NoColor")
    shell.displayhook.write_output_prompt = lambda: None  # no Out[3], which depends on the cells before
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        cell = json.loads(line)
        task = asyncio.ensure_future(shell.run_cell_async(cell, transformed_cell=shell.transform_cell(cell)))
        loop.add_signal_handler(signal.SIGINT, task.cancel)
        await asyncio.wait({task})
        sys.stdout.write(END + "\n")
        sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve_cells())
