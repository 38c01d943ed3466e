"""The README and every page of docs/, done as a reader would do them: saved, typed, and what is printed compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reader import Reader, read

import holdfast
from holdfast import HoldfastError, NotRecorded

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
# docs/benchmarks.md is written by a program; the pages of docs/design/ are for who changes holdfast.
PAGES = [README, *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("how-to/*.md"))]
PAGES.remove(DOCS / "benchmarks.md")
LOADED_BY_NAME = {"conftest.py", "agent.py", "services.py"}  # by pytest, and by ADK's tools
INSTALLATION = re.compile(r"<!-- skip: next -->\n\n```sh\npip install ")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.crash
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_does_what_it_says(tmp_path: Path, page: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for example in read(page, reader).examples():
            example.evaluate()
    finally:
        reader.close()
    text = page.read_text(encoding="utf-8")
    fences = [
        language for language in re.findall(r"^```(\w+)$", text, re.MULTILINE) if language != "mermaid"
    ]  # a picture
    assert set(fences) <= set(reader.blocks), "a block in a language that nothing here runs"
    assert sum(reader.blocks.values()) == len(fences) - len(INSTALLATION.findall(text)), "a block was skipped"
    used = " ".join([*reader.typed, *re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)])
    unused = [name for name in reader.saved if name not in LOADED_BY_NAME and Path(name).stem not in used]
    assert unused == [], "a file that nobody runs"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not heading or heading in headings(found), f"{target}#{heading}"


def headings(page: Path) -> list[str]:
    """The anchors of a page's headings, as they are made on a code host."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles]


def test_every_page_is_linked_from_the_readme() -> None:
    linked = re.findall(r"\]\((docs/[^)#]+\.md)", README.read_text(encoding="utf-8"))
    assert {name_of(page) for page in PAGES if page != README} - set(linked) == set()


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


@pytest.mark.parametrize(
    ("shown", "fits"),
    [
        ("he…o\nshop\nend", True),
        ("…\nsh…\nend", True),
        ("he…o", False),
        ("hello\n…\nend\n", True),
        ("hello\n…\nbye", False),
        ("h…x\nshop\nend", False),
    ],
)
def test_three_dots_stand_for_what_differs_from_run_to_run(tmp_path: Path, shown: str, fits: bool) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```text\n{shown}\n```\n", encoding="utf-8")
    reader = Reader(tmp_path)
    reader.seen = "hello\nshop\nend\n"
    (comparison,) = read(page, reader).examples()
    if fits:
        comparison.evaluate()
    else:
        with pytest.raises(AssertionError, match="printed"):
            comparison.evaluate()


def test_every_error_has_its_place_on_the_page_of_failures() -> None:
    public = {name: getattr(holdfast, name) for name in holdfast.__all__}
    classes = {name: thing for name, thing in public.items() if isinstance(thing, type)}
    raised = {name for name, thing in classes.items() if issubclass(thing, (HoldfastError, NotRecorded))}
    page = (DOCS / "failures.md").read_text(encoding="utf-8")
    assert raised - {"HoldfastError"} == set(re.findall(r"^## (\w+)$", page, re.MULTILINE))
    for name in raised - {"HoldfastError"}:
        assert re.search(rf"^.*\b{name}: ", page, re.MULTILINE), f"{name} is not shown as it is printed"
