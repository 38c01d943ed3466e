"""A loan application, as a durable workflow.

    python examples/loan.py            # kill it whenever you like (Ctrl-C, kill -9, the power cord) …
    python examples/loan.py            # … and type the same line again

Each step takes seconds here and stands for minutes. What a step has returned is in loan.db before the next line runs,
so the second process prints "parsing" only if the first one had not finished that.
"""

import asyncio
from dataclasses import dataclass

import holdfast
from holdfast import step, workflow


# What steps return is written down and comes back as what it was: a dataclass comes back as that dataclass.
@dataclass
class Document:
    title: str
    pages: int


# A step is the unit that is done once and remembered. Everything that asks the world (a file, a model, a service, the
# time) belongs into one, because everything outside of steps is run again when the job is resumed.
@step
async def parse_documents(app_id: str) -> list[Document]:
    print("parsing", app_id, flush=True)
    await asyncio.sleep(1)
    return [Document("salary statement", 3), Document("bank statement", 11)]


# A service that may fail for a moment: up to three attempts, each of at most 60 seconds. Only the last failure counts.
@step(attempts=3, timeout=60)
async def check_credit(app_id: str) -> int:
    print("checking credit of", app_id, flush=True)
    await asyncio.sleep(1)
    return 300 + sum(app_id.encode()) % 550


@step
async def assess_risk(documents: list[Document], score: int) -> str:
    print("assessing risk", flush=True)
    await asyncio.sleep(1.5)
    pages = sum(document.pages for document in documents)
    return f"{'low' if score > 480 else 'high'} risk (score {score}, {pages} pages)"


# The workflow is the plan. It is ordinary asyncio: these two steps run at the same time, and if the process dies when
# one of them is finished, that one is not done again.
@workflow(version="1")
async def review_loan(app_id: str) -> str:
    documents, score = await asyncio.gather(parse_documents(app_id), check_credit(app_id))
    # The state is for what others want to see of a run: `holdfast show loan-A-17 --store loan.db`.
    holdfast.state["pages"] = sum(document.pages for document in documents)
    return await assess_risk(documents, score)


async def main() -> None:
    async with holdfast.open("loan.db") as hf:
        # One line for three things: start the run, resume it, or return what it returned. The id makes it the same.
        print(await hf.run(review_loan("A-17"), id="loan-A-17"))


if __name__ == "__main__":
    asyncio.run(main())
