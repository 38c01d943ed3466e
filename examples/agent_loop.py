"""An agent: a model is asked, its tool is called, the answer goes back to the model, until it has had enough.

    python examples/agent_loop.py      # kill it whenever you like, and type the same line again

Every model call and every tool call is a step: none that is finished is paid for twice. The model is a script here, so
that the example runs anywhere; put your client's call in its place.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import holdfast
from holdfast import step, workflow

Message = dict[str, Any]

# What the model says, turn by turn: it tries a tool that does not exist any more, and learns from the answer.
SCRIPT: list[Message] = [
    {"tool": "search", "arguments": {"query": "height of the Zugspitze in metres"}},
    {"tool": "convert", "arguments": {"metres": 2962}},
    {"tool": "calculate", "arguments": {"left": 2962, "operator": "/", "right": 0.3048}},
    {"answer": "The Zugspitze is 2962 m high, which is about 9718 feet."},
]


@step(attempts=3)
async def ask_model(messages: list[Message]) -> Message:
    turn = len([message for message in messages if message["role"] == "assistant"])
    print("model: turn", turn + 1, flush=True)
    await asyncio.sleep(0.4)
    # What the call has cost is recorded with its result, in the same row; `run.spent` adds it up, over all processes.
    holdfast.spend(tokens=150 + 20 * len(messages), usd=0.002)
    return SCRIPT[turn]


@step
async def search(query: str) -> str:
    print("tool: search", flush=True)
    await asyncio.sleep(0.4)
    return "Zugspitze: 2962 m"


@step
async def calculate(left: float, operator: str, right: float) -> float:
    print("tool: calculate", flush=True)
    await asyncio.sleep(0.4)
    return round({"+": left + right, "*": left * right, "/": left / right}[operator], 1)


@step
async def convert(metres: float) -> float:
    print("tool: convert", flush=True)
    raise ConnectionError("the conversion service was switched off")


TOOLS: dict[str, Callable[..., Awaitable[Any]]] = {"search": search, "calculate": calculate, "convert": convert}


@workflow(version="1")
async def answer(question: str) -> str:
    # The conversation is an ordinary list. A resumed run builds it again from the recorded answers: it is not stored.
    messages: list[Message] = [{"role": "user", "content": question}]
    while True:
        reply = await ask_model(messages)
        messages.append({"role": "assistant", "content": reply})
        if "answer" in reply:
            return str(reply["answer"])
        try:
            result: Any = await TOOLS[reply["tool"]](**reply["arguments"])
        except Exception as error:
            # Agents catch everything and tell the model. That is safe: a failure is recorded like a result, so a
            # resumed run hears of it again without calling the tool; and what must stop a run is not caught by this.
            result = f"error: {error}"
        messages.append({"role": "tool", "content": result})


async def main() -> None:
    async with holdfast.open("agent.db") as hf:
        print(await hf.run(answer("How high is the Zugspitze, in feet?"), id="agent-1"))
        run = await hf.get("agent-1")
        print(f"{run.steps} steps, {run.spent.tokens} tokens, ${run.spent.usd:.3f}")


if __name__ == "__main__":
    asyncio.run(main())
