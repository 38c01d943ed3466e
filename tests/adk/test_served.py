"""ADK's own tools over our sessions: a server is killed in the middle of a tool, and another one goes on."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.adk.cli.utils.service_factory import create_session_service_from_options

from holdfast.adapters.adk import HoldfastSessionService

_HERE = Path(__file__).parent
_AGENTS = _HERE / "served"
WHO = {"app_name": "app", "user_id": "test_user", "session_id": "s"}  # whom `adk run` takes its user for
GO = {"role": "user", "parts": [{"text": "go"}]}
DONE = "a3 is done"


def adk(folder: Path, *typed: str, **env: str) -> subprocess.Popen[str]:
    paths = [str(_HERE), str(_HERE.parents[1] / "src")]
    return subprocess.Popen(
        [sys.executable, "-m", "google.adk.cli", *typed, "--session_service_uri", f"holdfast+sqlite:///{folder}/s.db"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LEDGER": str(folder / "ledger"), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Server:
    """``process`` is up already, and says where."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self._said: list[str] = []
        for line in process.stdout:
            self._said.append(line)
            if found := re.search(r"running on (http://[\d.:]+)", line):
                self._http = httpx.Client(base_url=found[1], timeout=120)
                return
        raise AssertionError("".join(self._said))

    def new_session(self) -> None:
        self._http.post("/apps/app/users/test_user/sessions/s").raise_for_status()

    def run(self, **more: Any) -> list[str]:
        """What is said in the events that are answered."""
        answer = self._http.post("/run", json={**WHO, **more})
        assert answer.status_code == 200, answer.text
        parts = [part for event in answer.json() for part in event.get("content", {}).get("parts", [])]
        return [part["text"] for part in parts if "text" in part]

    def dies(self) -> None:
        """In a tool, of the message."""
        with pytest.raises(httpx.RemoteProtocolError):
            self.run(new_message=GO)
        assert self.process.wait() == -9


@contextmanager
def server(tool: str, folder: Path, **env: str) -> Iterator[Server]:
    process = adk(folder, tool, str(_AGENTS), "--port", "0", **env)
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


def begun(folder: Path) -> Counter[str]:
    return Counter(line for line in (folder / "ledger").read_text().splitlines() if line.startswith("begin "))


@pytest.mark.crash
def test_a_server_goes_on_where_the_last_one_was_killed(tmp_path: Path) -> None:
    """Once by the same message, in a server of the same kind, once without any."""
    with server("api_server", tmp_path, DIE_AT="4") as first:
        first.new_session()
        first.dies()
    with server("api_server", tmp_path, DIE_AT="16") as second:
        second.dies()
    with server("web", tmp_path) as third:
        assert third.run()[-1] == DONE  # no message, no invocation id
    often = {call: times for call, times in begun(tmp_path).items() if times > 1}
    assert often == {"begin tool fetch one": 2, "begin tool write ": 2}


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "memory"])
def test_a_url_names_our_sessions(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = {"sqlite": f"sqlite:///{tmp_path}/s.db", "memory": "memory://"}.get(kind) or request.getfixturevalue(
        "postgres_url"
    )

    async def main() -> None:
        service = create_session_service_from_options(base_dir=tmp_path, session_service_uri=f"holdfast+{url}")
        assert isinstance(service, HoldfastSessionService)
        async with service:
            await service.create_session(**WHO)
            assert await service.get_session(**WHO) is not None

    asyncio.run(main())
