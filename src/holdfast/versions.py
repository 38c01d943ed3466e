"""Which code a run was recorded by, and what becomes of it under other code.

A run is recorded with the version of its workflow, the schema version of its state, and Python's ``major.minor``. Code
that differs in one of them begins a new attempt of the run, or refuses it: its ``on_change`` says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import clock, codec
from .errors import VersionMismatch
from .past import BEGINS
from .recall import blank_row
from .store import Checkpoint, Revision, RunRow, as_text, revised
from .upgrades import encoded_state, migrated

if TYPE_CHECKING:
    from .definition import Definition


def is_other(row: RunRow, definition: Definition) -> bool:
    """Whether other code recorded the run."""
    now = (definition.version, definition.schema_version or 0, definition.python)
    return (row.version, row.schema_version, row.python) != now


def refuse_other_version(row: RunRow, definition: Definition) -> None:
    """Raises ``VersionMismatch`` if other code recorded the run, and this code wants no such run."""
    if definition.on_change == "refuse" and is_other(row, definition):
        raise VersionMismatch(
            f"run {row.id!r} was recorded {difference(row, definition)}. {_ADVICE}{_hint(definition)}"
        )


_ADVICE = (
    "This code says on_change='refuse'. Resume the run with what recorded it, let this code start over with what still "
    "holds (on_change='salvage'), or start the work again under a new id."
)


def _hint(definition: Definition) -> str:
    if definition.declared_version is not None:
        return ""
    return " (A version= of your own on @workflow says which changes matter.)"


def difference(row: RunRow, now: Definition) -> str:
    """What differs between the record of a run and this program: ``by version '1' of 'ship', and this is …``."""
    told = []
    if row.version != now.version:
        told.append(f"by version {row.version!r} of {row.workflow!r}, and this is version {now.version!r}")
    if row.schema_version != (now.schema_version or 0):
        told.append(f"with a state of schema version {row.schema_version}, and this is {now.schema_version or 0}")
    if row.python != now.python:
        told.append(f"under Python {row.python}, and this is Python {now.python}")
    return "; ".join(told)


# -- a new attempt -----------------------------------------------------------------------------------------------


def revision_of(row: RunRow, rows: list[Checkpoint], definition: Definition) -> Revision:
    """What begins a new attempt of a run that other code recorded. Raises ``VersionMismatch`` or ``CodecError`` if its
    initial state cannot be brought along."""
    state = _initial_state(row, definition)
    old = {name: getattr(row, name) for name in ("version", "python", "module", "file", "schema_version")}
    new = {"version": definition.version, "python": definition.python, "schema_version": definition.schema_version or 0}
    told: dict[str, Any] = {"from": old, "to": new}
    if state != row.state:
        told["state"] = row.state  # that of the attempt that ends here
    begins = blank_row(row.no, row.epoch, kind=BEGINS)
    begins.seq = (rows[-1].seq if rows else 0) + 1
    begins.name, begins.version, begins.status = row.workflow, row.version, definition.on_change
    begins.started_ms = clock.now_ms()
    begins.result = codec.encode(told, codec.Types.none, f"run {row.id!r}, its new version")
    begins.checksum = begins.compute_checksum()
    revision = Revision(
        begins=begins,
        version=definition.version,
        python=definition.python,
        module=as_text(definition.function.__module__),
        file=as_text(definition.code.co_filename),
        schema_version=definition.schema_version or 0,
        state=state,
        checksum=0,
    )
    revision.checksum = revised(row, revision).compute_checksum()
    return revision


def _initial_state(row: RunRow, definition: Definition) -> bytes | None:
    """What the new attempt begins with: the state the run was given, in the shape that the new code expects."""
    if row.state is None or row.schema_version == (definition.schema_version or 0):
        return row.state
    what = f"run {row.id!r}, its initial state"
    if definition.migrate is None:
        raise VersionMismatch(
            f"{what} is of schema version {row.schema_version}, and workflow {definition.name!r} is of schema version "
            f"{definition.schema_version or 0}. Say with @workflow(migrate=…) how the one becomes the other, or start "
            "the work again under a new id."
        )
    given = codec.decode(row.state, codec.Types.none, what, root="state")
    return encoded_state(migrated(given, row.schema_version, definition.migrate, what), what)
