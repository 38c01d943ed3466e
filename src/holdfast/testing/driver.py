"""The near end of the line to the zygote."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from .zygote import ENVIRONMENT, Program, Reply, Request

Lane = Generator["Request | Together", Any, None]
"""What is done in a folder, one process after the other: yields the request for each, and is sent its reply."""


@dataclass
class Together:
    """Lanes side by side, which the lane that yields it waits for."""

    lanes: Sequence[Lane]


_START_S = 120.0  # the user's module may import much


class Zygote:
    """Starts the process that imports the program and forks a child for each request; ends it and all it forked."""

    def __init__(self, program: Program, folder: Path) -> None:
        self._program = program
        self._log = folder / "zygote.log"
        self._lines = bytearray()
        self._under_way: dict[int, tuple[Request, float]] = {}
        self._awaited: dict[Lane, Lane] = {}  # by a lane side by side with others: who waits for them

    def __enter__(self) -> Zygote:
        reader, writer = os.pipe()
        self._in = reader
        search = os.pathsep.join(self._program.path)
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "holdfast.testing.zygote", str(writer)],
                    env={**os.environ, "PYTHONPATH": search, ENVIRONMENT: "1"},
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[writer],
                    start_new_session=True,  # so that all it forked can be ended with it
                )
            finally:
                os.close(writer)
        try:
            self._send(msgspec.json.encode(self._program))
            failed = msgspec.json.decode(self._line(_START_S), type=str)
            if failed:
                raise ImportError(f"the program could not be imported in a new process: {failed}\n{self._printed()}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait()
        os.close(self._in)

    def drive(self, lanes: Iterable[Lane], jobs: int) -> None:
        """Serve lanes to their ends, ``jobs`` of them at a time; none is begun before there is room for it."""
        todo = iter(lanes)
        active: dict[int, Lane] = {}
        while True:
            while len(active) < jobs and (lane := next(todo, None)) is not None:
                self._step(lane, None, active)
            if not active:
                return
            reply = self._receive()
            self._step(active.pop(reply.id), reply, active)

    def _step(self, lane: Lane, reply: Reply | None, active: dict[int, Lane]) -> None:
        try:
            asked = lane.send(reply)
        except StopIteration:
            waiting = self._awaited.pop(lane, None)
            if waiting is not None and waiting not in self._awaited.values():
                self._step(waiting, None, active)
            return
        if isinstance(asked, Together):
            self._awaited.update((each, lane) for each in asked.lanes)
            for each in asked.lanes:
                self._step(each, None, active)
            return
        active[asked.id] = lane
        self._under_way[asked.id] = (asked, time.monotonic() + self._program.timeout)
        self._send(msgspec.json.encode(asked))

    def _receive(self) -> Reply:
        deadline = min(until for _, until in self._under_way.values())
        reply = msgspec.json.decode(self._line(deadline - time.monotonic()), type=Reply)
        del self._under_way[reply.id]
        return reply

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone: the next line that is read says so

    def _line(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_READ)
            while b"\n" not in self._lines:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(self._late())
                data = os.read(self._in, 65536)
                if not data:
                    raise AssertionError(f"the process of the crash sweep is gone.\n{self._printed()}")
                self._lines += data
        line, _, rest = bytes(self._lines).partition(b"\n")
        self._lines = bytearray(rest)
        return line

    def _late(self) -> str:
        if not self._under_way:
            return f"the program was not imported within {_START_S:.0f} s.\n{self._printed()}"
        request, _ = min(self._under_way.values(), key=lambda each: each[1])
        log = Path(request.folder) / f"process-{request.process}.log"
        printed = log.read_text(errors="replace") if log.exists() else ""
        what = f"to crash at {request.crash}" if request.crash is not None else "that nobody kills"
        ledger = Path(request.folder) / "ledger.jsonl"
        events = ledger.read_text(errors="replace") if ledger.exists() else ""
        return (
            f"process {request.process} of a point of the crash sweep ({what}) did not end within "
            f"{self._program.timeout:g} s.\nledger:\n{events}printed:\n{printed}"
        )

    def _printed(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]
