"""A web service that writes stories: a page starts a run, and sees its tokens and progress as they come.

    pip install fastapi uvicorn
    python examples/web_service.py [PORT]     # then open http://127.0.0.1:8000, and kill it whenever you like

Start it again and the page goes on by itself: the run is resumed, no finished chapter is written twice, and the browser
says which checkpoint it saw last. The author is a script here, so that the example runs anywhere; put your model's
stream in its place.
"""

import asyncio
import json
import random
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

import holdfast
from holdfast import Call, Checkpoint, Emitted, HoldfastError, Progress, step, workflow

PAGE = Path(__file__).with_name("web_page.html")
TOKENS_A_SECOND = 30

hf = holdfast.open("stories.db")


# -- the work: an ordinary workflow, which knows nothing of the web --------------------------------------------


@step
async def outline(topic: str) -> list[str]:
    print("outline", flush=True)
    return [f"The {topic}", f"Looking for the {topic}", f"How the {topic} held fast"]


@step
async def write_chapter(topic: str, title: str, number: int) -> str:
    print(f"chapter {number}", flush=True)
    tokens = story_of(topic, number)
    for done, token in enumerate(tokens, 1):
        await asyncio.sleep(1 / TOKENS_A_SECOND)
        holdfast.emit(token)
        holdfast.progress(done, len(tokens))
    return "".join(tokens)


@workflow(version="1")
async def write_story(topic: str) -> int:
    """The number of words."""
    titles = await outline(topic)
    chapters = [await write_chapter(topic, title, number) for number, title in enumerate(titles, 1)]
    return sum(len(chapter.split()) for chapter in chapters)


def story_of(topic: str, number: int) -> list[str]:
    chance = random.Random(f"{topic} {number}")
    subjects = [f"the {topic}", "an old sailor", "the wind", "nobody", "a child from the harbour"]
    deeds = ["waited for", "remembered", "drew a map of", "sang to", "was afraid of", "mended", "kept watch over"]
    things = ["the sea", f"the {topic}", "a broken lamp", "the winter", "every ship", "what was left of the night"]
    sentences = [
        f"{chance.choice(subjects)} {chance.choice(deeds)} {chance.choice(things)}".capitalize() for _ in range(9)
    ]
    return [f"{word} " for word in ". ".join([*sentences, ""]).split()]


# -- the service -----------------------------------------------------------------------------------------------


class Order(BaseModel):
    topic: Annotated[str, Field(pattern=r"^[a-z]{1,30}$")]


def story(id: str) -> Call[int]:
    """The id says what is written, so that any process can go on with it."""
    return write_story(id.partition("-")[0])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with hf:  # at its end what still runs is handed back, and resumed by whoever starts next
        for run in await hf.runs(status="running"):  # of a process that died, or was stopped
            await hf.start(story(run.id), id=run.id)
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE)


@app.post("/stories", status_code=202)
async def order(what: Order) -> dict[str, str]:
    id = f"{what.topic}-{uuid.uuid4().hex[:8]}"
    await hf.start(story(id), id=id)
    return {"id": id}


@app.get("/stories/{id}/events")
async def events(id: str, last_event_id: Annotated[int, Header()] = 0) -> StreamingResponse:
    """Server-sent events. A browser that lost its connection sends the id of the last one by itself; only
    checkpoints have one, so nothing that is recorded is missed, or comes twice."""
    try:
        await hf.get(id)
    except holdfast.NotFound as unknown:
        raise HTTPException(404, str(unknown)) from None
    return StreamingResponse(stream(id, last_event_id), media_type="text/event-stream")


async def stream(id: str, after: int) -> AsyncIterator[str]:
    yield "retry: 500\n\n"  # milliseconds until the browser tries again
    try:
        async for event in hf.watch(id, after=after):
            match event:
                case Checkpoint(seq=seq, name=name, place=place, status=status, inputs=inputs, result=result):
                    data = {"name": name, "place": place, "status": status, "inputs": inputs, "result": result}
                    yield message("checkpoint", data, id=seq)
                case Progress() | Emitted():
                    yield message(type(event).__name__.lower(), asdict(event))
        run = await hf.get(id)
        yield message("end", {"status": run.status, "result": run.result, "error": run.error})
    except HoldfastError as error:  # closed, since the server is being stopped: the browser will ask the next one
        print(error, file=sys.stderr, flush=True)


def message(event: str, data: dict[str, Any], id: int | None = None) -> str:
    head = f"id: {id}\n" if id is not None else ""
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n"


class Server(uvicorn.Server):
    """A server that is stopped waits for open streams, and these for their runs: so the runs are handed back first."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await hf.aclose()
        await super().shutdown(sockets)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    print(f"http://127.0.0.1:{port}", file=sys.stderr, flush=True)
    Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=5)).run()
