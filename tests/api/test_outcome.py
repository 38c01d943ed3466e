"""``RunOutcome``: whoever waits is told, on whichever loop, and who stops waiting disturbs nobody."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading

import pytest

from holdfast.outcome import RunOutcome


def test_who_stops_waiting_on_the_runs_loop_disturbs_nobody() -> None:
    async def program() -> None:
        outcome = RunOutcome(asyncio.get_running_loop())
        first, second, third = [asyncio.ensure_future(outcome.heard()) for _ in range(3)]
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        assert second.cancelled() and not outcome.done()
        third.cancel()  # and this one is told before it has noticed
        outcome.tell("result")
        assert await first == "result" and await outcome.heard() == "result"
        assert (await asyncio.gather(third, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    asyncio.run(program())


def test_an_error_is_raised_to_each_and_need_not_be_heard_by_any(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        outcome, unheard = (RunOutcome(asyncio.get_running_loop()) for _ in range(2))
        waiting = [asyncio.ensure_future(outcome.heard()) for _ in range(2)]
        over = asyncio.ensure_future(outcome.over())
        await asyncio.sleep(0)
        unheard.tell(error=LookupError("no such account"))
        outcome.tell(error=LookupError("no such account"))
        await over
        for each in waiting:
            with pytest.raises(LookupError, match="account"):
                await each

    with caplog.at_level(logging.ERROR):
        asyncio.run(program())
        gc.collect()  # an exception that nobody looked at is reported when its future goes
    assert caplog.records == []


def test_who_stops_waiting_on_another_loop_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    made: list[RunOutcome] = []
    ready, given_up = threading.Event(), threading.Event()
    heard: list[str] = []

    async def elsewhere() -> None:
        outcome = made[0]
        first, second = [asyncio.ensure_future(outcome.heard()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        assert first.cancelled()
        given_up.set()
        with pytest.raises(LookupError) as error:
            await second
        heard.append(str(error.value))

    async def program() -> None:
        made.append(RunOutcome(asyncio.get_running_loop()))
        ready.set()
        await asyncio.to_thread(given_up.wait, 10)
        made[0].tell(error=LookupError("no such account"))

    def work() -> None:
        assert ready.wait(10)
        asyncio.run(elsewhere())

    thread = threading.Thread(target=work)
    thread.start()
    with caplog.at_level(logging.ERROR):
        asyncio.run(program())
        thread.join(10)
        made.clear()
        gc.collect()  # an exception that nobody looked at is reported when its future goes
    assert heard == ["no such account"]
    assert caplog.records == []
