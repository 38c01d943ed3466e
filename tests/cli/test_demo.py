"""``holdfast demo``: it says what happened, so what it says is checked against what the processes did."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import Terminal

from holdfast.cli.demo_documents import amount_of, day_of, read_document

STEPS = ["parse_documents", "check_credit", "assess_risk"]


@pytest.mark.crash
def test_the_demo_kills_a_process_and_another_one_carries_on(terminal: Terminal) -> None:
    done = terminal.type("demo", "--fast", "--store", "demo.db", "--json")
    assert done.code == 0, done
    report = done.object
    first, second = report["pids"]
    assert report["killed"]
    assert report["recalled_as_recorded"]
    assert [(each["name"], each["pid"]) for each in report["steps"]] == [
        ("parse_documents", first),
        ("check_credit", first),
        ("assess_risk", second),
    ]
    assert report["result"]["applicant"] == "Ada Lindqvist"
    assert "✗ kill -9" in done.err
    assert "Not done again: 2 steps" in done.err
    shown = terminal.type("show", report["run"], "--store", "demo.db").out
    assert f"pid {first}" in shown
    assert f"pid {second}" in shown


@pytest.mark.crash
def test_the_demo_takes_documents_of_ones_own(terminal: Terminal) -> None:
    docs = terminal.folder / "docs"
    docs.mkdir()
    (docs / "konto.csv").write_text(
        "Datum;Verwendungszweck;Betrag\n31.01.2026;Gehalt;2.500,00\n02.02.2026;Miete;-900,50\n"
    )
    done = terminal.type("demo", "--fast", "--docs", "docs")
    assert done.code == 0, done
    assert "konto.csv: 2 transactions, 1,599.50 together" in done.out


def test_documents_that_cannot_be_used_are_named(terminal: Terminal) -> None:
    none = terminal.type("demo", "--fast", "--docs", "nowhere")
    assert (none.code, none.err.startswith("holdfast: there is no folder nowhere")) == (2, True), none
    docs = terminal.folder / "docs"
    docs.mkdir()
    (docs / "bad.csv").write_text("a,b\n1,2\n")
    bad = terminal.type("demo", "--fast", "--docs", "docs")
    assert bad.code == 2
    assert "bad.csv cannot be read: no column is called date" in bad.err
    assert "Traceback" not in bad.err


def test_the_demos_own_statement_adds_up() -> None:
    from holdfast.cli.demo import FILES

    statement = read_document(FILES / "statement.pdf")
    assert statement.summary == "6 pages, 58 movements, and they lead to its closing balance"
    assert len(read_document(FILES / "transactions.csv").transactions) > 100


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1,234.50", 1234.5), ("1.234,50", 1234.5), ("+1 234.50", 1234.5), ("-7", -7), ("-1'000.5", -1000.5)],
)
def test_amounts_are_read_as_they_are_written(text: str, amount: float) -> None:
    assert amount_of(text) == amount


def test_what_is_no_amount_or_date_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        amount_of("free")
    with pytest.raises(ValueError, match="not a date"):
        day_of("soon")
