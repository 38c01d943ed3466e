"""What a power cut leaves of the files, worked out from a trace. The model is told in docs/design/faults.md.

A sync makes durable what was written to that file before it; everything since may be there or not, in any part. The
sector that was being written may be torn. After a failed sync the kernel counts the pages as clean: no later sync
writes them, and only what is written again gets there.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from itertools import pairwise

from .disk import Op

SECTORS = (512, 4096)
HOW_MUCH = ("none", "all", "some", "torn")


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Op] = field(default_factory=list)


class Platter:
    """The durable part of a folder of files, and what is only in the page cache. ``files``: all durable at first."""

    def __init__(self, files: dict[str, bytes] | None = None, chance: random.Random | None = None) -> None:
        self._names: dict[str, _File] = {name: _File(bytearray(data)) for name, data in (files or {}).items()}
        self._durable_names = dict(self._names)
        self._pending_names: list[tuple[str, _File | None]] = []
        self._chance = chance

    def apply(self, op: Op) -> None:
        if op.what == "open":
            if op.folder and not op.failed:
                self._names[op.name] = file = _File()
                self._pending_names.append((op.name, file))
        elif op.what in ("write", "truncate"):
            if op.data or not op.failed:
                self._names[op.name].pending.append(op)
        elif op.what == "sync":
            self._sync(op)
        elif op.what == "rename" and not op.failed:
            self._names[os.fsdecode(op.data)] = self._names.pop(op.name)
            self._sync_folder()
        elif op.what == "delete" and not op.failed:
            self._names.pop(op.name, None)
            self._pending_names.append((op.name, None))
            if op.folder:
                self._sync_folder()

    def _sync(self, op: Op) -> None:
        file = self._names[op.name]
        for each in file.pending:
            # Of a sync that fails nothing need have arrived, and what has not will not.
            if not op.failed or (self._chance is not None and self._chance.random() < 0.3):
                _write(file.durable, each)
        file.pending.clear()
        if op.folder and not op.failed:
            self._sync_folder()

    def _sync_folder(self) -> None:
        self._pending_names.clear()
        self._durable_names = dict(self._names)

    def image(self, how_much: str, chance: random.Random) -> dict[str, bytes]:
        """The files as they would be found: with none, all or some of what is pending, or all with its end torn."""
        names = dict(self._durable_names)
        kept = {"none": 0, "all": len(self._pending_names)}.get(how_much)
        for name, file in self._pending_names[: chance.randint(0, len(self._pending_names)) if kept is None else kept]:
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        return {name: _found(file, how_much, chance) for name, file in names.items()}


def _found(file: _File, how_much: str, chance: random.Random) -> bytes:
    content = bytearray(file.durable)
    pending = file.pending if how_much != "none" else []
    share = chance.choice((0.2, 0.5, 0.9))
    for number, op in enumerate(pending):
        if how_much == "some" and chance.random() > share:
            continue
        if how_much in ("some", "torn") and op.data and (number == len(pending) - 1 or chance.random() < 0.1):
            _tear(content, op, chance)
        else:
            _write(content, op)
    return bytes(content)


def _write(content: bytearray, op: Op) -> None:
    if op.what == "truncate":
        del content[op.offset :]
    content.extend(bytes(max(0, op.offset - len(content))))
    content[op.offset : op.offset + len(op.data)] = op.data


def _tear(content: bytearray, op: Op, chance: random.Random) -> None:
    """Some of the sectors that a write touches arrive, or its first ones only; of one there may be garbage.

    Bytes beside those written stay as they are: SQLite relies on it ("powersafe overwrite"), as do all its users.
    """
    sector = chance.choice(SECTORS)
    end = op.offset + len(op.data)
    edges = sorted({op.offset, *range(-(-op.offset // sector) * sector, end, sector), end})
    pieces = list(pairwise(edges))
    if len(pieces) == 1 and len(op.data) > 8:  # a sector is not written in one moment either
        middle = op.offset + chance.randrange(1, len(op.data))
        pieces = [(op.offset, middle), (middle, end)]
    first_only = chance.random() < 0.5
    arrived = chance.randrange(len(pieces))
    for number, (start, stop) in enumerate(pieces):
        if number < arrived if first_only else chance.random() < 0.5:
            piece = Op("write", op.name, op.handle, 0, False, start, op.data[start - op.offset : stop - op.offset])
            _write(content, piece)
        elif chance.random() < 0.1:
            _write(content, Op("write", op.name, op.handle, 0, False, start, chance.randbytes(stop - start)))
