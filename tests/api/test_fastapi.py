"""A real FastAPI application, whose module opens its ``Holdfast`` lazily and whose routes are workflows and steps."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel

import holdfast
from holdfast import Mismatch, NotFound, StepFailed, step, workflow


class Loan(BaseModel):
    applicant: str
    amount: int = 100


class Decision(BaseModel):
    applicant: str
    score: int


executed: list[str] = []
failing: list[bool] = []
app = FastAPI()
hf = holdfast.open(f"memory://{uuid.uuid4()}")


@step
async def score(applicant: str) -> int:
    executed.append(applicant)
    await asyncio.sleep(0.01)
    return len(applicant)


@step
async def settle(applicant: str) -> None:
    if failing:
        raise ConnectionError("the bank is closed")


@workflow(version="1")
async def decide(loan: Loan) -> Decision:
    points, _ = await asyncio.gather(score(loan.applicant), settle(loan.applicant))
    return Decision(applicant=loan.applicant, score=points)


@app.post("/plain")
@workflow
async def route_that_is_a_workflow(loan: Loan) -> Decision:
    """A route called by the server is outside of a run: it runs plainly."""
    return await decide(loan)


@app.get("/score/{applicant}")
@step(attempts=2)
async def route_that_is_a_step(applicant: str, factor: int = 1) -> int:
    return factor * await score(applicant)


@app.get("/words/{text}")
@step
def route_that_is_a_plain_step(text: str) -> int:
    """FastAPI runs it in its thread pool, where no loop is running."""
    return len(text.split())


@app.post("/loans/{id}")
async def route_that_runs_one(id: str, loan: Loan) -> Decision:
    try:
        return await hf.run(decide(loan), id=id)
    except Mismatch as mismatch:
        raise HTTPException(409, str(mismatch)) from None
    except StepFailed as failure:
        raise HTTPException(502, failure.message) from None


@app.post("/start/{id}", status_code=202)
async def route_that_starts_one(id: str, loan: Loan) -> str:
    return (await hf.start(decide(loan), id=id)).id


@app.get("/loans/{id}")
async def route_that_looks(id: str) -> dict[str, Any]:
    try:
        run = await hf.get(id)
    except NotFound as missing:
        raise HTTPException(404, str(missing)) from None
    return {"status": run.status, "result": run.result}


@app.get("/depends")
async def route_with_a_step_as_dependency(points: Annotated[int, Depends(score)]) -> int:
    return points


@pytest.fixture(autouse=True)
def nothing_executed() -> None:
    executed.clear()
    failing.clear()


def served(program: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def serve() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            await program(client)

    asyncio.run(serve())


def test_routes_that_are_workflows_and_steps() -> None:
    async def program(client: httpx.AsyncClient) -> None:
        answer = await client.post("/plain", json={"applicant": "Ada"})
        assert (answer.status_code, answer.json()) == (200, {"applicant": "Ada", "score": 3})
        assert (await client.post("/plain", json={"amount": 3})).status_code == 422
        assert (await client.get("/score/Ada", params={"factor": 2})).json() == 6
        assert (await client.get("/words/one two three")).json() == 3
        assert (await client.get("/depends", params={"applicant": "Bob"})).json() == 3

    served(program)


def test_the_schema_tells_of_their_parameters() -> None:
    paths = app.openapi()["paths"]
    assert [each["name"] for each in paths["/score/{applicant}"]["get"]["parameters"]] == ["applicant", "factor"]
    assert "requestBody" in paths["/plain"]["post"]
    assert "runs plainly" in paths["/plain"]["post"]["description"]


def test_a_route_that_runs_durably() -> None:
    async def program(client: httpx.AsyncClient) -> None:
        loan = {"applicant": "Grace"}
        # a client that sends twice gets one run
        answers = await asyncio.gather(*(client.post("/loans/g-1", json=loan) for _ in range(5)))
        assert [answer.json() for answer in answers] == [{"applicant": "Grace", "score": 5}] * 5
        assert executed == ["Grace"]
        assert (await client.post("/loans/g-1", json={"applicant": "Eve"})).status_code == 409
        assert (await client.get("/loans/g-1")).json() == {
            "status": "done",
            "result": {"applicant": "Grace", "score": 5},
        }
        assert (await client.get("/loans/none")).status_code == 404

    served(program)

    async def later(client: httpx.AsyncClient) -> None:
        """On another loop, as after a reload."""
        assert (await client.post("/loans/g-1", json={"applicant": "Grace"})).json()["score"] == 5
        assert executed == ["Grace"]

    served(later)


def test_a_failed_request_is_sent_again() -> None:
    async def program(client: httpx.AsyncClient) -> None:
        failing.append(True)
        loan = {"applicant": "Edith"}
        for _ in range(3):
            answer = await client.post("/loans/e-1", json=loan)
            assert (answer.status_code, answer.json()) == (502, {"detail": "the bank is closed"})
        assert (await client.get("/loans/e-1")).json()["status"] == "failed"
        failing.clear()
        assert (await client.post("/loans/e-1", json=loan)).json() == {"applicant": "Edith", "score": 5}

    served(program)


def test_a_route_that_starts_one_in_the_background() -> None:
    async def program(client: httpx.AsyncClient) -> None:
        answer = await client.post("/start/h-1", json={"applicant": "Hedy"})
        assert (answer.status_code, answer.json()) == (202, "h-1")
        async with asyncio.timeout(5):
            while (await client.get("/loans/h-1")).json()["status"] != "done":
                await asyncio.sleep(0.01)

    served(program)


def test_an_application_that_opens_its_store_in_its_lifespan(tmp_path: Path) -> None:
    file = tmp_path / "loans.db"

    async def program() -> None:
        for _ in range(2):
            async with holdfast.open(file) as own:
                assert (await own.run(decide(Loan(applicant="Ida")), id="i")).score == 3

    asyncio.run(program())
    assert executed == ["Ida"]
