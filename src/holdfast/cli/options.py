"""The options that every command takes, and the store they name."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast import app
from holdfast.cli.problems import Problem
from holdfast.errors import NotFound
from holdfast.store import RunRow
from holdfast.store.urls import parse_url

F = TypeVar("F", bound=Callable[..., Any])


_STORE = "Where the runs are kept: a path or URL. [default: $HOLDFAST_URL, else holdfast.db]"


def shared(function: F, *, store: str = _STORE) -> F:
    """``--store`` and ``--json``."""
    function = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for machines.")(function)
    return click.option("--store", metavar="URL", help=store)(function)


def store_named(store: str | None) -> str:
    return store or os.environ.get("HOLDFAST_URL") or app.DEFAULT_URL


@contextmanager
def opened(store: str | None, *, existing: bool = True, lease: float = 10) -> Iterator[app.Holdfast]:
    """The store that the line names. ``existing``: only looking at a file that is not there would make one."""
    url = store_named(store)
    target = parse_url(url)
    if existing and target.kind == "sqlite" and not Path(target.place).exists():
        beside = sorted(str(path) for path in Path(target.place).parent.glob("*.db"))
        here = f" Here {'is' if len(beside) == 1 else 'are'} {', '.join(beside[:5])}." if beside else ""
        raise Problem(
            f"there is no store at {target.place}. Name the one you mean with --store, or in the environment as "
            f"HOLDFAST_URL.{here}"
        )
    hf = app.open(url, lease=lease)
    try:
        yield hf
    finally:
        hf.close()


def run_named(hf: app.Holdfast, id: str, store: str | None) -> RunRow:
    row = hf._store.get(id)
    if row is None:
        listing = f"`holdfast list{store_hint(store)}`"
        raise NotFound(f"{hf.url}: there is no run {id!r}. {listing} shows those there are.")
    return row


def store_hint(store: str | None) -> str:
    """What has to follow a command to reach the same store; a password has to be typed again."""
    target = parse_url(store) if store else None
    shown = store if target is None or target.address is None else target.url
    return f" --store {shlex.quote(shown)}" if shown else ""
