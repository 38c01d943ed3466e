"""Somebody with an empty folder and a terminal, who does what a page says, in its order.

Why this way, and why with sybil, is in docs/design/executed-docs.md.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from notebook import Notebook
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

COMMAND_TIMEOUT_S = 120
POLL_S = 0.02


class Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = ""  # what the last block of commands printed
        self.blocks = {"python": 0, "sh": 0, "text": 0, "yaml": 0}
        self.saved: list[str] = []
        self.typed: list[str] = []
        self.notebook: Notebook | None = None
        self.jobs: list[subprocess.Popen[str]] = []
        self.ports: dict[str, int] = {}
        here = str(Path(sys.executable).parent)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")},
            "PATH": os.pathsep.join([here, os.environ.get("PATH", "")]),
            "PYTHONIOENCODING": "utf-8",
        }

    def save_file(self, example: Example) -> None:
        """A block of Python is a file, whose name its first line says, or a cell of the page's notebook."""
        self.blocks["python"] += 1
        cell = re.match(r'# a cell(?:, stopped at "(.+)")?\n', example.parsed)
        if cell:
            if self.notebook is None:
                self.notebook = Notebook(self.folder, self.environ)
            self.seen = self.notebook.run(example.parsed, stop_at=cell[1])
            return
        named = re.match(r"# (\w+\.py)\n", example.parsed)
        assert named, "the first line of a Python block is the name of its file, as in `# loans.py`"
        self.saved.append(named[1])
        # What was compiled of an earlier version of the file may be of the same second and size.
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)
        (self.folder / named[1]).write_text(example.parsed, encoding="utf-8")

    def type_commands(self, example: Example) -> None:
        """A block of shell is typed line by line; a comment may say how a command ends: see ``_type``."""
        self.blocks["sh"] += 1
        self.seen = ""
        for line in example.parsed.splitlines():
            command, _, comment = line.partition("#")
            words = shlex.split(command)
            if words:
                self.typed.append(command)
                self._type(words, comment)

    def take_steps(self, example: Example) -> None:
        """Of a block of YAML, the steps of a CI job that are commands of holdfast are typed."""
        self.blocks["yaml"] += 1
        steps = re.findall(r"^ *(?:- )?run: (holdfast .+)$", example.parsed, re.MULTILINE)
        assert steps, "a block of YAML of which nothing is executed"
        for command in steps:
            self.typed.append(command)
            self._type(command.split(), "")

    def _type(self, words: list[str], comment: str) -> None:
        """``2>&1``, ``2> FILE`` and ``&`` as in a shell; ``# kill -9 at "…"`` and ``# Ctrl-C at "…"`` are done when
        that is printed; ``# when work.log says "…"`` is waited for; ``# exit code 3`` is what it must end with,
        and 0 where nothing is said."""
        if words[0] == "curl":
            self.seen += self._fetch(words[1:])
        elif words[0] == "kill":
            cue = re.search(r'when (\S+) says "(.+)"', comment)
            if cue:
                self._wait_for(self.folder / cue[1], cue[2])
            self._kill(words[1:])
        else:
            program = shutil.which(words[0], path=self.environ["PATH"])
            assert program, f"{words[0]} is not installed beside {sys.executable}"
            both = "2>&1" in words
            command = [program, *(word for word in words[1:] if word not in ("2>&1", "&"))]
            cue = re.search(r'(kill -9|Ctrl-C) at "(.+)"', comment)
            if words[-1] == "&":
                self._start_job(command)
            elif cue:
                self._run_until(command, cue[2], signal.SIGKILL if cue[1] == "kill -9" else signal.SIGINT)
            else:
                code = re.search(r"exit code (-?\d+)", comment)
                self.seen += self._run(command, int(code[1]) if code else 0, both=both)

    def _run(self, command: list[str], code: int, *, both: bool) -> str:
        errors = subprocess.STDOUT if both else subprocess.PIPE
        process = self._popen(command, stdout=subprocess.PIPE, stderr=errors, process_group=0)
        try:
            stdout, stderr = process.communicate(timeout=COMMAND_TIMEOUT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has forked
                process.communicate()
        assert process.returncode == code, f"{command} ended with {process.returncode}:\n{stdout}{stderr}"
        printed = stdout if code == 0 or both else stdout + _error_in(stderr)
        return printed.replace(f"{self.folder}{os.sep}", "")

    def _run_until(self, command: list[str], cue: str, signal_number: int) -> None:
        """Run a program and stop it where it says so; what it printed so far is not compared."""
        process = self._popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert process.stdout is not None
            reached = any(cue in line for line in process.stdout)
            process.send_signal(signal_number)
            if signal_number != signal.SIGKILL:
                process.wait(COMMAND_TIMEOUT_S)
        finally:
            process.kill()
            process.communicate()
        assert reached, f"{command} ended without saying {cue!r}"

    def _popen(self, command: list[str], **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=self.folder, env=self.environ, encoding="utf-8", **more)

    # -- servers -------------------------------------------------------------------------------------------

    def _start_job(self, command: list[str]) -> None:
        """A server or a worker, left running until it is killed. A server is given a port that is free, whatever port
        the page names."""
        if "--port" not in command:
            log = Path(os.devnull)
            if "2>" in command:
                log = self.folder / command.pop(command.index("2>") + 1)
                command.remove("2>")
            with log.open("ab") as errors:
                self.jobs.append(self._popen(command, stdout=subprocess.DEVNULL, stderr=errors, process_group=0))
            return
        port = command[command.index("--port") + 1]
        self.ports[port] = _free_port()
        command[command.index("--port") + 1] = str(self.ports[port])
        self.jobs.append(self._popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0))
        until = time.monotonic() + COMMAND_TIMEOUT_S
        while not _answers(self.ports[port]):
            assert self.jobs[-1].poll() is None and time.monotonic() < until, f"{command} does not answer"
            time.sleep(POLL_S)

    def _wait_for(self, file: Path, cue: str) -> None:
        until = time.monotonic() + COMMAND_TIMEOUT_S
        while not file.exists() or cue not in file.read_text(encoding="utf-8"):
            assert time.monotonic() < until, f"{file} does not say {cue!r}"
            time.sleep(POLL_S)

    def _kill(self, words: list[str]) -> None:
        """``kill %1`` and ``kill -9 %1``, of the jobs as a shell numbers them: from 1, again when all have ended."""
        job = self.jobs[int(words[-1].lstrip("%")) - 1]
        job.send_signal(signal.SIGKILL if words[0] == "-9" else signal.SIGTERM)
        job.wait(COMMAND_TIMEOUT_S)
        if all(each.poll() is not None for each in self.jobs):
            self.jobs.clear()

    def _fetch(self, words: list[str]) -> str:
        """``curl``, which need not be installed: ``[-X METHOD] localhost:PORT/PATH``."""
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        port, path = words[-1].removeprefix("localhost:").split("/", 1)
        request = urllib.request.Request(f"http://localhost:{self.ports[port]}/{path}", method=method)
        with urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT_S) as response:
            return str(response.read().decode()) + "\n"

    def close(self) -> None:
        if self.notebook is not None:
            self.notebook.close()
        for job in self.jobs:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)  # its workers too
            job.wait()

    # -- what is compared ----------------------------------------------------------------------------------

    def compare_output(self, example: Example) -> str | None:
        """A block of text is what the commands before it print; … stands for anything within a line, and a line of
        its own for any lines."""
        self.blocks["text"] += 1
        lines = example.parsed.strip().split("\n")
        expected = "".join(
            r"(?:.*\n)*?" if line == "…" else ".*?".join(map(re.escape, line.split("…"))) + r"\n" for line in lines
        )
        if re.fullmatch(expected, self.seen.strip() + "\n"):
            return None
        return f"expected:\n{example.parsed}\nprinted:\n{self.seen}"


def _error_in(stderr: str) -> str:
    """The message of the last traceback: what follows its lines of code."""
    _, traceback, rest = stderr.rpartition("Traceback (most recent call last):\n")
    lines = rest.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    return "".join(lines[first:]) if traceback else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def read(page: Path, reader: Reader) -> Document:
    return Sybil(
        [
            CodeBlockParser("python", reader.save_file),
            CodeBlockParser("sh", reader.type_commands),
            CodeBlockParser("text", reader.compare_output),
            CodeBlockParser("yaml", reader.take_steps),
            SkipParser(),
        ]
    ).parse(page)
