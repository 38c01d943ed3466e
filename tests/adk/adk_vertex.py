"""Vertex AI's sessions on this machine: what is answered is built from the types of Google's client library.

It holds what the client sends, gives events in pages, ordered by their time, and sets state as ``dict.update`` does. A
raw event is a ``Struct`` of protocol buffers, which knows one kind of number. How the real service orders events of one
time, and what it makes of ``user:`` and ``app:``, is not known here."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agentplatform import types
from google.adk.sessions.vertex_ai_session_service import VertexAiSessionService
from google.genai.types import HttpOptions
from pydantic import BaseModel

PAGE = 10  # events; the real one has a hundred, which no scene here fills
_PATH = re.compile(r"/v1beta1/(?:projects/[^/]+/locations/[^/]+/)?(reasoningEngines/\d+)/sessions(?:/([\w-]+))?(.*)")


class _Here(VertexAiSessionService):
    """ADK's own, but for the address; a key stands for credentials."""

    def __init__(self, url: str, engine: str) -> None:
        os.environ["GOOGLE_GENAI_USE_ENTERPRISE"] = "true"
        super().__init__(agent_engine_id=engine, express_mode_api_key="none")
        self._url = url

    def _api_client_http_options_override(self) -> HttpOptions:
        return HttpOptions(base_url=self._url)


def sessions_at(url: str, engine: str) -> VertexAiSessionService:
    """``url`` is that of a ``VertexServer``, or "real"; then ``engine`` is ``projects/…/reasoningEngines/…``."""
    if url != "real":
        return _Here(url, engine)
    _, project, _, location, _, id = engine.split("/")
    return VertexAiSessionService(project=project, location=location, agent_engine_id=id)


class VertexServer:
    """``with VertexServer() as server:``, then ``sessions_at(server.url, …)`` is ADK's service, and talks to it."""

    def __enter__(self) -> VertexServer:
        self.sessions: dict[str, types.Session] = {}
        self.events: dict[str, list[types.SessionEvent]] = {}
        self._http = _Http(("127.0.0.1", 0), _Asked)
        self._http.vertex = self  # type: ignore[attr-defined] # where a request finds what there is
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def create(self, engine: str, id: str, asked: dict[str, Any]) -> BaseModel | None:
        name = f"projects/1/locations/us-central1/{engine}/sessions/{id}"
        if name in self.sessions:
            return None
        now = datetime.now(UTC)
        session = types.Session.model_validate(asked)
        self.sessions[name] = session.model_copy(update={"name": name, "create_time": now, "update_time": now})
        self.events[name] = []
        return types.RuntimeSessionOperation(name=f"{name}/operations/1", done=False)

    def append(self, name: str, asked: dict[str, Any]) -> BaseModel:
        event = types.SessionEvent.model_validate({**asked, "rawEvent": _as_struct(asked.get("rawEvent"))})
        session, events = self.sessions[name], self.events[name]
        events.append(event.model_copy(update={"name": f"{name}/events/{len(events) + 1}"}))
        events.sort(key=lambda each: each.timestamp or datetime.min)
        set_now = event.actions.state_delta if event.actions else None
        state = {**(session.session_state or {}), **_as_struct(set_now or {})}
        self.sessions[name] = session.model_copy(update={"session_state": state, "update_time": datetime.now(UTC)})
        return types.AppendRuntimeSessionEventResponse()

    def page(self, name: str, asked: dict[str, list[str]]) -> BaseModel:
        at = int(asked.get("pageToken", ["0"])[0])
        more = str(at + PAGE) if at + PAGE < len(self.events[name]) else None
        found = self.events[name][at : at + PAGE]
        return types.ListRuntimeSessionEventsResponse(session_events=found, next_page_token=more)


class _Http(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # who asked has been killed
            super().handle_error(request, client_address)


class _Asked(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vertex, engine, id, rest = self._place()
        name = f"projects/1/locations/us-central1/{engine}/sessions/{id}"
        if id is None:
            query = parse_qs(urlsplit(self.path).query)
            made = vertex.create(engine, query.get("sessionId", ["made"])[0], asked)
            self._answer(made, 409, "ALREADY_EXISTS")
        else:
            known = rest.startswith(":appendEvent") and name in vertex.sessions
            self._answer(vertex.append(name, asked) if known else None)

    def do_GET(self) -> None:
        vertex, engine, id, rest = self._place()
        name = f"projects/1/locations/us-central1/{engine}/sessions/{id}"
        if name not in vertex.sessions:
            self._answer(None)
        elif rest.startswith("/events"):
            self._answer(vertex.page(name, parse_qs(urlsplit(self.path).query)))
        elif rest.startswith("/operations"):
            done = types.RuntimeSessionOperation(name="operations/1", done=True, response=types.Session(name=name))
            self._answer(done)
        else:
            self._answer(vertex.sessions[name])

    def _place(self) -> tuple[VertexServer, str, str | None, str]:
        found = _PATH.fullmatch(urlsplit(self.path).path)
        assert found, self.path
        vertex: VertexServer = self.server.vertex  # type: ignore[attr-defined]
        return vertex, found[1], *((found[2].split(":")[0], found[3]) if found[2] else (None, ""))

    def _answer(self, found: BaseModel | None, code: int = 404, status: str = "NOT_FOUND") -> None:
        if found is not None:
            body = found.model_dump_json(by_alias=True, exclude_none=True)
        else:
            body = json.dumps({"error": {"code": code, "status": status, "message": self.path}})
        self.send_response(200 if found is not None else code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


def _as_struct(value: Any) -> Any:
    """As it comes back from a ``Struct``: every number is a double, and one without a fraction is written without."""
    if isinstance(value, dict):
        return {key: _as_struct(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_struct(each) for each in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return int(value) if float(value).is_integer() else float(value)
    return value
