"""``holdfast migrate``: the schema of a store, brought to what this release knows."""

from __future__ import annotations

import click

from holdfast.cli.options import shared, store_named
from holdfast.cli.printing import print_json
from holdfast.cli.problems import DONE
from holdfast.store import migrating


@click.command("migrate")
@click.option("--print", "only_print", is_flag=True, help="Print the SQL that is missing, and change nothing.")
@shared
def migrate_command(only_print: bool, store: str | None, as_json: bool) -> int:
    """Bring the schema of a store to what this release of holdfast knows.

    A SQLite file is migrated by whoever opens it first; a PostgreSQL schema, once it is set up, by this command alone.
    Processes of an older release stop writing.
    """
    found = migrating.missing(store_named(store))
    applied = [] if only_print else migrating.migrate(store_named(store))
    newest = found.applied + len(found.migrations)
    if as_json:
        names = [f"{each.number:04}_{each.name}" for each in (found.migrations if only_print else applied)]
        print_json({"store": found.url, "schema": found.applied if only_print else newest, "newest": newest}
                   | ({"missing": names, "sql": found.sql} if only_print else {"applied": names}))  # fmt: skip
    elif only_print and found.migrations:
        print(found.sql, end="")
    else:
        for each in applied:
            print(f"applied {each.number:04}_{each.name}")
        if not applied:
            print(f"{'-- ' if only_print else ''}{found.url}: schema number {newest}, nothing is missing")
    return DONE
