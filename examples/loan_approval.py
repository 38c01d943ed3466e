"""A loan that a person approves from the command line, minutes or days later; the process need not live that long.

python examples/loan_approval.py              # it prints what it asks for, and waits: Ctrl-C or kill -9 it
holdfast list --waiting --store loans.db      # who is asked what
holdfast send loan-A-17 approval '{"by": "Ada", "granted": true}' --store loans.db
python examples/loan_approval.py              # carries on: the credit is not checked again
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import holdfast
from holdfast import step, workflow

DAY = 86_400.0  # seconds


@dataclass
class Approval:
    by: str
    granted: bool
    reason: str = ""


@step
async def check_credit(app_id: str) -> int:
    print("checking credit of", app_id, flush=True)
    await asyncio.sleep(0.5)  # stands for minutes
    return 514


@step
async def disburse(app_id: str, approved_by: str) -> str:
    print("disbursing", app_id, flush=True)
    return f"{app_id}: paid out, approved by {approved_by}"


@workflow(version="1")
async def approve_loan(app_id: str, amount: int) -> str:
    score = await check_credit(app_id)
    ask = f"Pay {amount:,} to {app_id}? The score is {score}."
    print(ask, flush=True)
    try:
        approval = await holdfast.wait_for("approval", Approval, timeout=7 * DAY, ask=ask)
    except TimeoutError:
        return f"{app_id}: nobody decided within a week"
    if not approval.granted:
        return f"{app_id}: refused by {approval.by}"
    await holdfast.sleep(0.5)  # stands for the days in which the customer may withdraw
    return await disburse(app_id, approval.by)


async def main() -> None:
    async with holdfast.open("loans.db") as hf:
        print(await hf.run(approve_loan("A-17", 20_000), id="loan-A-17"))


if __name__ == "__main__":
    asyncio.run(main())
