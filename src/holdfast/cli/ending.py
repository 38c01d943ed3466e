"""``holdfast cancel``: end a run for good."""

from __future__ import annotations

import click

from holdfast.cli.options import opened, run_named, shared
from holdfast.cli.printing import complain, print_json
from holdfast.cli.problems import DONE, STOPPED


@click.command("cancel")
@click.argument("id")
@shared
def cancel_command(id: str, store: str | None, as_json: bool) -> int:
    """End a run for good.

    Whoever advances it is stopped, and it does not resume.
    """
    with opened(store) as hf:
        run_named(hf, id, store)  # before anything is written
        row = hf._store.cancel(id) or run_named(hf, id, store)
    if as_json:
        print_json({"id": id, "workflow": row.workflow, "status": row.status})
    elif row.status == "cancelled":
        print(f"run {id} is cancelled")
    else:
        complain(f"run {id!r} is {row.status} already; nothing was changed")
    return DONE if row.status == "cancelled" else STOPPED
