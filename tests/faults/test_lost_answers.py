"""The connection is lost: before the server heard of what was asked, or when it had done it and said so."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.servers.proxy import Proxy, When
from tests.torture.grounds import APPENDS
from tests.worker.inside import ended, row_of, serving

import holdfast
from holdfast import step, workflow
from holdfast.store import Batch, Checkpoint, Finish, RunRow, Store, open_store
from holdfast.testing.store_suite import append, checkpoint, claim, create

executed: Counter[str] = Counter()


@step
async def weigh(what: str, n: int) -> int:
    executed[what] += 1
    return n * n


@workflow(version="1")
async def freight() -> int:
    one = await weigh("one", 1)
    two, three = await asyncio.gather(weigh("two", 2), weigh("three", 3))
    return one + two + three + await weigh("four", 4)


async def ship(url: str, id: str) -> tuple[int, list[holdfast.Checkpoint]]:
    async with holdfast.open(url) as hf:
        return await hf.run(freight(), id=id), await hf.history(id)


@pytest.mark.parametrize("when", ["asked", "answered"])
def test_a_run_does_not_notice(proxy: Proxy, detour: str, when: When) -> None:
    """Whatever it asks the server, from its claim to its end, in turn: no step is executed again, no row is lost."""
    asyncio.run(ship(detour, "the tables are made"))
    for turn in itertools.count():
        executed.clear()
        cut = proxy.cut(turns=turn, when=when)
        result, history = asyncio.run(ship(detour, f"freight-{turn}"))
        assert (result, [row.seq for row in history]) == (30, [1, 2, 3, 4]), f"turn {turn}: {proxy.turns[-40:]}"
        assert set(executed.values()) == {1}, f"turn {turn}: {executed}, {proxy.turns[-40:]}"
        if not cut.done.is_set():
            break
    assert turn > 8


async def served(url: str, direct: Store, id: str) -> RunRow:
    """The run as it was when a worker had ended it."""
    async with serving(open_store(url), lease=2) as hf:
        await hf.submit(freight(), id=id)
        await ended(direct, id)
    return row_of(direct, id)


@pytest.mark.parametrize("when", ["asked", "answered"])
def test_a_worker_does_not_notice(proxy: Proxy, detour: str, url: str, when: When, seed: int) -> None:
    """Every sixth turn of its conversation, from its first look to its last: a claim is not lost with its answer."""
    asyncio.run(ship(detour, "the tables are made"))
    direct = open_store(url)
    for turn in itertools.count(seed % 6, 6):
        executed.clear()
        cut = proxy.cut(turns=turn, when=when)
        row = asyncio.run(served(detour, direct, f"freight-{turn}"))
        assert (row.status, row.deaths, row.epoch) == ("done", 0, 1), f"turn {turn}: {proxy.turns[-60:]}"
        assert executed == {"one": 1, "two": 1, "three": 1, "four": 1}, f"turn {turn}: {proxy.turns[-60:]}"
        if not cut.done.is_set():
            break
    assert turn > 25
    direct.close()


@workflow(version="1")
async def auction(id: str) -> list[Any]:
    first = await holdfast.wait_for("bid", int, ask="how much?")
    weighed = await holdfast.current().run(freight(), id=f"{id}, weighed")
    second = await holdfast.wait_for("bid", int)
    await holdfast.sleep(0.05)
    return [first, weighed, second, await holdfast.wait_for("bid", int)]


async def bid(url: str, direct: Store, id: str) -> Any:
    async with serving(open_store(url), lease=2) as hf:
        await hf.submit(auction(id), id=id)
        await hf.send(id, "bid", 1)
        await asyncio.sleep(0.1)
        await hf.send(id, "bid", 2)
        await hf.send(id, "bid", 3, key="the last")
        await ended(direct, id)
        return (await hf.get(id)).result


@pytest.mark.parametrize("when", ["asked", "answered"])
def test_who_sends_and_waits_does_not_notice(proxy: Proxy, detour: str, url: str, when: When, seed: int) -> None:
    """Every 24th turn of a worker's conversation about a run that waits for signals, for time, and for a child."""
    asyncio.run(ship(detour, "the tables are made"))
    direct = open_store(url)
    for turn in itertools.count(seed % 24, 24):
        executed.clear()
        cut = proxy.cut(turns=turn, when=when)
        result = asyncio.run(bid(detour, direct, f"auction-{turn}"))
        assert result == [1, 30, 2, 3], f"turn {turn}: {proxy.turns[-200:]}"
        assert set(executed.values()) == {1}, f"turn {turn}: {executed}, {proxy.turns[-200:]}"
        if not cut.done.is_set():
            break
    assert turn > 80
    direct.close()


# -- what others did before it was sent again ----------------------------------------------------------------


class Parted:
    """Two owners' stores; the first one's network parts in the middle of a commit."""

    def __init__(self, proxy: Proxy, detour: str, url: str) -> None:
        self._proxy = proxy
        self.old: Store = open_store(detour)
        self.new: Store = open_store(url)
        self.runs = create(self.old, "a", "b", owner="old")
        append(self.old, *(checkpoint(run.no, 1) for run in self.runs))

    def send(self, when: When, batch: Batch) -> threading.Thread:
        """Returns when the network has parted; the answer is in ``committed`` at the end of the thread."""
        cut = self._proxy.cut(APPENDS, when=when, parts=True)
        self.committed: Any = None

        def commit() -> None:
            self.committed = self.old.commit(batch)

        sending = threading.Thread(target=commit)
        sending.start()
        assert cut.done.wait(10)
        return sending

    def answer_to(self, sending: threading.Thread) -> Any:
        self._proxy.resume()
        sending.join(20)
        assert self.committed is not None
        return self.committed

    def rows(self) -> list[list[tuple[int, int, str]]]:
        return [[(row.seq, row.epoch, row.name) for row in self.new.load(run.no)] for run in self.runs]


@pytest.fixture
def parted(proxy: Proxy, detour: str, url: str) -> Iterator[Parted]:
    parted = Parted(proxy, detour, url)
    yield parted
    parted.old.close()
    parted.new.close()


def seconds(parted: Parted) -> list[Checkpoint]:
    return [checkpoint(run.no, 2, name="old's") for run in parted.runs]


@pytest.mark.parametrize("when", ["asked", "answered"])
def test_what_nobody_touched_is_written_once(parted: Parted, when: When) -> None:
    sending = parted.send(when, Batch(appends=seconds(parted)))
    committed = parted.answer_to(sending)
    assert committed.fenced == set() and committed.refused == {}
    assert parted.rows() == [[(1, 1, "parse"), (2, 1, "old's")]] * 2


@pytest.mark.parametrize("when", ["asked", "answered"])
@pytest.mark.parametrize("seq", [2, 3])
def test_what_another_owner_wrote_is_not_taken_for_ones_own(parted: Parted, when: When, seq: int) -> None:
    """Run a is taken over meanwhile, and its new owner goes on from what it finds; run b is not disturbed."""
    sending = parted.send(when, Batch(appends=seconds(parted)))
    taken = claim(parted.new, parted.runs[0], owner="new")
    assert taken is not None
    found = len(parted.new.load(taken.no))
    assert found == (1 if when == "asked" else 2)
    for n in range(found + 1, seq + 1):
        assert append(parted.new, checkpoint(taken.no, n, epoch=taken.epoch, name="new's")) == set()
    assert parted.answer_to(sending).fenced == {taken.no}
    a, b = parted.rows()
    assert a[found:] == [(n, 2, "new's") for n in range(found + 1, seq + 1)]
    assert b == [(1, 1, "parse"), (2, 1, "old's")]


@pytest.mark.parametrize("when", ["asked", "answered"])
def test_an_end_is_written_once(parted: Parted, when: When) -> None:
    ends = [Finish(run_no=run.no, epoch=1, status="done", result=b"\x01") for run in parted.runs]
    sending = parted.send(when, Batch(appends=seconds(parted), finishes=ends))
    cancelled = parted.new.cancel("a")
    assert cancelled is not None
    assert parted.answer_to(sending).fenced == (set() if when == "answered" else {cancelled.no})
    found = [parted.new.get(id) for id in ("a", "b")]
    assert [run.status for run in found if run is not None] == ["done" if when == "answered" else "cancelled", "done"]


# -- a client that is paused, or whose machine is gone -------------------------------------------------------

TAKEN_OVER_S = 8.0


def test_who_is_paused_in_a_transaction_does_not_keep_a_run(parted: Parted, proxy: Proxy) -> None:
    """A transaction that is left open holds the locks of its rows; the server does not wait for it for ever."""
    # Rows that stand already are looked at run by run, in a transaction of several statements.
    again = Batch(appends=[checkpoint(run.no, 1) for run in parted.runs])
    cut = proxy.cut("COMMIT", when="held")
    sending = threading.Thread(target=parted.old.commit, args=(again,))
    sending.start()
    assert cut.done.wait(10)
    taking = threading.Thread(target=claim, args=(parted.new, parted.runs[0]), kwargs={"owner": "new"})
    taking.start()
    taking.join(TAKEN_OVER_S)
    waits = taking.is_alive()
    proxy.resume()
    sending.join(20)
    taking.join(20)
    assert not sending.is_alive() and not taking.is_alive()
    assert not waits, f"a claim waited {TAKEN_OVER_S} s for a transaction that nobody goes on with"


def test_who_is_paused_while_it_makes_the_tables_does_not_keep_others_from_it(
    proxy: Proxy, detour: str, url: str
) -> None:
    first, second = open_store(detour), open_store(url)
    cut = proxy.cut("COMMIT", when="held")
    making = threading.Thread(target=first.get, args=("a",))
    making.start()
    assert cut.done.wait(10)
    looking = threading.Thread(target=second.get, args=("a",))
    looking.start()
    looking.join(TAKEN_OVER_S)
    waits = looking.is_alive()
    proxy.resume()
    for each in (making, looking):
        each.join(20)
        assert not each.is_alive()
    assert not waits, f"the tables were waited for {TAKEN_OVER_S} s"
    first.close()
    second.close()
