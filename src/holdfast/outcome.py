"""How a run ended, told to whoever waits for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import HoldfastError

_OURS = str(Path(__file__).parent)


class RunOutcome:
    """The result of a run, or the public error; it may be waited for on any loop.

    Most wait on the run's own loop, where no thread has a say: a future of asyncio's costs a fraction of one that
    several threads may look at."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._waiting: dict[asyncio.Future[None], None] = {}  # on the run's loop, in the order they came

    def done(self) -> bool:
        return self._told.done()

    @property
    def error(self) -> BaseException | None:
        """What was told as an error, if it was one; for when it is ``done``."""
        return self._told.exception()

    def result(self) -> Any:
        """What was told, or raised; for when it is ``done``."""
        error = self._told.exception()  # its own result() would put two frames more into every traceback
        if error is not None:
            raise error
        return self._told.result()

    def tell(self, value: Any = None, error: BaseException | None = None) -> None:
        """Called once, on the run's loop."""
        if error is not None:
            self._told.set_exception(error.with_traceback(_of_the_program(error)))
        else:
            self._told.set_result(value)
        for waiting in self._waiting:
            if not waiting.done():  # nor cancelled
                waiting.set_result(None)

    async def heard(self) -> Any:
        """Wait for it, and return or raise it. Who is cancelled meanwhile disturbs nobody else."""
        await self.over()
        return self.result()

    async def over(self) -> None:
        """Wait for it, whatever it is."""
        if asyncio.get_running_loop() is not self._loop:
            told = asyncio.wrap_future(self._told)
            # Looked at, or it is reported as lost when whoever waited has gone.
            told.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({told})
        elif not self.done():
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._waiting[waiting] = None
            try:
                await waiting
            finally:
                del self._waiting[waiting]


def _of_the_program(error: BaseException) -> TracebackType | None:
    """Its traceback from where the program's own code begins: how the run was driven up to there helps nobody. An error
    of holdfast's says itself what is wrong; one that should not have come out of it keeps all of its traceback."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OURS):
        frame = frame.tb_next
    return error.__traceback__ if frame is None and not isinstance(error, HoldfastError) else frame
