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
    InDoubt,
    StateConflict,
    StepFailed,
    VersionMismatch,
)

DONE, FAILED, USAGE, STOPPED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

# What `holdfast --help` and docs/cli.md say of them.
EXIT_CODES = {
    DONE: "done",
    FAILED: "the workflow failed; the same line tries again what failed",
    USAGE: "nothing was done: the line is wrong, or what it names is not there, cannot be read, or is other work",
    STOPPED: "the run is busy, cancelled, fenced, diverged, in doubt, of another version, unreadable, or was stopped",
    INTERRUPTED: "Ctrl-C (SIGINT); the same line carries on. A worker: it had to cut off steps, else 0",
    TERMINATED: "SIGTERM; the same line carries on. A worker: it had to cut off steps, else 0",
}


class Problem(click.ClickException):
    """The command cannot be done as it was typed; the message says what to type instead."""

    exit_code = USAGE


def code_of(error: HoldfastError) -> int:
    if isinstance(error, StepFailed):
        return FAILED
    if isinstance(error, (Busy, Cancelled, CodecError, Diverged, Fenced, InDoubt, StateConflict, VersionMismatch)):
        return STOPPED
    return USAGE
