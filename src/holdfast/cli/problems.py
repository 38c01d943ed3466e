"""What goes wrong on the command line, and the exit code that says so."""

from __future__ import annotations

import click

from holdfast.errors import (
    Busy,
    Cancelled,
    CodecError,
    Diverged,
    Fenced,
    HoldfastError,
    StepFailed,
    VersionMismatch,
)

DONE, FAILED, USAGE, STOPPED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


class Problem(click.ClickException):
    """The command cannot be done as it was typed; the message says what to type instead."""

    exit_code = USAGE


def code_of(error: HoldfastError) -> int:
    if isinstance(error, StepFailed):
        return FAILED
    if isinstance(error, (Busy, Cancelled, CodecError, Diverged, Fenced, VersionMismatch)):
        return STOPPED
    return USAGE
