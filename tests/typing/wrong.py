"""Mistakes that both checkers must see, each on the line marked with ``# wrong``, and on no other. Read, never run."""

from __future__ import annotations

import asyncio

import holdfast
from holdfast import step, workflow


@step
async def parse(app_id: str) -> list[str]:
    return [app_id]


@step(attempts=3)
async def credit(app_id: str, *, deep: bool = False) -> int:
    return len(app_id)


@step
def count(text: str) -> int:
    return len(text)


@workflow(version="1")
async def review(app_id: str) -> str:
    return app_id


@workflow
def report(text: str) -> str:
    return text


class Agent:
    @step
    async def think(self, prompt: str) -> str:
        return prompt

    @workflow
    async def answer(self, prompt: str) -> bytes:
        return prompt.encode()


async def what_is_run(hf: holdfast.Holdfast, agent: Agent) -> None:
    await hf.run(parse("a"), id="a")  # wrong: a step is not a workflow
    await hf.run(review, id="a")  # wrong: not called
    await hf.run(report("a"), id="a")  # wrong: a plain def workflow has run already; .bind("a") makes the call
    await hf.run(report, id="a")  # wrong: not called
    await hf.run(count("a"), id="a")  # wrong: a step, and it has run
    await hf.run(asyncio.sleep(1), id="a")  # wrong: any coroutine
    await hf.run(agent.think("a"), id="a")  # wrong: a step
    await hf.run(agent.answer, id="a")  # wrong: not called
    await hf.run(review("a"))  # wrong: no id
    await hf.run(review("a"), "a")  # wrong: the id is a keyword
    await hf.run(review("a"), id=7)  # wrong: an id is a str
    await hf.run(review("a"), id="a", state=["pages"])  # wrong: the state is a mapping
    await hf.run(review("a"), id="a", version="2")  # wrong: no such argument
    await hf.start(parse("a"), id="a")  # wrong: a step
    await hf.start(review, id="a")  # wrong: not called
    await hf.runs(limit="ten")  # wrong: a number
    await hf.history()  # wrong: of which run?
    await hf.watch("a")  # wrong: an async iterator
    hf.watch("a", 3)  # wrong: after is a keyword
    for _ in hf.watch("a"):  # wrong: an async iterator
        ...
    hf.session()  # wrong: a session has an id


async def arguments(agent: Agent) -> None:
    await parse(7)  # wrong: a str
    await parse()  # wrong: missing
    await parse("a", "b")  # wrong: too many
    await credit("a", True)  # wrong: a keyword
    await credit("a", depth=True)  # wrong: no such argument
    await review(app_id=7)  # wrong: a str
    review.bind(7)  # wrong: a str
    report.bind()  # wrong: missing
    count(7)  # wrong: a str
    await agent.think(7)  # wrong: a str
    await agent.answer()  # wrong: missing
    await asyncio.gather(parse("a"), credit(7))  # wrong: a str
    await asyncio.to_thread(count, 7)  # wrong: a str


async def results(hf: holdfast.Holdfast) -> None:
    number: int = await parse("a")  # wrong: a list
    docs, score = await asyncio.gather(parse("a"), credit("a"))
    text: str = score  # wrong: an int
    pages: list[int] = docs  # wrong: a list of str
    number = credit("a")  # wrong: not awaited
    number = await hf.run(review("a"), id="a")  # wrong: a str
    number = await asyncio.wait_for(review("a"), 1)  # wrong: a str
    await count("a")  # wrong: a plain def step is not awaited
    await report("a")  # wrong: a plain def workflow neither
    asyncio.create_task(review("a")).result().decode()  # wrong: a str
    print(number, text, pages)


@step(once="yes")  # wrong: a bool
async def pay() -> None: ...


@step(once=True, not_done=KeyboardInterrupt)  # wrong: no Exception
async def pay_once() -> None: ...


@step(attempt=3)  # wrong: attempts
async def misspelt() -> None: ...


@step(attempts="3")  # wrong: a number
async def three() -> None: ...


@step(timeout="60")  # wrong: a number
async def sixty() -> None: ...


@step(retry_on=KeyboardInterrupt)  # wrong: not an Exception
async def stubborn() -> None: ...


@workflow(attempts=3)  # wrong: an option of steps
async def tried() -> None: ...


@workflow(version=1.5)  # wrong: a str or an int
async def halved() -> None: ...


def the_rest() -> None:
    step(3)  # wrong: no function
    holdfast.state[1] = "one"  # wrong: keys are str
    holdfast.spend(100)  # wrong: of what?
    holdfast.progress(1)  # wrong: of how many?
    holdfast.progress("1", 2)  # wrong: a number
    holdfast.emit()  # wrong: what?
    holdfast.open(url=7)  # wrong: a path or a URL
    holdfast.StepFailed("a", "b")  # wrong: the message is missing
    holdfast.sleep("3")  # wrong: seconds
    holdfast.wait_for("a")  # wrong: of which type?
    holdfast.wait_for("a", 5)  # wrong: no type
