"""Makes what ``holdfast demo`` reads: a bank statement (PDF), card transactions (CSV), an application (JSON).

Nobody real is in them. Run once, when they are to look different; what it makes is committed:

    pip install fpdf2 && python tools/make_statement.py
"""

from __future__ import annotations

import csv
import json
import random
from datetime import date, datetime, timedelta
from pathlib import Path

from fpdf import FPDF

FILES = Path(__file__).parents[1] / "src" / "holdfast" / "cli" / "demo_files"
START, MONTHS = date(2026, 1, 1), 6
OPENING = 2140.55
HOLDER = "Ada Lindqvist"

# (day of the month, text, amount)
EVERY_MONTH = [
    (1, "Rent Hafenstrasse 12", -1080.00),
    (2, "Electricity Nordstrom", -64.50),
    (3, "Car loan Autobank instalment", -238.00),
    (5, "Health insurance", -119.90),
    (8, "Phone and internet", -44.95),
    (12, "Savings plan", -150.00),
    (15, "Consumer credit Kaufland instalment", -61.20),
    (25, "Salary Nordwind Logistics", 3240.00),
    (28, "Card account settlement", None),  # what the cards spent this month
]
SHOPS = [
    ("Groceries", 18, 74),
    ("Bakery", 3, 11),
    ("Pharmacy", 5, 38),
    ("Fuel", 42, 71),
    ("Restaurant", 19, 64),
    ("Bookshop", 9, 45),
    ("Train ticket", 12, 58),
    ("Clothes", 25, 120),
    ("Cinema", 11, 26),
]


def months() -> list[date]:
    return [START.replace(month=START.month + number) for number in range(MONTHS)]


def card_transactions(dice: random.Random) -> list[tuple[date, str, float]]:
    rows = []
    for month in months():
        for _ in range(dice.randint(28, 36)):
            shop, least, most = dice.choice(SHOPS)
            day = month + timedelta(days=dice.randrange(27))
            rows.append((day, f"{shop} {dice.choice(['Nord', 'Mitte', 'West'])}", -round(dice.uniform(least, most), 2)))
    return sorted(rows)


def movements(cards: list[tuple[date, str, float]]) -> list[tuple[date, str, float]]:
    rows = []
    for month in months():
        spent = sum(amount for day, _, amount in cards if day.month == month.month)
        for day, text, amount in EVERY_MONTH:
            # The settlement moves the cards' spending here; the demo counts it once, in the CSV.
            rows.append((month.replace(day=day), text, round(spent if amount is None else amount, 2)))
        if month.month % 2:
            rows.append((month.replace(day=20), "Freelance invoice", 385.00 + 15 * month.month))
        if month.month == 4:
            rows.append((month.replace(day=17), "Car repair Meyer", -612.40))
    return sorted(rows)


def write_pdf(path: Path, rows: list[tuple[date, str, float]]) -> None:
    pdf = FPDF(format="A4")
    pdf.set_creation_date(datetime(2026, 7, 1))  # the same bytes each time
    pdf.set_title("Statement of account")
    balance = OPENING
    for month in months():
        pdf.add_page()
        pdf.set_font("Helvetica", "B", 15)
        pdf.cell(0, 10, "Hansebank  Statement of account", new_x="LMARGIN", new_y="NEXT")
        pdf.set_font("Helvetica", size=10)
        pdf.cell(0, 6, f"{HOLDER}   account DE00 1234 5678 9000   {month:%B %Y}", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(4)
        pdf.set_font("Courier", size=9)
        lines = [f"Opening balance {balance:>52,.2f}"]
        for day, text, amount in rows:
            if day.month == month.month:
                balance = round(balance + amount, 2)
                lines.append(f"{day:%Y-%m-%d}  {text:<40} {amount:>+15,.2f}")
        lines.append(f"Closing balance {balance:>52,.2f}")
        for line in lines:
            pdf.cell(0, 5.5, line, new_x="LMARGIN", new_y="NEXT")
    pdf.output(str(path))


def main() -> None:
    dice = random.Random(20260701)
    cards = card_transactions(dice)
    FILES.mkdir(parents=True, exist_ok=True)
    write_pdf(FILES / "statement.pdf", movements(cards))
    with (FILES / "transactions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["date", "description", "amount"])
        rows.writerows((f"{day:%Y-%m-%d}", text, f"{amount:.2f}") for day, text, amount in cards)
    application = {"applicant": HOLDER, "amount": 8000, "months": 48, "rate": 0.069, "purpose": "roof repair"}
    (FILES / "application.json").write_text(json.dumps(application, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
