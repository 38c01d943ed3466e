"""The process that a crash sweep's processes are forked from: it imports the program once, and has no thread and no
loop.

``python -m holdfast.testing.zygote FD`` reads one ``Program`` and then ``Request`` lines from its standard input, and
writes a ``Reply`` line to the file descriptor for each process that ended. Every process is a child of its own, so a
kill is a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import inspect
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import msgspec

from holdfast import admission, codec
from holdfast.app import Holdfast
from holdfast.definition import Definition
from holdfast.store import Batch, Committed, Store, Taken, open_store
from holdfast.workflow import Call

from .ledger import Ledger, Observed
from .reference import Reference, resolve

RUN_ID = "sweep"
ENVIRONMENT = "HOLDFAST_ZYGOTE"
# They change nothing, or have no part in what is promised.
UNCOUNTED = frozenset({"now_ms", "close", "forget", "tell", "news", "clear_news", "stamp", "wakes", "listen"})


class Program(msgspec.Struct):
    """What the children run: the call of a workflow, or an async function that is given a ``Holdfast``."""

    path: list[str]
    target: Reference
    store: Reference | None
    arguments: bytes | None  # None: no workflow
    state: bytes | None
    timeout: float


class Crash(msgspec.Struct, frozen=True):
    """Before or after the ``n``-th call (from 1) of a method of the store."""

    method: str
    n: int
    side: str

    def __str__(self) -> str:
        return f"{self.method} {self.n} {self.side}"


class Request(msgspec.Struct):
    """``kill_after_ms``: killed at that age, wherever it is. ``stop_after_ms``: stopped at that age, for ``stop_ms``.
    ``loop``: "asyncio" or "uvloop"."""

    id: int
    folder: str
    process: int
    crash: Crash | None = None
    kill_after_ms: float | None = None
    stop_after_ms: float | None = None
    stop_ms: float = 0.0
    loop: str = "asyncio"


class Reply(msgspec.Struct):
    """``failed``: what the program raised, or what went wrong in the process; None with a ``result``."""

    id: int
    killed: bool = False
    status: int = 0
    result: bytes | None = None
    failed: str | None = None
    calls: dict[str, int] = {}


def open_in(folder: Path, factory: Callable[[Path], Store] | None) -> Store:
    return factory(folder) if factory is not None else open_store(folder / "sweep.db")


class CrashingStore:
    """Counts the calls of a store's methods and kills its own process at one of them."""

    def __init__(self, store: Store, ledger: Ledger, crash: Crash | None) -> None:
        self._store = store
        self._ledger = ledger
        self._crash = crash
        self._lock = threading.Lock()
        self._claimed: dict[int, int] = {}  # by the number of a run that is not loaded yet: the epoch
        self.calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name.startswith("_") or name in UNCOUNTED or not callable(found):
            return found

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                n = self.calls[name] = self.calls.get(name, 0) + 1
            self._maybe_die(name, n, "before")
            if name == "commit":
                self._ledger.write_finishing(cast("Batch", args[0]))
            result = found(*args, **kwargs)
            self._note(name, args, result)
            self._maybe_die(name, n, "after")
            return result

        return counted

    def _note(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """What the store answered, before anyone here can act on it."""
        if name == "commit":
            self._ledger.write_commit(cast("Batch", args[0]), cast("Committed", result))
        elif name == "load" and (epoch := self._claimed.pop(args[0], 0)):
            self._ledger.write("loaded", run_no=args[0], epoch=epoch, seq=result[-1].seq if result else 0)
        elif name == "claim" and result is not None:
            self._claimed[result.no] = result.epoch
        elif name == "claim_due":
            self._claimed.update((taken.row.no, taken.row.epoch) for taken in cast("list[Taken]", result))

    def _maybe_die(self, name: str, n: int, side: str) -> None:
        if self._crash == Crash(name, n, side):
            self._ledger.write("killed", status=str(self._crash))
            os.kill(os.getpid(), signal.SIGKILL)


class _FixedSeeds:
    """The ``os`` of ``holdfast.admission``: each run gets the same seed, so ``uuid4()`` and ``random()`` can be
    compared."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def urandom(size: int) -> bytes:
        return b"crash sweep seed"[:size].ljust(size, b".")


class _Target:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.state: dict[str, Any] | None = None
        if program.state is not None:
            self.state = codec.decode(program.state, codec.Types.none, "the initial state", root="state")
        self.factory = None if program.store is None else resolve(program.store)
        found = resolve(program.target)
        self.definition: Definition | None = None
        if program.arguments is None:
            self.function = found
            return
        self._decorated = _decorated(found, program.target)
        self.definition = definition = cast("Definition", self._decorated._definition)
        arguments = codec.decode(program.arguments, definition.parameter_types, "the arguments", root="")
        bound = inspect.BoundArguments(inspect.signature(definition.function), OrderedDict(arguments))
        self.args, self.kwargs = bound.args, bound.kwargs

    async def run(self, hf: Holdfast) -> bytes:
        if self.definition is None:
            return codec.encode(await self.function(hf), codec.Types.none, "the result")
        call: Call[Any] = self._decorated.bind(*self.args, **self.kwargs)
        result = await hf.run(call, id=RUN_ID, state=self.state)
        return codec.encode(result, self.definition.result_types, "the result")


def _decorated(found: Any, reference: Reference) -> Any:
    """The workflow itself, which ``review = workflow(plain)`` keeps under another name than the function's."""
    if isinstance(getattr(found, "_definition", None), Definition):
        return found
    for each in vars(sys.modules[found.__module__]).values():
        definition = getattr(each, "_definition", None)
        if isinstance(definition, Definition) and definition.function.__qualname__ == reference.qualname:
            return each
    raise TypeError(f"{reference.qualname!r} of {reference.module or reference.file} is no workflow")


def _child(target: _Target, request: Request) -> Reply:
    folder = Path(request.folder)
    ledger = Observed.ledger = Ledger(folder / "ledger.jsonl", request.process)
    store = CrashingStore(open_in(folder, target.factory), ledger, request.crash)
    admission.__dict__["os"] = _FixedSeeds()
    reply = Reply(request.id)

    async def main() -> bytes:
        async with Holdfast(cast("Store", store)) as hf:
            hf._observer = ledger.observe
            return await target.run(hf)

    try:
        with asyncio.Runner(loop_factory=_loop_factory(request.loop)) as runner:
            reply.result = runner.run(main())
    except Exception as error:
        traceback.print_exc()
        reply.failed = f"{type(error).__qualname__}: {error}"
    reply.calls = dict(store.calls)
    return reply


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    return None if name == "asyncio" else cast("Any", import_module(name)).new_event_loop


class _Server:
    def __init__(self, target: _Target, out: int) -> None:
        self._target = target
        self._out = out
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ)
        self._children: dict[int, tuple[int, Request, bytearray]] = {}
        self._due: list[tuple[float, int, signal.Signals]] = []  # when, to the child of which reader
        self._lines = bytearray()

    def serve(self) -> None:
        while True:
            due = min(self._due)[0] if self._due else None
            for key, _ in self._selector.select(None if due is None else max(0.0, due - time.monotonic())):
                if key.fd != 0:
                    self._hear_child(key.fd)
                elif not self._hear_parent():
                    return
            while self._due and min(self._due)[0] <= time.monotonic():
                self._signal(min(self._due))

    def _hear_parent(self) -> bool:
        data = os.read(0, 65536)
        self._lines += data
        *whole, rest = bytes(self._lines).split(b"\n")
        self._lines = bytearray(rest)
        for line in whole:
            self._fork(msgspec.json.decode(line, type=Request))
        return bool(data)

    def _fork(self, request: Request) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._in_child(request, writer)
        os.close(writer)
        self._children[reader] = (pid, request, bytearray())
        self._selector.register(reader, selectors.EVENT_READ)
        now = time.monotonic()
        if request.kill_after_ms is not None:
            self._due.append((now + request.kill_after_ms / 1000, reader, signal.SIGKILL))
        if request.stop_after_ms is not None:
            stop = now + request.stop_after_ms / 1000
            self._due += [(stop, reader, signal.SIGSTOP), (stop + request.stop_ms / 1000, reader, signal.SIGCONT)]

    def _signal(self, due: tuple[float, int, signal.Signals]) -> None:
        """The child is not reaped before its pipe ends, so its PID is still its own."""
        self._due.remove(due)
        _, reader, what = due
        pid, request, _ = self._children[reader]
        os.kill(pid, what)
        told = {
            signal.SIGKILL: ("killed", f"after {request.kill_after_ms} ms"),
            signal.SIGSTOP: ("stopped", f"after {request.stop_after_ms} ms, for {request.stop_ms} ms"),
        }
        if what in told:
            ledger = Ledger(Path(request.folder) / "ledger.jsonl", request.process)
            ledger.write(told[what][0], status=told[what][1])
            ledger.close()

    def _in_child(self, request: Request, writer: int) -> None:
        try:
            self._selector.close()
            os.close(self._out)
            for reader in self._children:
                os.close(reader)
            null = os.open(os.devnull, os.O_RDONLY)
            log = os.open(
                Path(request.folder) / f"process-{request.process}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            for fd, place in ((null, 0), (log, 1), (log, 2)):
                os.dup2(fd, place)
            faulthandler.dump_traceback_later(self._target.program.timeout * 0.9, file=log)
            reply = msgspec.json.encode(_child(self._target, request))
            while reply:
                reply = reply[os.write(writer, reply) :]
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            with contextlib.suppress(BaseException):
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(70)
        os._exit(0)

    def _hear_child(self, fd: int) -> None:
        pid, request, told = self._children[fd]
        data = os.read(fd, 65536)
        told += data
        if data:
            return
        self._selector.unregister(fd)
        os.close(fd)
        del self._children[fd]
        self._due = [each for each in self._due if each[1] != fd]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        reply = msgspec.json.decode(told, type=Reply) if code == 0 else Reply(request.id)
        reply.killed, reply.status = code == -signal.SIGKILL, code
        _write(self._out, msgspec.json.encode(reply))


def _write(fd: int, line: bytes) -> None:
    line += b"\n"
    while line:
        line = line[os.write(fd, line) :]


def _observe_every_function() -> None:
    """From now on, what is declared a step or workflow is observed."""
    declare = Definition.__init__

    def observed(self: Definition, function: Any, **options: Any) -> None:
        if isinstance(function, Observed):  # one function declared twice
            function = function.__wrapped__
        declare(self, function, **options)
        self.function = cast("Callable[..., Any]", Observed(function))

    Definition.__init__ = observed  # type: ignore[method-assign]


def main() -> None:
    out = int(sys.argv[1])
    os.set_inheritable(out, False)
    line = bytearray()
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or b"\n"
    try:
        program = msgspec.json.decode(bytes(line), type=Program)
        sys.path[:] = program.path
        import_module("psutil")  # else every child that resumes would import it
        _observe_every_function()
        target = _Target(program)
        others = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
        if others:
            raise RuntimeError(
                f"importing {program.target.module or program.target.file} started threads ({', '.join(others)}), "
                "which a forked process does not have: start them when they are used"
            )
    except BaseException as error:
        traceback.print_exc()
        _write(out, msgspec.json.encode(f"{type(error).__qualname__}: {error}"))
        return
    gc.collect()
    gc.freeze()
    _write(out, msgspec.json.encode(""))
    _Server(target, out).serve()


if __name__ == "__main__":
    main()
