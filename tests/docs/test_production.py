"""The pages on production, done on a real PostgreSQL server that is reached as db.example.com."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from reader import Reader
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser
from tests.servers.postgres import HOST, PostgresServer

from holdfast.cli import commands

PAGES = sorted((Path(__file__).parents[2] / "docs" / "production").glob("*.md"))


class Administrator(Reader):
    """Somebody with a terminal and a database server."""

    def __init__(self, folder: Path, server: PostgresServer | None) -> None:
        super().__init__(folder)
        self.blocks |= {"sql": 0, "yaml": 0}
        self.server = server
        if server is not None:
            # Programs of PostgreSQL, as a system package would install them.
            self.environ["PATH"] = f"{server.programs}:{self.environ['PATH']}"

    def save(self, example: Example) -> None:
        """SQL and YAML: a file, whose name its first line says."""
        named = re.match(r"(?:--|#) (\w+\.(\w+))\n", example.parsed)
        assert named, "the first line of a block is the name of its file, as in `-- roles.sql`"
        self.blocks[named[2]] += 1
        (self.folder / named[1]).write_text(example.parsed, encoding="utf-8")

    def _type(self, words: list[str], comment: str) -> None:
        if self.server is not None:
            words = [word.replace("db.example.com", f"{HOST}:{self.server.port}") for word in words]
        super()._type(words, comment)
        if self.server is not None:
            self.seen = self.seen.replace(f"{HOST}:{self.server.port}", "db.example.com")


@pytest.mark.crash
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_says(tmp_path: Path, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="holdfast-docs-") as place:  # where the server's own user may go
        server = None
        if "db.example.com" in text and "```sh" in text:
            server = PostgresServer(Path(place) / "server", {"fsync": "off"})
            server.start()
        reader = Administrator(tmp_path, server)
        try:
            for example in (
                Sybil(
                    [
                        CodeBlockParser("python", reader.save_file),
                        CodeBlockParser("sql", reader.save),
                        CodeBlockParser("yaml", reader.save),
                        CodeBlockParser("sh", reader.type_commands),
                        CodeBlockParser("text", reader.compare_output),
                    ]
                )
                .parse(page)
                .examples()
            ):
                example.evaluate()
        finally:
            reader.close()
            if server is not None:
                server.stop("immediate")
    fences = re.findall(r"^```(\w+)$", text, re.MULTILINE)
    assert sum(reader.blocks.values()) == len(fences), "a block was skipped"
    for manifest in tmp_path.glob("*.yaml"):
        check_commands(manifest.read_text(encoding="utf-8"))


def check_commands(manifest: str) -> None:
    """Each command of a manifest is one that holdfast has, with options that it has."""
    found = re.findall(r"command: \[holdfast, ([^]]*)\]", manifest)
    assert found
    for text in found:
        words = [word.strip().strip('"') for word in text.split(",")]
        said = CliRunner().invoke(commands, [words[0], "--help"]).output
        for option in (word for word in words if word.startswith("--")):
            assert f"{option} " in said, f"holdfast {words[0]} has no option {option}"
