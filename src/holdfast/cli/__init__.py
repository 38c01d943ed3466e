"""``holdfast …``: the command line, one file a command group. Nothing below imports it.

The commands are imported when they are named, so that ``holdfast list`` does not pay for the demo.
"""

from __future__ import annotations

import importlib
import io
import os
import sys

import click

from holdfast.cli.printing import complain, is_json, print_json
from holdfast.cli.problems import DONE, EXIT_CODES, INTERRUPTED, code_of
from holdfast.errors import HoldfastError

_COMMANDS = {
    "demo": "holdfast.cli.demo",
    "run": "holdfast.cli.running",
    "resume": "holdfast.cli.running",
    "list": "holdfast.cli.looking",
    "show": "holdfast.cli.showing",
    "watch": "holdfast.cli.watching",
    "plan": "holdfast.cli.planning",
    "cancel": "holdfast.cli.ending",
    "send": "holdfast.cli.sending",
    "resolve": "holdfast.cli.resolving",
    "worker": "holdfast.cli.working",
    "migrate": "holdfast.cli.migrating",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name]), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="holdfast")
def commands() -> None:
    """Long jobs that continue where they stopped.

    A job is a run of a workflow, known by its id. `holdfast demo` shows what happens when its process is killed.
    Every command takes --store (a path or URL; else HOLDFAST_URL, else holdfast.db) and --json.
    """


def main(args: list[str] | None = None) -> None:
    """The entry point of ``holdfast`` and of ``python -m holdfast``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a sign is no reason to fail
    code = _main(sys.argv[1:] if args is None else args)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `holdfast list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _main(args: list[str]) -> int:
    try:
        code = commands.main(args, prog_name="holdfast", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        if is_json(args):
            print_json({"error": error.format_message(), "error_type": "Usage"})
        elif isinstance(error, click.UsageError):
            error.show()
        else:
            complain(error.format_message())
        return error.exit_code
    except HoldfastError as error:
        if is_json(args):
            print_json({"error": str(error), "error_type": type(error).__name__})
        else:
            complain(str(error))
        return code_of(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough
        return DONE
