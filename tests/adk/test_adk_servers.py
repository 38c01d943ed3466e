"""ADK's own server over our sessions is killed in the middle of a tool, and another one goes on. The page in the docs
that tells of it is executed too, with `adk run` and `adk web`."""

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
_API_SERVER = [sys.executable, "-m", "google.adk.cli", "api_server"]
WHO = {"app_name": "app", "user_id": "u", "session_id": "s"}
GO = {"role": "user", "parts": [{"text": "go"}]}
DONE = "a3 is done"


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
        self._http.post("/apps/app/users/u/sessions/s").raise_for_status()

    def run(self, **more: Any) -> list[str]:
        """What is said in the events that are answered."""
        answer = self._http.post("/run", json={**WHO, **more})
        assert answer.status_code == 200, answer.text
        parts = [part for event in answer.json() for part in event.get("content", {}).get("parts", [])]
        return [part["text"] for part in parts if "text" in part]

    def dies(self) -> None:
        """In a tool, of the message."""
        with pytest.raises(httpx.TransportError):
            self.run(new_message=GO)
        assert self.process.wait() == -9


@contextmanager
def server(folder: Path, **env: str) -> Iterator[Server]:
    url = f"holdfast+sqlite:///{folder}/s.db"
    paths = [str(_HERE), str(_HERE.parents[1] / "src")]
    process = subprocess.Popen(
        [*_API_SERVER, str(_AGENTS), "--port", "0", "--session_service_uri", url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LEDGER": str(folder / "ledger"), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


def begun(folder: Path) -> Counter[str]:
    return Counter(line for line in (folder / "ledger").read_text().splitlines() if line.startswith("begin "))


@pytest.mark.crash
def test_a_server_goes_on_where_the_last_one_was_killed(tmp_path: Path) -> None:
    with server(tmp_path, DIE_AT="18") as first:
        first.new_session()
        first.dies()
    with server(tmp_path) as second:
        assert second.run()[-1] == DONE  # no message, no invocation id
    often = {call: times for call, times in begun(tmp_path).items() if times > 1}
    assert often == {"begin tool write ": 2} and len(begun(tmp_path)) > 6


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
