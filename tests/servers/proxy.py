"""A proxy before a PostgreSQL server that loses connections where a test says so.

It understands as much of the protocol as it takes to know what a client asks for and when the server has answered
it whole: a *turn* is everything up to a Sync (or one simple Query), and a statement outside a transaction is
committed when its turn is answered. So a connection can be cut when the server has committed and the client does
not know.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from .postgres import HOST

When = Literal["asked", "answered", "held"]

_ENCRYPTION = {80877103, 80877104}  # requests for TLS and GSSAPI, which are refused
_CANCEL = 80877102
_SYNC, _QUERY, _PARSE, _BIND, _EXECUTE, _READY = b"S", b"Q", b"P", b"B", b"E", b"Z"


@dataclass
class Cut:
    """``turns``: how many more turns like this go through, of those whose SQL has ``about`` in it.

    ``when``: "asked", the server never hears of the turn; "answered", the client never hears of its answer, which
    is there whole; "held", nothing is cut, the turn stays on its way as from a client that is paused. With ``parts``
    (and when it is held) nobody gets through from then on, until ``Proxy.resume``. ``done`` is set when it happened.
    """

    about: str
    turns: int
    when: When
    parts: bool = False
    done: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Turn:
    text: str
    cut: Cut | None = None


class Proxy:
    """Listens on a port of its own, in a thread of its own, before the server on ``server_port`` of the loopback."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.delay_s = 0.0  # before each turn goes on to the server
        self.turns: list[str] = []  # the SQL that was asked for, turn by turn, over all connections
        self._cuts: list[Cut] = []
        self._lines: set[_Line] = set()
        self._serving: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Proxy:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._flowing = asyncio.Event()
        self._on_loop(self._flowing.set)
        self._listening = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port: int = self._listening.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"

    def cut(self, about: str = "", turns: int = 0, when: When = "answered", *, parts: bool = False) -> Cut:
        """Cut the connection of the first turn about ``about`` that follows on ``turns`` others."""
        cut = Cut(about, turns, when, parts)
        self._on_loop(lambda: self._cuts.append(cut))
        return cut

    def cut_all(self) -> int:
        """Cut every connection there is now; how many there were."""

        def cut() -> int:
            for line in self._lines:
                line.end()
            return len(self._lines)

        return int(self._on_loop(cut))

    def pause(self) -> None:
        """Hold everything on its way, in both directions and of new connections too, as a parted network does."""
        self._on_loop(self._flowing.clear)

    def resume(self) -> None:
        self._on_loop(self._flowing.set)

    def _on_loop(self, work: Callable[[], Any]) -> Any:
        async def worked() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(worked(), self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, HOST, 0)

    async def _close(self) -> None:
        self._listening.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        line = _Line(self, reader, writer)
        self._lines.add(line)
        try:
            await line.serve()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # one of the two ends is gone, or both were cut off here
        finally:
            line.end()
            self._lines.discard(line)
            self._serving.discard(task)

    def _begun(self, turn: _Turn) -> None:
        """Settle what becomes of a turn."""
        self.turns.append(turn.text)
        for cut in self._cuts:
            if cut.about in turn.text.replace("READ COMMITTED", ""):
                if cut.turns == 0:
                    self._cuts.remove(cut)
                    turn.cut = cut
                    return
                cut.turns -= 1

    def _ended(self, cut: Cut) -> None:
        if cut.parts or cut.when == "held":
            self._flowing.clear()
        cut.done.set()


class _Line:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._writers = [writer]
        self._statements: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._asked: list[str] = []
        self._unanswered = deque([_Turn("(start)")])  # the first answer is to the start of the connection

    def end(self) -> None:
        for writer in self._writers:
            if (transport := writer.transport) is not None:
                transport.abort()

    async def serve(self) -> None:
        reader, writer = self._client
        while True:
            start = await reader.readexactly(8)
            await self._proxy._flowing.wait()
            code = int.from_bytes(start[4:])
            if code not in _ENCRYPTION:
                break
            writer.write(b"N")
        rest = await reader.readexactly(int.from_bytes(start[:4]) - 8)
        server_reader, server_writer = await asyncio.open_connection(HOST, self._proxy.server_port)
        self._writers.append(server_writer)
        server_writer.write(start + rest)
        if code == _CANCEL:
            await server_reader.read()
            return
        both = [
            asyncio.ensure_future(self._upwards(reader, server_writer)),
            asyncio.ensure_future(self._downwards(server_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            kind, message = await _message(reader)
            await self._proxy._flowing.wait()
            self._note(kind, message[5:])
            if kind in (_SYNC, _QUERY):
                if self._proxy.delay_s:
                    await asyncio.sleep(self._proxy.delay_s)
                turn = _Turn("; ".join(self._asked))
                self._asked.clear()
                self._proxy._begun(turn)
                if turn.cut is not None and turn.cut.when == "asked":
                    return self._proxy._ended(turn.cut)
                if turn.cut is not None and turn.cut.when == "held":
                    self._proxy._ended(turn.cut)
                    turn.cut = None
                    await self._proxy._flowing.wait()
                self._unanswered.append(turn)
            writer.write(message)
            await writer.drain()

    def _note(self, kind: bytes, body: bytes) -> None:
        """What is prepared, bound and executed; a statement that is only prepared asks for nothing."""
        if kind == _QUERY:
            self._asked.append(body.rstrip(b"\0").decode(errors="replace"))
        elif kind == _PARSE:
            name, text, _ = body.split(b"\0", 2)
            self._statements[name] = text.decode(errors="replace")
        elif kind == _BIND:
            portal, statement, _ = body.split(b"\0", 2)
            self._portals[portal] = self._statements.get(statement, "")
        elif kind == _EXECUTE:
            self._asked.append(self._portals.get(body.split(b"\0", 1)[0], ""))

    async def _downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            kind, message = await _message(reader)
            await self._proxy._flowing.wait()
            cut = self._unanswered[0].cut if self._unanswered else None
            if kind == _READY and self._unanswered:
                self._unanswered.popleft()
                if cut is not None:
                    return self._proxy._ended(cut)
            if cut is None:
                writer.write(message)
                await writer.drain()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
