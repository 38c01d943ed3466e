"""Reading the demo's documents: bank statements as PDF, transactions as CSV, an application as JSON."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.records import count

DATES = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y")
LINE = re.compile(r"^\s*(\d{1,4}[-./]\d{1,2}[-./]\d{1,4})\s+(.+?)\s+([+-]?\s?[\d.,' ]*\d[.,]\d\d)\s*$")
BALANCE = re.compile(r"^\s*(opening|closing) balance\D*?([+-]?[\d.,' ]*\d[.,]\d\d)\s*$", re.IGNORECASE)


@dataclass
class Transaction:
    day: str  # 2026-01-31
    text: str
    amount: float


@dataclass
class Application:
    applicant: str = "unknown"
    amount: float = 10_000.0
    months: int = 36
    rate: float = 0.06


@dataclass
class Document:
    summary: str
    transactions: list[Transaction] = field(default_factory=list)
    application: Application | None = None


def documents_in(folder: Path) -> list[Path]:
    """Those that can be read, by name. Raises ``ValueError`` if there is none."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in READERS)
    if not paths:
        raise ValueError(f"there is no PDF, CSV or JSON document in {folder}")
    return paths


def read_document(path: Path) -> Document:
    return READERS[path.suffix.lower()](path)


def read_pdf(path: Path) -> Document:
    import pypdf

    pages = [page.extract_text() for page in pypdf.PdfReader(path).pages]
    lines = [line for page in pages for line in page.splitlines()]
    found = [Transaction(day_of(m[1]), m[2], amount_of(m[3])) for line in lines if (m := LINE.match(line))]
    balances = [(m[1].lower(), amount_of(m[2])) for line in lines if (m := BALANCE.match(line))]
    said = f"{count(len(pages), 'page')}, {count(len(found), 'movement')}"
    if balances and balances[0][0] == "opening" and balances[-1][0] == "closing":
        off = balances[0][1] + sum(each.amount for each in found) - balances[-1][1]
        said += ", and they lead to its closing balance" if abs(off) < 0.01 else f", {off:+.2f} off its closing balance"
    return Document(said, found)


def read_csv(path: Path) -> Document:
    text = path.read_text(encoding="utf-8-sig")
    try:
        dialect: Any = csv.Sniffer().sniff(text[:4096], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel
    rows = csv.DictReader(text.splitlines(), dialect=dialect)
    day, said, amount = (column(rows, *names) for names in (("date", "datum", "day"), TEXTS, ("amount", "betrag")))
    found = [Transaction(day_of(row[day]), row[said], amount_of(row[amount])) for row in rows if row[amount]]
    return Document(f"{count(len(found), 'transaction')}, {sum(each.amount for each in found):,.2f} together", found)


def read_json(path: Path) -> Document:
    held = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(held, list):  # transactions
        found = [Transaction(day_of(each["date"]), each.get("description", ""), float(each["amount"])) for each in held]
        return Document(count(len(found), "transaction"), found)
    known = {name: held[name] for name in ("applicant", "amount", "months", "rate") if name in held}
    application = Application(**known)
    said = f"{application.applicant} applies for {application.amount:,.0f} over {application.months} months"
    return Document(said, application=application)


TEXTS = ("description", "text", "payee", "name", "verwendungszweck", "memo")
READERS = {".pdf": read_pdf, ".csv": read_csv, ".json": read_json}


def column(rows: csv.DictReader[str], *names: str) -> str:
    """The column that is called like one of these."""
    for name in names:
        for each in rows.fieldnames or ():
            if name in each.lower():
                return each
    raise ValueError(f"no column is called {' or '.join(names)}; there are {', '.join(rows.fieldnames or ())}")


def day_of(text: str) -> str:
    for form in DATES:
        try:
            return datetime.strptime(text.strip(), form).date().isoformat()
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not a date that is understood here")


def amount_of(text: str) -> float:
    """``1,234.50``, ``1.234,50`` and ``+1 234.50`` are the same; the last point or comma parts the cents."""
    plain = re.sub(r"[ ']", "", text.strip())
    parts = re.fullmatch(r"([+-]?[\d.,]*?)(?:[.,](\d{1,2}))?", plain)
    if parts is None:
        raise ValueError(f"{text!r} is not an amount")
    return float(re.sub(r"[.,]", "", parts[1]) + f".{parts[2] or 0}")
