"""The same loan application in the explicit style: the code itself asks what is done already.

    python examples/loan_session.py    # kill it whenever you like, and type the same line again

There are no workflows and no steps here: a session is a durable mapping, and nothing more. It suits code that is
already written in stages. What it leaves to you: each stage asks first, saves after, and no two run at the same time.
"""

import asyncio

import holdfast


async def document_parsing_tool(app_id: str) -> list[str]:
    print("parsing", app_id, flush=True)
    await asyncio.sleep(1)  # stands for two minutes
    return ["salary statement", "bank statement"]


async def credit_check_tool(app_id: str) -> int:
    print("checking credit of", app_id, flush=True)
    await asyncio.sleep(1)  # stands for a minute
    return 300 + sum(app_id.encode()) % 550


async def risk_assessment_tool(docs: list[str], credit: int) -> str:
    print("assessing risk", flush=True)
    await asyncio.sleep(1.5)
    return f"{'low' if credit > 480 else 'high'} risk (score {credit}, {len(docs)} documents)"


async def main() -> None:
    # `session.state` is what the last save left, whichever process made it. One process holds a session at a time: a
    # second one waits here until the first closes it, or dies.
    async with (
        holdfast.open("loan.db") as hf,
        hf.session("loan-session-A-17", initial={"app_id": "A-17"}) as session,
    ):
        app_id = session.state["app_id"]

        # Stage 1. The result is in the state once its save has returned, and only then is it safe.
        if "docs" not in session.state:
            session.state["docs"] = await document_parsing_tool(app_id)
            await session.save()

        # Stage 2. A save writes what changed, not the whole state: the documents are not written a second time.
        if "credit" not in session.state:
            session.state["credit"] = await credit_check_tool(app_id)
            await session.save()

        # Stage 3. Killed in here, the next process comes straight back to this line.
        if "risk" not in session.state:
            session.state["risk"] = await risk_assessment_tool(session.state["docs"], session.state["credit"])
            await session.save()

        print(session.state["risk"])


if __name__ == "__main__":
    asyncio.run(main())
