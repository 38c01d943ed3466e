"""The workflows that are marked in this process, by the names that runs record, and their calls made again."""

from __future__ import annotations

import inspect
import sys
import weakref
from typing import Any

from . import codec
from .definition import PYTHON, Definition
from .errors import CodecError, Mismatch
from .store import Code, RunRow, as_text
from .workflow import Call, Workflow, marked, marked_steps

_begun: dict[str, weakref.ref[Definition]] = {}  # of the runs of this process, by name


def note(definition: Definition) -> None:
    """A run of it begins here."""
    _begun[definition.name] = weakref.ref(definition)


def result_types(workflow: str) -> codec.Types:
    """With which the results of its runs are read: none, if no run of it has begun in this process."""
    found = _begun.get(workflow)
    definition = found() if found is not None else None
    return codec.Types.none if definition is None else definition.result_types


def names() -> set[str]:
    """Those of which a run can be begun from its row alone."""
    return {workflow._definition.name for workflow in marked_here() if not _is_method(workflow)}


def accepted() -> dict[str, Code | None]:
    """Of which runs a worker takes those of any code (None), or only those that its own recorded: where that is said to
    refuse others, they are left to the workers that can."""
    found: dict[str, Code | None] = {}
    for workflow in marked_here():
        definition = workflow._definition
        if not _is_method(workflow):
            refuses = definition.on_change == "refuse"
            code = Code(definition.version, PYTHON, definition.schema_version or 0) if refuses else None
            found[definition.name] = code if found.get(definition.name, code) == code else None
    return found


def marked_here() -> list[Workflow]:
    """All that there are, in the order in which they were marked."""
    return [workflow for _, workflow in sorted(marked.items())]


def place_of(workflow: Workflow) -> tuple[str, str]:
    """Its module and file, as its runs record them."""
    definition = workflow._definition
    return as_text(definition.function.__module__), as_text(definition.code.co_filename)


def workflow_of(row: RunRow) -> Workflow | None:
    """The workflow that made a run, by its name; where several share that, the one of its module, or of its file (and
    of those of one place, the last).

    None if there is none. Raises ``Mismatch`` if it cannot be told which of them it is."""
    named = {
        place_of(workflow): workflow
        for workflow in marked_here()
        if workflow._definition.name == row.workflow and not _is_method(workflow)
    }
    if len(named) <= 1:
        return next(iter(named.values()), None)
    for is_meant in (
        lambda module, file: (module, file) == (row.module, row.file),
        lambda module, file: module == row.module,
        lambda module, file: file == row.file,
    ):
        meant = [workflow for place, workflow in named.items() if is_meant(*place)]
        if len(meant) == 1:
            return meant[0]
    found = " and ".join(f"{module} ({file})" for module, file in sorted(named))
    raise Mismatch(
        f"run {row.id!r}: there are workflows named {row.workflow!r} in {found}, and it was started from "
        f"{row.module} ({row.file}). Give each a name of its own: @workflow(name=…)."
    )


def step_named(name: str) -> Definition | None:
    """The step that is recorded under this name, if there is just one in this process."""
    named = {step._definition.code: step._definition for step in marked_steps.values() if step._definition.name == name}
    return next(iter(named.values())) if len(named) == 1 else None


def call_again(workflow: Workflow, row: RunRow) -> Call[Any]:
    """The call that began a run. Raises ``CodecError`` if its arguments cannot be read, ``Mismatch`` if the workflow
    does not take them any more."""
    definition = workflow._definition
    arguments = codec.decode(row.inputs, definition.parameter_types, f"run {row.id!r}, its arguments", root="")
    if type(arguments) is not dict:
        raise CodecError(f"run {row.id!r}: its arguments are none. The bytes are kept as they are.")
    positional, named = arguments_again(definition, arguments)
    call = workflow.bind(*positional, **named)
    try:
        call.arguments  # noqa: B018 - it raises where they do not fit
    except TypeError as unfit:
        call.take()
        raise Mismatch(f"run {row.id!r}: {definition.name} does not take the arguments of this run: {unfit}") from None
    return call


def arguments_again(definition: Definition, arguments: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Recorded arguments, by name, as those of a call."""
    bound = inspect.BoundArguments(inspect.signature(definition.function), dict(arguments))
    return bound.args, bound.kwargs


def _is_method(workflow: Workflow) -> bool:
    """Whether it needs the object it belongs to, which only its own program has."""
    function = workflow._definition.function
    holder, dot, name = function.__qualname__.rpartition(".")
    if not dot or holder.endswith("<locals>"):
        return False
    found: Any = sys.modules.get(function.__module__)
    for part in holder.split("."):
        found = getattr(found, part, None)
    return not (isinstance(found, type) and isinstance(inspect.getattr_static(found, name, None), staticmethod))
