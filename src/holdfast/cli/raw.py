"""``holdfast show --raw``: every column of every row of a run, as it lies in the store, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from rich.text import Text

from holdfast import codec
from holdfast.app import Holdfast
from holdfast.blobs import Blobs, Reference, reference_in
from holdfast.cli.printing import console, escaped, short
from holdfast.errors import CodecError
from holdfast.store import Checkpoint, RunRow
from holdfast.store.damage import flaw_of, flaw_of_run, flaw_of_signal

READ_MAX = 200  # characters of what bytes mean
_SEALED = frozenset({"waiting", "doing"})


def raw_of(hf: Holdfast, row: RunRow) -> dict[str, Any]:
    """By table: its rows as ``{"flaw": …, "columns": {name: value}}``, bytes as ``{"hex": …, "reads": …}``."""
    store = hf._store
    return {
        "run": [_raw(row, flaw_of_run(row))],
        "checkpoint": [_raw(each, flaw_of(each)) for each in store.load(row.no)],
        "claim": [_raw(each, None) for each in store.claims(row.no)],
        "signal": [_raw(each, flaw_of_signal(each)) for each in store.signals(row.no)],
        "blob": [_raw_blob(hf._blobs, named) for named in _named_by(store.load(row.no))],
        "news": [_raw(each, None) for each in store.news(row.no)],
    }


def _named_by(rows: Iterable[Checkpoint]) -> list[Reference]:
    """Each blob once, in the order of the rows."""
    found = (reference_in(row.result) for row in rows if flaw_of(row) is None)
    return list(dict.fromkeys(named for named in found if named is not None))


def _raw_blob(blobs: Blobs, named: Reference) -> dict[str, Any]:
    columns = {"hash": named.hash.hex(), "size_bytes": named.size_bytes, "uri": blobs.uri(named.hash)}
    return {"flaw": blobs.flaw_of(named), "columns": columns}


def _raw(row: msgspec.Struct, flaw: str | None) -> dict[str, Any]:
    names = [name for name in row.__struct_fields__ if name != "forget"]  # which is an order, not a column
    return {"flaw": flaw, "columns": {name: _value(name, getattr(row, name)) for name in names}}


def _value(name: str, held: Any) -> Any:
    if not isinstance(held, bytes):
        return held
    return {"hex": held.hex(), "reads": _reads(name, held)}


def _reads(name: str, held: bytes) -> Any:
    """What bytes mean, as far as can be told; nothing of those that only stand for something."""
    if name in ("fingerprint", "seed", "data", "blobs") or not held:
        return None
    if name in _SEALED:
        try:
            held = codec.unseal(held, name)
        except CodecError as changed:
            return str(changed)
    return codec.readable(held)


def print_raw(tables: dict[str, Any], damages: Iterable[str]) -> None:
    out = console()
    for table, rows in tables.items():
        for row in rows:
            columns = row["columns"]
            number = columns.get("seq", columns.get("n", columns.get("epoch")))
            title = Text(table if number is None else f"{table} {number}", "bold")
            out.print(title.append(f"  {row['flaw']}", "red") if row["flaw"] else title)
            for name, held in columns.items():
                out.print(_line(name, held), soft_wrap=True)
    for each in damages:
        out.print(Text(escaped(each), "red"), soft_wrap=True)


def _line(name: str, held: Any) -> Text:
    line = Text(f"  {name:<15} ", "dim")
    if not isinstance(held, dict):
        return line.append(escaped(repr(held)) if held is not None else "-")
    line.append(held["hex"] or "(empty)")
    return line.append(f"  {short(held['reads'], READ_MAX)}", "cyan") if held["reads"] is not None else line
