"""Each example, run as a newcomer would: killed in the middle, started again; what it did is what it printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_S = 60


class Example:
    def __init__(self, name: str, folder: Path, *args: str) -> None:
        self.command = [sys.executable, str(EXAMPLES / name), *args]
        self.folder = folder
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "GOOGLE_"))
        }

    def killed_at(self, cue: str) -> list[str]:
        """What it printed until it was killed, where it printed ``cue``."""
        process = subprocess.Popen(
            self.command, cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, encoding="utf-8"
        )
        seen = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                seen.append(line.rstrip("\n"))
                if cue in line:
                    break
        finally:
            process.kill()
            rest, _ = process.communicate()
        assert seen and cue in seen[-1], f"it ended without saying {cue!r}: {seen}"
        # A process killed in the middle of a print leaves a line without its end: what it tells was not said.
        return seen + [line.rstrip("\n") for line in rest.splitlines(keepends=True) if line.endswith("\n")]

    def command_line(self, *args: str) -> str:
        line = [sys.executable, "-m", "holdfast", *args]
        done = subprocess.run(line, cwd=self.folder, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def finished(self) -> list[str]:
        done = subprocess.run(
            self.command, cwd=self.folder, env=self.environ, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.mark.crash
@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("loan.py", "low risk (score 514, 14 pages)"),
        ("loan_session.py", "low risk (score 514, 2 documents)"),
    ],
)
def test_the_loan_is_not_parsed_twice(name: str, result: str, tmp_path: Path) -> None:
    example = Example(name, tmp_path)
    first = example.killed_at("assessing risk")
    assert sorted(first) == ["assessing risk", "checking credit of A-17", "parsing A-17"]
    assert example.finished() == ["assessing risk", result]
    assert example.finished() == [result]


@pytest.mark.crash
def test_nothing_is_paid_twice(tmp_path: Path) -> None:
    """Killed while the loan's transfer is under way, which the bank is asked about; and behind the letter, which nobody
    can be asked about but a person."""
    example = Example("payment.py", tmp_path)
    assert example.killed_at("bank: transferred 120000") == ["bank: transferred 120000 to A-17"]
    second = example.killed_at("post: a letter")
    assert [line.partition(" for")[0].partition(", rec")[0] for line in second[:2]] == ["bank: asked", "A-17 is paid"]
    assert second[2].startswith("tool: error: pay failed with") and second[3] == "bank: transferred 90000 to landlord"
    stopped = subprocess.run(
        example.command, cwd=example.folder, env=example.environ, capture_output=True, encoding="utf-8", timeout=60
    )
    assert stopped.returncode == 1 and "holdfast resolve rent-May 9 --result JSON" in stopped.stderr
    example.command_line("resolve", "rent-May", "9", "--result", "sent", "--store", "payments.db")
    third = example.finished()
    assert third[0].startswith("A-17 is paid") and third[-2:] == ["tool: sent", "The rent is paid."]
    assert len((tmp_path / "bank.jsonl").read_text().splitlines()) == 2


@pytest.mark.crash
def test_the_agent_hears_of_its_failed_tool_again_without_calling_it(tmp_path: Path) -> None:
    example = Example("agent_loop.py", tmp_path)
    first = example.killed_at("tool: calculate")
    assert first == [
        "model: turn 1",
        "tool: search",
        "model: turn 2",
        "tool: convert",
        "model: turn 3",
        "tool: calculate",
    ]
    answer = "The Zugspitze is 2962 m high, which is about 9718 feet."
    costs = "7 steps, 920 tokens, $0.008"  # of both processes
    assert example.finished() == ["tool: calculate", "model: turn 4", answer, costs]
    assert example.finished() == [answer, costs]


@pytest.mark.crash
def test_each_file_is_digested_once_but_those_in_hand(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.txt").write_text(f"file number {number}\n")
    example = Example("folder_digest.py", tmp_path, str(folder))
    first = example.killed_at("digested 100.txt")
    *second, result = example.finished()
    assert result.startswith("200 files, 600 words, ")
    assert {*first, *second} == {f"digested {number:03}.txt" for number in range(200)}
    twice = set(first) & set(second)
    assert len(twice) <= 8, "only what was in hand is done again"
    untouched = Example("folder_digest.py", tmp_path / "texts", str(folder))
    *_, whole = untouched.finished()
    assert whole == result
    assert example.finished() == [result]


@pytest.mark.crash
def test_the_loan_is_approved_after_its_process_was_killed(tmp_path: Path) -> None:
    example = Example("loan_approval.py", tmp_path)
    ask = "Pay 20,000 to A-17? The score is 514."
    assert example.killed_at("Pay 20,000") == ["checking credit of A-17", ask]
    approval = '{"by": "Ada", "granted": true}'
    sent = example.command_line("send", "loan-A-17", "approval", approval, "--store", "loans.db")
    assert sent.startswith("sent approval ")
    result = "A-17: paid out, approved by Ada"
    assert example.finished() == [ask, "disbursing A-17", result]
    assert example.finished() == [result]


@pytest.mark.crash
def test_an_agent_of_adk_goes_on_in_another_process(tmp_path: Path) -> None:
    """Neither the two tools that were through, nor what the model had answered twice, comes about again."""
    example = Example("adk_loan/process.py", tmp_path)
    first = example.killed_at("assessing risk")
    assert sorted(first) == [
        "asking the model",
        "asking the model",
        "assessing risk",
        "checking credit of A-17",
        "parsing A-17",
    ]
    assert example.finished() == ["assessing risk", "asking the model", "low risk (score 514, 2 documents)"]


def test_every_example_is_tested_here() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    programs = [path.relative_to(EXAMPLES) for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/process.py")]]
    assert [str(program) for program in programs if f'"{program}"' not in source] == []
