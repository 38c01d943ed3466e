"""A real Chromium, driven over the two pipes of its DevTools protocol: no port, no driver, no further package."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_S = 60
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # its sandbox refuses to run as root, as tests in containers do
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--window-size=900,1000",
)
# Chromium reads commands from descriptor 3 and answers on 4; subprocess can hand descriptors on, but not number them.
_WITH_PIPES = """
import fcntl, os, sys
held = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for fd, number in zip(held, (3, 4)):
    os.dup2(fd, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str | None:
    """Where it is installed; None where it is not."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One window of a Chromium with a profile of its own, below ``folder``. ``close`` ends it."""

    def __init__(self, program: str, folder: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        wrapped = [sys.executable, "-c", _WITH_PIPES, str(commands), str(answers), program]
        self._process = subprocess.Popen(
            [*wrapped, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(commands, answers),
            env={**os.environ, "HOME": str(folder)},
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._numbers = itertools.count(1)
        self._read = b""
        self._session: str | None = None
        page = next(each for each in self._ask("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self._ask("Page.enable")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete'")

    def look(self, script: str) -> Any:
        """What an expression of JavaScript gives on the page. Raises ``AssertionError`` with its error."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.look(script)):
            assert time.monotonic() < deadline, f"{script}: {self.look('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def save_picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **given: Any) -> Any:
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": given}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE_S)
            data = os.read(self._answers, 1 << 16) if ready else b""
            assert data, f"the browser ended or hangs (status {self._process.poll()})"
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)
