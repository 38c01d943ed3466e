"""What counts as other code: the fingerprint of the syntax tree, the arguments, the shape of the state."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from editing import a, did, fails, goes_on, stop

import holdfast
from holdfast import CodecError, Diverged, Mismatch, VersionMismatch, step, workflow
from holdfast.known import call_again
from holdfast.store.damage import flaw_of_run
from holdfast.syntax import canonical, fingerprint_of

PLAIN = """
@workflow(version=None)
async def plan(x: int, *, deep: bool = False) -> list[str]:
    found = []
    for k in range(x):
        if k in {"a", "b"} or not deep:
            found.append(f"page {k:>{x}} of {x!r}" "!")
    return found
"""
SAME = [
    '"""Of the module."""\n' + PLAIN.replace("    found = []", '    """Says what it does."""\n    found = []  # here'),
    PLAIN.replace("range(x):", "range(\n        x,\n    ):").replace("@workflow(version=None)\n", ""),
    PLAIN.replace("@workflow(version=None)", "@workflow(\n    name='another',\n)\n@other"),
    PLAIN.replace('"a"', "'a'").replace('!r}" "!")', "!r}\" '!')"),
    "    " + textwrap.indent(PLAIN.strip(), "    ").strip() + "\n",
]
OTHER = [
    PLAIN.replace("range(x)", "range(x + 1)"),
    PLAIN.replace("deep: bool = False", "deep: bool = True"),
    PLAIN.replace("page", "Page"),
    PLAIN.replace("not deep", "deep"),
    PLAIN.replace("!r}", "!s}"),
    PLAIN.replace("x:", "y:"),
    PLAIN.replace("async def plan(x: int, *,", "async def plan(x: int,"),
    PLAIN.replace('"!"', "b'!'").replace('f"page {k:>{x}} of {x!r}" ', ""),
]


def meant(source: str) -> bytes:
    """Without a docstring of the module, which no function has."""
    return canonical(source[source.index("@workflow") :] if '"""Of the module' in source else source.lstrip("\n"))


@pytest.mark.parametrize("source", SAME)
def test_looks_do_not_count(source: str) -> None:
    inside = source[:1] == " "
    plain = canonical("    " + textwrap.indent(PLAIN.strip(), "    ").strip()) if inside else meant(PLAIN)
    assert meant(source) == plain if not inside else canonical(source) == plain


@pytest.mark.parametrize("source", OTHER)
def test_what_is_done_counts(source: str) -> None:
    assert meant(source) != meant(PLAIN)


def test_indentation_and_texts_of_several_lines_do_not_count() -> None:
    def nested() -> Callable[[], str]:
        def told() -> str:
            return """first
second"""

        return told

    def told() -> str:
        return """first
second"""

    assert fingerprint_of(nested()) == fingerprint_of(told)
    assert fingerprint_of(told).startswith("ast:")


def test_code_without_source_has_a_fingerprint_of_what_it_does() -> None:
    def made(text: str) -> str:
        scope: dict[str, Any] = {}
        exec(text, scope)
        return fingerprint_of(scope["f"])

    plain = made("def f(x):\n    return x in {'a', 'b', 'c'}")
    assert plain.startswith("code:")
    assert plain == made("\n\ndef f(x):\n    'What it does.'\n    return x in {'a', 'b', 'c'}")
    assert plain != made("def f(x):\n    return x in {'a', 'b'}")
    told = 'from holdfast.syntax import fingerprint_of as f; s = {}; exec(\'def g(x): return x in {1, "a", "b"}\', s)'
    environments = [{"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)} for seed in (1, 2, 3)]
    found = {
        subprocess.run([sys.executable, "-c", f"{told}; print(f(s['g']))"], env=env, capture_output=True).stdout
        for env in environments
    }
    assert len(found) == 1 and found != {b""}


def interpreters() -> list[Path]:
    """Other Pythons on the machine. They need not agree over ``major.minor``, but where newer ones do not either, it is
    luck that patch releases do."""
    found = Path("~/.pyenv/versions").expanduser().glob("3.1[1-9]*/bin/python")
    return sorted(path for path in found if path.resolve() != Path(sys.executable).resolve())


def test_releases_agree() -> None:
    spec = importlib.util.find_spec("holdfast.syntax")
    assert spec is not None and spec.origin is not None
    program = f"import runpy; print(runpy.run_path({spec.origin!r})['canonical']({PLAIN!r}).hex())"
    others = interpreters()
    if not others:
        pytest.skip("no other Python is here")
    for python in others:
        told = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        assert bytes.fromhex(told) == canonical(PLAIN), python


# -- arguments -----------------------------------------------------------------------------------------------


async def of_one(item: str) -> list[str]:
    return [item, await a(1), await stop()]


async def of_two(gift: str = "no", item: str = "", *, note: str | None = None) -> list[str]:
    return [item, gift, await a(1), await stop()]


async def of_another(thing: str) -> list[str]:
    return [thing, await stop()]


def test_a_new_parameter_with_a_default_changes_nothing(url: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, of_one, "lamp")
            row = hf._store.get("x")
            assert row is not None
            newer = workflow(name="edited", version=2)(of_two)
            stops_now = call_again(newer, row)
            assert stops_now.arguments == {"item": "lamp"}
            stops_now.close()
            with pytest.raises(Mismatch, match="does not take the arguments"):
                call_again(workflow(name="edited", version=2)(of_another), row)
            refused = await goes_on(hf, of_two, "yes", "lamp")
            assert isinstance(refused.error, Mismatch)
            edited = await goes_on(hf, of_two, "no", "lamp", version=1)
            assert (edited.error, edited.result, edited.executed) == (None, ["lamp", "no", "a1", "stop"], [])

    asyncio.run(main())


# -- the shape of the state ----------------------------------------------------------------------------------


@step
async def counts() -> int:
    did.append("counts")
    holdfast.state["count"] = holdfast.state.get("count", 0) + 1
    return 1


async def counting() -> Any:
    return [await a(1), await counts(), dict(holdfast.state), await stop()]


def newer(state: dict[str, Any], version: int) -> dict[str, Any]:
    return {"names": [state["name"]], "from": version}


def test_the_state_of_a_run_is_migrated_and_what_changed_it_is_done_anew(url: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await stateful(hf, schema_version=1)
            edited = await goes_on(hf, counting, version=1, schema_version=2, migrate=newer)
            assert edited.error is None, edited.error
            assert edited.result[2] == {"names": ["ada"], "from": 1, "count": 1}
            assert (edited.executed, edited.kept) == (["counts"], ["a1"])
            (begins,) = [row for row in edited.rows if row.kind == "version"]
            assert (begins.result["from"]["schema_version"], begins.result["to"]["schema_version"]) == (1, 2)
            assert "ada" in str(begins.result["state"])  # the state that the attempt before began with
            row = hf._store.get("x")
            assert row is not None and flaw_of_run(row) is None and row.schema_version == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "is of schema version 1, and workflow 'edited' is of schema version 2"),
        ({"migrate": lambda state, version: state["nothing"]}, "migrate= failed on a state of schema version 1"),
        ({"on_change": "refuse"}, "with a state of schema version 1, and this is 2"),
    ],
)
def test_a_state_that_cannot_be_brought_along_changes_nothing(url: str, options: dict[str, Any], told: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await stateful(hf, schema_version=1)
            edited = await goes_on(hf, counting, schema_version=2, **options)
            assert isinstance(edited.error, VersionMismatch) and told in str(edited.error)
            assert "version" not in {row.kind for row in edited.rows} and edited.run.version == "1"
            edited = await goes_on(hf, counting, version=1, schema_version=1)
            assert (edited.error, edited.executed) == (None, [])

    asyncio.run(main())


async def stateful(hf: holdfast.Holdfast, **options: Any) -> None:
    from editing import stops

    stops[:] = [True]
    first = workflow(name="edited", version=1, **options)(counting)
    with pytest.raises(holdfast.StepFailed):
        await hf.run(first(), id="x", state={"name": "ada"})
    did.clear()


# -- results of older versions of a step ---------------------------------------------------------------------


def versioned(result: Any, **options: Any) -> Callable[[], Any]:
    @step(name="price", **options)
    async def price() -> Any:
        did.append("price")
        return result

    async def pricing() -> Any:
        return [await price(), await stop()]

    return pricing


CHAIN = {1: lambda price: {"net": price}, 2: lambda price: {**price, "tax": 1}}


@pytest.mark.parametrize("version", [1, 2], ids=["the same version", "another version"])
@pytest.mark.parametrize(
    ("before", "after", "result"),
    [
        (versioned(5, version=1), versioned(None, version=3, upgrade=CHAIN), {"net": 5, "tax": 1}),
        (versioned({"net": 6}, version=2), versioned(None, version=3, upgrade=CHAIN), {"net": 6, "tax": 1}),
        (versioned(5, version=1), versioned(None, version="x", upgrade={1: str}), "5"),
        (versioned(5), versioned(None, version=1, upgrade={"": lambda price: -price}), -5),
    ],
)
def test_results_are_upgraded_step_by_step(url: str, version: int, before: Any, after: Any, result: Any) -> None:
    """On a plain recall as on a salvage, and again after a crash."""

    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, before)
            edited = await goes_on(hf, after, version=version)
            assert edited.error is None, edited.error
            assert (edited.result[0], edited.executed) == (result, [])

    asyncio.run(main())


def test_without_a_way_up_a_record_of_another_step_version_diverges(url: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, versioned(5, version=1))
            edited = await goes_on(hf, versioned(None, version=4, upgrade={2: str}), version=1)
            assert isinstance(edited.error, Diverged) and "version '1'" in str(edited.error)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("upgrade", "told"),
    [
        (lambda price: price["net"], "failed on a result of version '1' with TypeError"),
        (lambda price: object(), "upgraded from version '1'"),
    ],
)
def test_an_upgrade_that_fails_parks_the_run_and_loses_nothing(url: str, upgrade: Any, told: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await fails(hf, versioned(5, version=1))
            edited = await goes_on(hf, versioned(None, version=2, upgrade={1: upgrade}))
            assert isinstance(edited.error, CodecError) and told in str(edited.error), edited.error
            assert edited.run.status == "parked"
            edited = await goes_on(hf, versioned(None, version=2, upgrade={1: str}))
            assert (edited.result[0], edited.executed) == ("5", [])

    asyncio.run(main())
