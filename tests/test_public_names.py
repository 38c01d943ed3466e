"""What holdfast promises to call by name, and what `import holdfast` must not bring along."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import holdfast

PUBLIC = [
    "NOT_DONE",
    "Blob",
    "Busy",
    "Call",
    "Cancelled",
    "Checkpoint",
    "CodecError",
    "Diverged",
    "Each",
    "Emitted",
    "Event",
    "Fenced",
    "Holdfast",
    "HoldfastError",
    "InDoubt",
    "LogFilter",
    "Mismatch",
    "NotDone",
    "NotFound",
    "NotInRun",
    "NotRecorded",
    "Progress",
    "Run",
    "Session",
    "Skipped",
    "StateConflict",
    "StepCall",
    "StepFailed",
    "StoreError",
    "VersionMismatch",
    "Waiting",
    "current",
    "each",
    "emit",
    "idempotency_key",
    "now",
    "progress",
    "random",
    "run_id",
    "sleep",
    "spend",
    "state",
    "step",
    "uuid4",
    "wait_for",
    "workflow",
]

# Each is imported by what uses it, when it is used.
NOT_AT_IMPORT = [
    "click",
    "fastapi",
    "holdfast.cli",
    "holdfast.testing",
    "psutil",
    "psycopg",
    "pydantic",
    "pypdf",
    "rich",
]


def test_the_public_names_are_these() -> None:
    assert holdfast.__all__ == PUBLIC
    assert sorted(PUBLIC, key=lambda name: (not name.isupper(), name)) == PUBLIC, "constants first"
    assert [name for name in PUBLIC if not hasattr(holdfast, name)] == []


@pytest.mark.parametrize("name", ["map", "open"])
def test_what_would_hide_a_builtin_is_public_but_not_for_import_star(name: str) -> None:
    assert callable(getattr(holdfast, name))
    assert name not in holdfast.__all__


def test_every_error_is_public_and_in_one_tree() -> None:
    errors = {name for name, value in vars(holdfast.errors).items() if isinstance(value, type)}
    assert errors <= set(PUBLIC)
    outside = {name for name in errors if not issubclass(getattr(holdfast, name), holdfast.HoldfastError)}
    assert outside == {"NotRecorded"}


def test_the_import_brings_only_what_every_program_needs() -> None:
    """In a new interpreter, and counting only what the import itself adds."""
    program = (
        "import json, sys; before = set(sys.modules); import holdfast; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert "holdfast" in imported
    assert imported.isdisjoint(NOT_AT_IMPORT), imported.intersection(NOT_AT_IMPORT)
