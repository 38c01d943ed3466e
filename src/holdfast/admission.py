"""What a new run is recorded with, and whether one that was found is the same work and may go on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from . import codec
from .definition import PYTHON
from .errors import Cancelled, HoldfastError, Mismatch
from .store import RunRow, as_text

if TYPE_CHECKING:
    from .definition import Definition
    from .home import Home
    from .workflow import Call

_ID_MAX = 500  # characters: what an index of PostgreSQL takes, whatever they are
ID_FORM = f"a non-empty str of at most {_ID_MAX} characters that can be printed on one line"


def is_id(text: str) -> bool:
    return bool(text.strip()) and text.isprintable() and len(text) <= _ID_MAX


def refuse_id(id: object) -> None:
    """Raises ``TypeError`` for what cannot name a run."""
    if not isinstance(id, str) or not is_id(id):
        raise TypeError(f"id= must be {ID_FORM}, got {id!r:.200}")


def new_row(call: Call[Any], inputs: bytes, id: str, state: Mapping[str, Any] | None = None) -> RunRow:
    """What a run of ``call``, with these inputs, is recorded with; whose it is, or when it is due, is the caller's to
    add."""
    definition = call.definition
    return RunRow(
        id=id,
        workflow=definition.name,
        version=definition.version,
        python=PYTHON,
        module=as_text(definition.function.__module__),
        file=as_text(definition.code.co_filename),
        inputs=call.encoded(),
        fingerprint=codec.fingerprint(inputs),
        state=codec.encode(dict(state), codec.Types.none, "the initial state", root="state") if state else None,
        seed=os.urandom(16),
        queue=definition.queue,
        schema_version=definition.schema_version or 0,
    )


def was_cancelled(id: str) -> Cancelled:
    return Cancelled(f"run {id!r} was cancelled and does not resume. Start the work again under a new id.")


def refuse_other_work(row: RunRow, definition: Definition, inputs: bytes) -> None:
    """Raises ``Mismatch`` if the id belongs to another workflow, or to the same one with other arguments."""
    name = definition.name
    if row.workflow != name:
        what = f"workflow {row.workflow!r}" if row.workflow else "a session"
        raise Mismatch(f"run {row.id!r} belongs to {what}, not to {name!r}. Nothing was changed; choose another id.")
    if row.fingerprint != codec.fingerprint(inputs):
        recorded, now = codec.readable(row.inputs), codec.readable(inputs)
        raise Mismatch(
            f"run {row.id!r} was started with other arguments: {recorded!r}, now {now!r}. Nothing was changed; "
            "choose another id for other work."
        )


_refusal: tuple[str, Home | None] | None = None  # why nothing may be started, and who is asked all the same


@contextmanager
def _refusing(why: str, but: Home | None) -> Iterator[None]:
    global _refusal
    before, _refusal = _refusal, (why, but)
    try:
        yield
    finally:
        _refusal = before


def only_imported(what: str) -> AbstractContextManager[None]:
    """While the block lasts, ``what`` is imported for the workflows in it, and may not start any work."""
    return _refusing(
        f"{what} starts work of its own while it is imported to find a workflow in it: put what it does "
        'as a program under `if __name__ == "__main__":`',
        None,
    )


def only_planned(id: str, home: Home) -> AbstractContextManager[None]:
    """While the block lasts, the code of run ``id`` is only planned: it may start no work but on ``home``, which writes
    nothing."""
    return _refusing(
        f"run {id!r} is only planned, and its code would change another run now, by a Holdfast of its own. A workflow "
        "reaches other runs by holdfast.current()",
        home,
    )


def refuse_while_imported(home: Home) -> None:
    """Raises ``HoldfastError`` if this code runs only because somebody looks for a workflow, or what it would do."""
    if _refusal is not None and home is not _refusal[1]:
        raise HoldfastError(_refusal[0])
