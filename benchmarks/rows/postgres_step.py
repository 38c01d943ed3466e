"""One durable step after another in one run, on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from queue import SimpleQueue

from measure import Floor, Result
from server import PostgresFloor, server

from rows import one_step

TITLE = "One durable step with a 1 KB result, on PostgreSQL"
FLOOR = (
    "The floor is one `INSERT` of the same 1 KB through psycopg, committed. The server is on the same machine and "
    "waits for its disk. A step is one statement too, of a row of 21 columns, which locks the run's row against a "
    "takeover. The last figure is the floor once more, by another thread, as the event loop does no I/O: the `INSERT` "
    "is handed over by a `SimpleQueue`, and its end told to the loop by an `eventfd`."
)
HELD_BY = (
    "What holds it: the last three figures take it apart. The statement costs its lock and its columns, and a step its "
    "Python. The rest is the change of threads: between two idle threads a hand-over and its answer cost on this "
    "(virtual) machine what the last figure says, with nothing but the floor's own `INSERT` between them."
)


def measure(folder: Path, quick: bool) -> Result:
    with server(folder) as url:
        elsewhere = Elsewhere(PostgresFloor(url, "elsewhere"))
        try:
            return one_step.measured(
                PostgresFloor(url),
                lambda name: f"{url}?schema={name}",
                quick,
                target=1.75,
                beside={"handed_over_us": ("the floor's INSERT handed to another thread", elsewhere.insert)},
            )
        finally:
            elsewhere.close()


class Elsewhere:
    """A floor whose rows another thread inserts, one at a time: the least that a step can wait for."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._asked = SimpleQueue[bool]()
        self._told = os.eventfd(0, os.EFD_NONBLOCK)
        self._inserted: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    async def insert(self) -> None:
        loop = asyncio.get_running_loop()
        if self._inserted is None:
            loop.add_reader(self._told, self._tell)
        self._inserted = loop.create_future()
        self._asked.put(True)
        await self._inserted

    def _serve(self) -> None:
        while self._asked.get():
            self._floor.insert()
            os.eventfd_write(self._told, 1)

    def _tell(self) -> None:
        os.eventfd_read(self._told)
        assert self._inserted is not None
        self._inserted.set_result(None)

    def close(self) -> None:
        self._asked.put(False)
        self._thread.join()
        self._floor.close()
        os.close(self._told)
