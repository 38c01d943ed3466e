"""The README and docs/cli.md, done as a reader would do them: files are saved, commands typed, the output compared.

Why this way, and why with sybil, is in docs/design/executed-docs.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
COMMAND_TIMEOUT_S = 120


class Reader:
    """Somebody with an empty folder and a terminal, who does what the README says, in its order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = ""  # what the last block of commands printed
        self.blocks = {"python": 0, "sh": 0, "text": 0}
        here = str(Path(sys.executable).parent)
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")},
            "PATH": os.pathsep.join([here, os.environ.get("PATH", "")]),
            "PYTHONIOENCODING": "utf-8",
        }

    def save_file(self, example: Example) -> None:
        """A block of Python is a file; its first line says which."""
        self.blocks["python"] += 1
        named = re.match(r"# (\w+\.py)\n", example.parsed)
        assert named, "the first line of a Python block is the name of its file, as in `# loans.py`"
        (self.folder / named[1]).write_text(example.parsed, encoding="utf-8")

    def type_commands(self, example: Example) -> None:
        """A block of shell is typed line by line; `# kill -9 at "…"` is done when that is printed."""
        self.blocks["sh"] += 1
        self.seen = ""
        for line in example.parsed.splitlines():
            command, _, comment = line.partition("#")
            words = command.split()
            if words:
                program = shutil.which(words[0], path=self.environ["PATH"])
                assert program, f"{words[0]} is not installed beside {sys.executable}"
                cue = re.search(r'kill -9 at "(.+)"', comment)
                if cue:
                    self.run_until([program, *words[1:]], cue[1])
                else:
                    code = re.search(r"exit code (\d+)", comment)
                    self.seen += self.run([program, *words[1:]], int(code[1]) if code else 0)

    def run(self, command: list[str], code: int = 0) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            encoding="utf-8",
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def run_until(self, command: list[str], cue: str) -> None:
        """Run a program and kill it where it says so; what it printed so far is not compared."""
        process = subprocess.Popen(command, cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, encoding="utf-8")
        try:
            assert process.stdout is not None
            reached = any(cue in line for line in process.stdout)
        finally:
            process.kill()
            process.communicate()
        assert reached, f"{command} ended without saying {cue!r}"

    def compare_output(self, example: Example) -> str | None:
        """A block of text is what the commands before it print."""
        self.blocks["text"] += 1
        if self.seen.rstrip() == example.parsed.rstrip():
            return None
        return f"expected:\n{example.parsed}\nprinted:\n{self.seen}"


def read(page: Path, reader: Reader) -> Document:
    return Sybil(
        [
            CodeBlockParser("python", reader.save_file),
            CodeBlockParser("sh", reader.type_commands),
            CodeBlockParser("text", reader.compare_output),
            SkipParser(),
        ]
    ).parse(page)


@pytest.mark.crash
@pytest.mark.parametrize(("page", "skipped"), [(README, 1), (ROOT / "docs" / "cli.md", 0)])  # pip install holdfast
def test_a_page_does_what_it_says(tmp_path: Path, page: Path, skipped: int) -> None:
    reader = Reader(tmp_path)
    for example in read(page, reader).examples():
        example.evaluate()
    fences = re.findall(r"^```(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences) == set(reader.blocks), "a block in a language that nothing here runs"
    assert sum(reader.blocks.values()) == len(fences) - skipped


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "cli.md"])
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
    assert targets or page != README


def test_output_that_differs_is_noticed(tmp_path: Path) -> None:
    """The comparison has teeth."""
    page = tmp_path / "page.md"
    program = '```python\n# hello.py\nprint("hello")\n```\n\n```sh\npython hello.py\n```\n\n'
    page.write_text(program + "```text\ngood-bye\n```\n", encoding="utf-8")
    *before, comparison = read(page, Reader(tmp_path)).examples()
    for example in before:
        example.evaluate()
    with pytest.raises(AssertionError, match="good-bye"):
        comparison.evaluate()
