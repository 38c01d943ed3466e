"""The web service as a real server: real sockets, killed and stopped in the middle; and its page in a real browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser, chromium

from holdfast.store import RunRow, open_store

EXAMPLE = Path(__file__).parents[2] / "examples" / "web_service.py"
PATIENCE_S = 60
Event = tuple[int | None, str, dict[str, Any]]  # id, kind, data


class Service:
    """The example in a folder of its own, on one port through all its lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        self.complained = ""  # on standard error, by the last process that ended

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLE), str(self.port)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert httpx.get(self.url, timeout=PATIENCE_S).status_code == 200
                return
            except httpx.ConnectError:
                assert self.process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)

    def end(self, how: signal.Signals) -> list[str]:
        """What it printed until then."""
        assert self.process is not None
        self.process.send_signal(how)
        printed, self.complained = self.process.communicate(timeout=PATIENCE_S)
        return printed.splitlines()

    def order(self) -> str:
        answer = httpx.post(f"{self.url}/stories", json={"topic": "lighthouse"}, timeout=PATIENCE_S)
        assert answer.status_code == 202
        return str(answer.json()["id"])

    def events(self, id: str, after: int = 0) -> Iterator[Event]:
        """As they arrive, until the server ends them, or ends."""
        headers = {"last-event-id": str(after)} if after else {}
        try:
            with httpx.stream("GET", f"{self.url}/stories/{id}/events", headers=headers, timeout=PATIENCE_S) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                yield from _parsed(answer.iter_lines())
        except httpx.TransportError:
            return

    def record(self) -> tuple[RunRow, list[str]]:
        """The one run, and the lines that a process must print that writes what is not recorded of it."""
        store = open_store(self.folder / "stories.db")
        try:
            (run,) = store.runs(status=None, workflow=None, limit=2, after=None)
            done = len(store.load(run.no))
        finally:
            store.close()
        return run, ["outline", "chapter 1", "chapter 2", "chapter 3"][done:]


def _parsed(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield (int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"]))
        fields = {}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    service.start()
    yield service
    assert service.process is not None
    service.process.kill()
    service.process.communicate()


def until(events: Iterator[Event], last: Callable[[Event], bool]) -> list[Event]:
    seen = []
    for event in events:
        seen.append(event)
        if last(event):
            return seen
    raise AssertionError(f"the stream ended before that: {seen[-3:]}")


def is_token_of(number: int) -> Callable[[Event], bool]:
    return lambda event: event[1] == "emitted" and event[2]["place"] == f"write_chapter#{number - 1}"


def text_of(events: list[Event], place: str) -> str:
    """The chunks of one call, as the last process that executed it told them."""
    told = [data for _, kind, data in events if kind == "emitted" and data["place"] == place]
    last = max(data["epoch"] for data in told)
    by_number = {data["number"]: data["chunk"] for data in told if data["epoch"] == last}
    return "".join(by_number.values())


@pytest.mark.crash
def test_a_stream_goes_on_after_the_server_was_killed(service: Service) -> None:
    id = service.order()
    stream = service.events(id)
    before = until(stream, is_token_of(2))
    service.end(signal.SIGKILL)
    before += list(stream)
    seqs = [number for number, _, _ in before if number is not None]
    _, missing = service.record()
    assert "outline" not in missing and "chapter 1" not in missing and missing
    service.start()
    after = until(service.events(id, after=seqs[-1]), lambda event: event[1] == "end")
    both = before + after
    assert [number for number, _, _ in both if number is not None] == [1, 2, 3, 4]
    checkpoints = {data["place"]: data["result"] for _, kind, data in both if kind == "checkpoint"}
    for number in (1, 2, 3):
        place = f"write_chapter#{number - 1}"
        assert text_of(both, place) == checkpoints[place], "what was shown is what was saved"
    words = sum(len(text.split()) for place, text in checkpoints.items() if place.startswith("write_chapter"))
    assert both[-1][2] == {"status": "done", "result": words, "error": None}
    bars = [data["done"] / data["total"] for _, kind, data in after if kind == "progress" and data["epoch"] == 2]
    assert bars.count(1.0) == len(missing), "the last word on each chapter"
    assert service.end(signal.SIGTERM) == missing, "nothing that was saved is written again"


@pytest.mark.crash
def test_a_server_that_is_stopped_hands_its_runs_back(service: Service) -> None:
    id = service.order()
    stream = service.events(id)
    until(stream, is_token_of(1))
    service.end(signal.SIGTERM)
    assert "this Holdfast is closed" in service.complained, "the open stream was ended"
    assert "Traceback" not in service.complained and "timeout" not in service.complained
    run, missing = service.record()
    assert (run.status, run.owner, run.deaths) == ("running", None, 0)
    service.start()
    rest = until(service.events(id, after=1), lambda event: event[1] == "end")
    assert [number for number, _, _ in rest if number is not None] == [2, 3, 4]
    run, nothing = service.record()
    assert (run.status, run.deaths, nothing) == ("done", 0, [])
    assert service.end(signal.SIGTERM) == missing


def test_a_story_that_is_not_there_and_a_topic_that_is_none(service: Service) -> None:
    missing = httpx.get(f"{service.url}/stories/none-1/events", timeout=PATIENCE_S)
    assert missing.status_code == 404 and "there is no run 'none-1'" in missing.json()["detail"]
    assert httpx.post(f"{service.url}/stories", json={"topic": "A-1"}, timeout=PATIENCE_S).status_code == 422


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed here (apt-get install chromium)")
    browser = Browser(program, tmp_path)
    yield browser
    browser.close()


@pytest.mark.crash
def test_the_page_goes_on_by_itself(service: Service, browser: Browser) -> None:
    """``HOLDFAST_PICTURES=folder`` keeps what it looked like on the way."""
    pictures = os.environ.get("HOLDFAST_PICTURES")

    def picture(name: str) -> None:
        if pictures:
            browser.save_picture(Path(pictures) / f"{name}.png")

    status = "document.querySelector('#status').textContent"
    browser.open(service.url)
    browser.wait_for("document.querySelector('button')?.textContent == 'Write'")
    picture("before")
    browser.look("document.querySelector('button').click()")
    browser.wait_for("document.querySelectorAll('article.done').length == 1")
    browser.wait_for("document.querySelectorAll('article.live p')[0]?.textContent.split(' ').length > 10")
    assert browser.look(status) == "writing"
    picture("writing")
    first = browser.look("document.querySelector('article.done p').textContent")
    service.end(signal.SIGKILL)
    run, missing = service.record()
    browser.wait_for(f"{status} == 'reconnecting …'")
    picture("killed")
    service.start()
    browser.wait_for(f"{status}.startsWith('done')")
    picture("done")
    texts = browser.look("[...document.querySelectorAll('article.done p')].map((each) => each.textContent)")
    assert len(texts) == 3 and texts[0] == first
    titles = browser.look("[...document.querySelectorAll('h2')].map((each) => each.textContent)")
    assert titles == ["The lighthouse", "Looking for the lighthouse", "How the lighthouse held fast"]
    assert browser.look(status) == f"done, {len(' '.join(texts).split())} words"
    assert service.end(signal.SIGTERM) == missing, "nothing that was saved is written again"
    # Another window, or a reload, shows the same from the record alone.
    service.start()
    browser.open("about:blank")
    browser.open(f"{service.url}/#{run.id}")
    browser.wait_for(f"{status}.startsWith('done')")
    assert browser.look("[...document.querySelectorAll('article.done p')].map((each) => each.textContent)") == texts
