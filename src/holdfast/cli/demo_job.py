"""The job that ``holdfast demo`` runs, kills and carries on with: a loan application, from its documents to a decision.

Everything is computed from the documents; only the pace is made up, so that one can watch. An ordinary program:

    holdfast run holdfast.cli.demo_job:review_loan path/to/documents --id loan-1
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import holdfast
from holdfast.cli.demo_documents import Application, Transaction, documents_in, read_document
from holdfast.workflow import step, workflow

DOCUMENT_S, CREDIT_S, BATCH_S = 0.6, 1.4, 0.12  # the pace, in seconds
BATCHES, FUTURES_A_BATCH = 25, 2000

DEBTS = re.compile(r"loan|credit|leasing|instal+ment|mortgage|kredit|rate\b", re.IGNORECASE)
INCOME = re.compile(r"salary|wage|payroll|pension|gehalt|lohn", re.IGNORECASE)
OWN_ACCOUNTS = re.compile(r"settlement|own account|umbuchung", re.IGNORECASE)


@dataclass
class Dossier:
    documents: int
    application: Application
    transactions: list[Transaction]


@dataclass
class Credit:
    score: int
    debt_ratio: float
    income: float  # a month
    spending: float  # a month
    volatility: float  # of what is left of a month


@dataclass
class Risk:
    default_probability: float
    expected_loss: float
    futures: int


@dataclass
class Decision:
    applicant: str
    decision: str
    amount: float
    instalment: float
    score: int
    default_probability: float


@step
async def parse_documents(folder: str, pace: float) -> Dossier:
    """Read every document of the application: PDF text, CSV rows, the JSON form."""
    application, transactions = Application(), list[Transaction]()
    paths = documents_in(Path(folder))
    for path in paths:
        await asyncio.sleep(DOCUMENT_S * pace)
        try:
            found = read_document(path)
        except Exception as error:  # whatever a reader meets in a file of somebody else's
            raise ValueError(f"{path.name} cannot be read: {error}") from error
        transactions += [each for each in found.transactions if not OWN_ACCOUNTS.search(each.text)]
        application = found.application or application
        tell(f"{path.name}: {found.summary}")
    if not transactions:
        raise ValueError(f"no transactions were found in {', '.join(path.name for path in paths)}")
    return Dossier(len(paths), application, sorted(transactions, key=lambda each: each.day))


@step
async def check_credit(dossier: Dossier, pace: float) -> Credit:
    """What comes in, what is owed, what is left of a month, and a score between 300 and 850."""
    await asyncio.sleep(CREDIT_S * pace)
    months = by_month(dossier.transactions)
    income = statistics.fmean(sum(max(each.amount, 0) for each in month) for month in months)
    spending = -statistics.fmean(sum(min(each.amount, 0) for each in month) for month in months)
    owed = -statistics.fmean(sum(each.amount for each in month if is_debt(each)) for month in months)
    left = [sum(each.amount for each in month) for month in months]
    volatility = statistics.pstdev(left) / max(income, 1)
    ratio = (owed + instalment(dossier.application)) / max(income, 1)
    regular = sum(any(INCOME.search(each.text) for each in month) for month in months) / len(months)
    score = 850 - 420 * min(ratio, 1) - 260 * min(volatility, 1) - 120 * (1 - regular) - 90 * (sum(left) < 0)
    tell(f"income {income:,.0f} a month, {ratio:.0%} of it for debts, this loan included")
    return Credit(max(300, round(score)), round(ratio, 3), round(income, 2), round(spending, 2), round(volatility, 3))


@step
async def assess_risk(dossier: Dossier, credit: Credit, pace: float) -> Risk:
    """Play the years of the loan many times over: months drawn from those that were, and now and then a lost job."""
    application = dossier.application
    left = [sum(each.amount for each in month) for month in by_month(dossier.transactions)]
    monthly = instalment(application)
    dice = random.Random(f"{application.applicant} {application.amount}")  # the same futures in every process
    lost = defaults = 0.0
    for batch in range(1, BATCHES + 1):
        began = time.monotonic()
        for _ in range(FUTURES_A_BATCH):
            months_paid = play(dice, left, monthly, application.months, credit.income)
            if months_paid < application.months:
                defaults += 1
                lost += application.amount * (1 - months_paid / application.months)
        if batch % 5 == 0:
            tell(f"{batch * FUTURES_A_BATCH:,} of {BATCHES * FUTURES_A_BATCH:,} futures played")
        await asyncio.sleep(max(0.0, BATCH_S * pace - (time.monotonic() - began)))
    futures = BATCHES * FUTURES_A_BATCH
    return Risk(round(defaults / futures, 4), round(lost / futures, 2), futures)


@workflow(version="1")
async def review_loan(folder: str, pace: float = 1.0) -> Decision:
    dossier = await parse_documents(folder, pace)
    credit = await check_credit(dossier, pace)
    holdfast.state["score"] = credit.score
    risk = await assess_risk(dossier, credit, pace)
    accepted = risk.default_probability < 0.10 and credit.debt_ratio < 0.45
    application = dossier.application
    return Decision(
        application.applicant,
        "accepted" if accepted else "declined",
        application.amount,
        round(instalment(application), 2),
        credit.score,
        risk.default_probability,
    )


# -- the sums ----------------------------------------------------------------------------------------------


def by_month(transactions: list[Transaction]) -> list[list[Transaction]]:
    months: dict[tuple[int, int], list[Transaction]] = defaultdict(list)
    for each in transactions:
        day = date.fromisoformat(each.day)
        months[day.year, day.month].append(each)
    return [months[month] for month in sorted(months)]


def is_debt(transaction: Transaction) -> bool:
    return transaction.amount < 0 and DEBTS.search(transaction.text) is not None


def instalment(application: Application) -> float:
    """The monthly payment of an annuity."""
    monthly = application.rate / 12
    if not monthly:
        return application.amount / application.months
    return application.amount * monthly / (1 - (1 + monthly) ** -application.months)


def play(dice: random.Random, left: list[float], monthly: float, months: int, income: float) -> int:
    """One future: how many months were paid before three instalments were missing."""
    balance, jobless = 2 * monthly, 0
    for month in range(months):
        if jobless:
            jobless -= 1
        elif dice.random() < 0.002:
            jobless = dice.randint(2, 8)
        balance += dice.choice(left) - monthly - (0.35 * income if jobless else 0)
        balance = min(balance, 9 * monthly)  # what goes well is mostly spent
        if balance < -3 * monthly:
            return month
    return months


def tell(line: str) -> None:
    """For who watches; standard output is the result's."""
    print(f"    {line}", file=sys.stderr, flush=True)
