"""PgBouncer before a server, where it is installed: its connections are handed on after each transaction."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from .postgres import HOST, free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
DEADLINE_S = 20.0


class PgBouncer:
    """``url`` is the server's, through the pooler, with so many connections to it."""

    def __init__(self, server: str, *, pool_size: int = 2) -> None:
        assert PROGRAM is not None
        place = urlsplit(server)
        self.port = free_port()
        self.url = f"postgresql://{place.username}@{HOST}:{self.port}{place.path}"
        self.direct = f"{place.hostname}:{place.port}"
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-pgbouncer-")
        Path(self._folder.name).chmod(0o755)
        settings = Path(self._folder.name) / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={place.hostname} port={place.port} user={place.username}\n"
            f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\n"
        )
        user = {"user": "nobody"} if os.geteuid() == 0 else {}
        self._process = subprocess.Popen(
            [PROGRAM, "-q", str(settings)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **user
        )
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection((HOST, self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    assert self._process.stderr is not None
                    raise AssertionError(f"PgBouncer did not start: {self._process.stderr.read().decode()}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._folder.cleanup()
