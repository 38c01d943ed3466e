"""Paying: a loan is paid out, and an agent pays a bill. No transfer is made twice, whatever is killed.

    python examples/payment.py      # kill it whenever you like, and type the same line again

A transfer cannot be taken back, so its step is ``once``: what it is about to do is written down before, what came of it
after. Killed in between, nobody knows whether the money has left. A step with ``verify`` asks the bank; the letter has
nobody to ask, so its run stops, and a person says how it was: `holdfast resolve`.

The bank is a file here, so that the example runs anywhere; put your client's call in its place.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import holdfast
from holdfast import step, workflow

BANK = Path("bank.jsonl")  # a transfer a line: what the bank knows, whoever is killed here
LIMIT = 5_000_00  # cents


class Refused(Exception):
    """The bank said no: nothing was transferred."""


async def transfer(to: str, cents: int, reference: str) -> str:
    """One request to the bank. It takes a while to arrive, and so does the answer."""
    if cents > LIMIT:
        raise Refused(f"{cents / 100:.2f} is above the limit")
    await asyncio.sleep(0.3)
    with BANK.open("a") as bank:
        bank.write(json.dumps({"to": to, "cents": cents, "reference": reference}) + "\n")
    print("bank: transferred", cents, "to", to, flush=True)
    await asyncio.sleep(0.3)
    return f"receipt {reference[:8]}"


async def find_transfer(to: str, cents: int) -> str | holdfast.NotDone:
    """Whether the bank knows this very transfer. It gets the step's arguments, and the same key."""
    reference = holdfast.idempotency_key()
    known = BANK.read_text().splitlines() if BANK.exists() else []
    print("bank: asked for", reference[:8], flush=True)
    if any(json.loads(line)["reference"] == reference for line in known):
        return f"receipt {reference[:8]}"
    return holdfast.NOT_DONE


@step(once=True, verify=find_transfer, not_done=Refused)
async def pay(to: str, cents: int) -> str:
    # The same over every attempt and every process, and another one for every call: banks and payment services take
    # such a key, and make one transfer of all requests that carry it.
    return await transfer(to, cents, reference=holdfast.idempotency_key())


@step(once=True)
async def send_letter(to: str) -> str:
    print("post: a letter to", to, flush=True)
    await asyncio.sleep(0.3)
    return "sent"


@step
async def check_credit(app_id: str) -> int:
    await asyncio.sleep(0.1)
    return 700


@workflow(version="1")
async def pay_out(app_id: str, cents: int) -> str:
    score = await check_credit(app_id)
    if score < 600:
        return "refused"
    receipt = await pay(app_id, cents)
    return f"{app_id} is paid, {receipt}"


# What the model says, turn by turn: it asks for too much, learns that the bank said no, and asks for less.
SCRIPT: list[dict[str, Any]] = [
    {"tool": "pay", "arguments": {"to": "landlord", "cents": 9_000_00}},
    {"tool": "pay", "arguments": {"to": "landlord", "cents": 900_00}},
    {"tool": "send_letter", "arguments": {"to": "landlord"}},
    {"answer": "The rent is paid."},
]
TOOLS: dict[str, Any] = {"pay": pay, "send_letter": send_letter}


@step
async def ask_model(turn: int) -> dict[str, Any]:
    await asyncio.sleep(0.1)
    return SCRIPT[turn]


@workflow(version="1")
async def assistant(task: str) -> str:
    turn = 0
    while "answer" not in (reply := await ask_model(turn)):
        try:
            result = await TOOLS[reply["tool"]](**reply["arguments"])
        except Exception as error:
            # Agents catch everything. What is in doubt does not come by here: the run stops where it is, and no model
            # is told that a transfer "failed" which the bank has made.
            result = f"error: {error}"
        print("tool:", result, flush=True)
        turn += 1
    return str(reply["answer"])


async def main() -> None:
    async with holdfast.open("payments.db") as hf:
        print(await hf.run(pay_out("A-17", 1_200_00), id="loan-A-17"))
        print(await hf.run(assistant("pay the rent"), id="rent-May"))


if __name__ == "__main__":
    asyncio.run(main())
