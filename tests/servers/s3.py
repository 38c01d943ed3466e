"""An S3 server of the tests' own: moto's, a process on loopback that speaks the protocol over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 60.0


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Its address. ``HOLDFAST_TEST_S3_ENDPOINT`` names another one that runs already."""
    if given := os.environ.get("HOLDFAST_TEST_S3_ENDPOINT"):
        yield given
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "s3.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await_answer(server, f"http://127.0.0.1:{port}", folder / "s3.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _await_answer(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=START_S).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"no S3 server came up:\n{log.read_text()}") from None
            time.sleep(0.02)


def make_bucket(address: str, name: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT"), timeout=START_S).close()
