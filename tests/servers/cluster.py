"""A primary and its synchronous standby, both on this machine: lose the one, promote the other."""

from __future__ import annotations

import time
from pathlib import Path

from .postgres import DEADLINE_S, HOST, Mode, PostgresServer

_STANDBY = "standby"


class Cluster:
    """What the primary acknowledges, the standby has on its disk: every commit waits for that."""

    def __init__(self, folder: Path) -> None:
        settings = {"wal_level": "replica", "max_wal_senders": 4, "hot_standby": "on"}
        self.primary = PostgresServer(folder / "primary", settings)
        self.standby = PostgresServer(folder / "standby", settings)

    def start(self) -> None:
        primary, standby = self.primary, self.standby
        primary.start()
        standby.data.rmdir()
        source = f"host={HOST} port={primary.port} user=postgres application_name={_STANDBY}"
        standby.folder.chmod(0o777)  # the copy is made by the user that the server runs as
        primary.run("pg_basebackup", "-d", source, "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast")
        standby.start()
        # Only now: before there is a standby no commit would end, and the copy of a server that waits for one would,
        # promoted, wait for one too.
        primary.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{_STANDBY}'")
        primary.sql("SELECT pg_reload_conf()")
        self._await_sync()

    def _await_sync(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while ("sync",) not in self.primary.sql("SELECT sync_state FROM pg_stat_replication"):
            assert time.monotonic() < deadline, f"no synchronous standby:\n{self.standby.log()[-4000:]}"
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """Of whichever of the two takes writes."""
        hosts = f"{HOST}:{self.primary.port},{HOST}:{self.standby.port}"
        return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"

    def lose_primary(self, mode: Mode | None = None) -> None:
        """It is killed (``mode`` None) or stopped, and does not come again."""
        if mode is None:
            self.primary.kill()
        else:
            self.primary.stop(mode)

    def promote(self) -> None:
        """Returns when the standby takes writes."""
        self.standby.sql("SELECT pg_promote(wait => true, wait_seconds => 60)")

    def stop(self) -> None:
        self.standby.stop("immediate")
        self.primary.stop("immediate")
