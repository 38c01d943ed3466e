"""``hf.wait``: an event loop for programs that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable
from typing import TypeVar

from . import branches

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a thread of its own, for programs that have none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast-loop", daemon=True)
        self._thread.start()

    def wait(self, awaitable: Awaitable[T]) -> T:
        async def waited() -> T:
            branches.awaited_by_thread()
            return await awaitable

        future = asyncio.run_coroutine_threadsafe(waited(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():  # Ctrl-C: let the run hand its lease back before the program goes
                future.cancel()
                concurrent.futures.wait([future], timeout=10)
                asyncio.run_coroutine_threadsafe(_settle(), self._loop).result(timeout=10)
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _settle() -> None:
    """Until the tasks that were cancelled have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    cancelled = [task for task in others if task.cancelling()]
    if cancelled:
        await asyncio.wait(cancelled, timeout=8)
