"""The server is gone in the middle of a batch: it crashes and comes back, or its standby takes over."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.cluster import Cluster
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Proxy, When
from tests.torture.grounds import APPENDS

import holdfast
from holdfast import step, workflow
from holdfast.store import open_store
from holdfast.testing.store_suite import append, checkpoint, create

RUNS, TURNS = 20, 6
executed: Counter[tuple[str, int]] = Counter()


@step
async def turn(run: str, n: int) -> int:
    executed[run, n] += 1
    return n


@workflow(version="1")
async def turns(run: str) -> int:
    return sum([await turn(run, n) for n in range(TURNS)])


async def run_all(url: str, name: str) -> list[list[holdfast.Checkpoint]]:
    async with holdfast.open(url) as hf:
        ids = [f"{name} {n}" for n in range(RUNS)]
        assert await asyncio.gather(*(hf.run(turns(id), id=id) for id in ids)) == [sum(range(TURNS))] * RUNS
        return [await hf.history(id) for id in ids]


@pytest.mark.parametrize("when", ["held", "answered"])
@pytest.mark.parametrize("batch", [0, 2, 4])
def test_a_server_crashes_in_the_middle_of_a_batch_and_comes_back(
    server: PostgresServer, proxy: Proxy, detour: str, when: When, batch: int
) -> None:
    """Whether it had the batch already or not: nobody notices."""
    executed.clear()
    cut = proxy.cut(APPENDS, batch, when, parts=True)

    def crash() -> None:
        assert cut.done.wait(20)
        server.stop("immediate")
        server.start()
        proxy.resume()

    crashing = threading.Thread(target=crash)
    crashing.start()
    histories = asyncio.run(run_all(detour, "crashed"))
    crashing.join()
    assert [[row.seq for row in each] for each in histories] == [list(range(1, TURNS + 1))] * RUNS
    assert len(executed) == RUNS * TURNS and set(executed.values()) == {1}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-cluster-"))
    cluster = Cluster(folder)
    cluster.start()
    yield cluster
    cluster.stop()
    shutil.rmtree(folder)


def test_what_stands_on_the_primary_alone_is_not_acknowledged(cluster: Cluster) -> None:
    """Its server process ends while the batch waits for the standby: the row stands then, for all to see. Sent again,
    it waits for the standby too; and when that is promoted instead, it is written there."""
    store = open_store(cluster.url)
    (run,) = create(store, "a")
    append(store, checkpoint(run.no, 1))
    cluster.standby.pause()
    appending = threading.Thread(target=append, args=(store, checkpoint(run.no, 2)))
    appending.start()
    ended = 0
    while not ended:
        waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        ended = cluster.primary.sql(f"SELECT count(pg_terminate_backend(pid)) {waiting}")[0][0]
    assert _seqs(cluster.primary) == [1, 2]
    appending.join(0.5)
    assert appending.is_alive()
    cluster.lose_primary()
    cluster.standby.resume()
    cluster.promote()
    appending.join(20)
    assert not appending.is_alive() and _seqs(cluster.standby) == [1, 2]
    store.close()


def _seqs(server: PostgresServer) -> list[int]:
    return [seq for (seq,) in server.sql("SELECT seq FROM holdfast.checkpoint ORDER BY seq")]
