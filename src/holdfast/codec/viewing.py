"""Bytes to plain data for people: what a store browser and an error message show. Needs no classes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime, time, timedelta, timezone
from typing import Any
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from holdfast.codec.format import (
    BIGINT,
    BLOB,
    BYTEARRAY,
    COMPLEX,
    DATACLASS,
    DATE,
    DATETIME,
    DECIMAL,
    ENCODE,
    ENUM,
    FROZENSET,
    MAX_DEPTH,
    MODEL,
    NAMEDTUPLE,
    PAIRS,
    PATH,
    RAW,
    REFERENCE,
    SET,
    SHORTENED,
    STRUCT,
    TIME,
    TIMEDELTA,
    TUPLE,
    UNSET_,
    UUID_,
    zone_back,
)


def readable(data: bytes) -> Any:
    """What ``data`` holds as JSON-able plain data for people. Needs no classes and never raises."""
    try:
        return _Viewer(sys.maxsize).view(RAW.decode(data))
    except Exception as error:
        return f"<{len(data)} bytes, unreadable: {error}>"


def preview(data: bytes, limit: int = 2048) -> bytes:
    """``data`` itself if it has at most ``limit`` bytes, else as much of its readable form."""
    if len(data) <= limit:
        return data
    room = max(0, limit - 9)  # the headers of the extension and of the text
    short = ENCODE(Ext(SHORTENED, ENCODE(_shortened(data, room))))
    return short if len(short) <= limit else b""


def shortened(data: bytes, limit: int = 2048) -> str:
    """The text that ``preview`` would keep of ``data`` if that were too long, to be compared with another's."""
    return _shortened(data, max(0, limit - 9))


def _shortened(data: bytes, room: int) -> str:
    try:
        raw = RAW.decode(data)
        if isinstance(raw, dict) and len(raw) > 1:  # each argument gets its share, not the first one all
            share = room // len(raw) - 4
            text = ", ".join(f"{key}: {_cut(_text(value, share), share)}" for key, value in raw.items())
        else:
            text = _text(raw, room)
    except Exception as error:
        text = f"<{len(data)} bytes, unreadable: {error}>"
    return _cut(text, room)


def _text(raw: Any, room: int) -> str:
    shown = _Viewer(max(room, 1)).view(raw)
    return shown if isinstance(shown, str) else msgspec.json.encode(shown).decode()


def _cut(text: str, room: int) -> str:
    """``text`` in at most ``room`` bytes of UTF-8, with an ellipsis if that is not all."""
    kept = text.encode()
    return text if len(kept) <= room else kept[: max(0, room - 3)].decode(errors="ignore") + "…" * (room >= 3)


class _Viewer:
    """Plain data from raw msgpack, at most about ``budget`` characters of it."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.depth = 0  # in extensions

    def view(self, raw: Any) -> Any:
        self.budget -= 4
        if self.budget < 0:
            return "…"
        if isinstance(raw, str):
            short = raw if len(raw) <= self.budget else raw[: self.budget] + "…"
            self.budget -= len(short)
            return short
        if isinstance(raw, bytes):
            return f"<{len(raw)} byte{'' if len(raw) == 1 else 's'}>"
        if isinstance(raw, float) and (raw != raw or raw in (float("inf"), float("-inf"))):
            return str(raw)  # JSON has no number for it
        if type(raw) is list:
            return [self.view(part) for part in self._some(raw)]
        if isinstance(raw, dict):
            return self._pairs([(key, raw[key]) for key in self._some(raw)])
        return self._extension(raw) if isinstance(raw, Ext) else raw

    def _some(self, parts: Iterable[Any]) -> Iterable[Any]:
        for part in parts:
            yield part
            if self.budget < 0:
                return

    def _pairs(self, pairs: list[tuple[Any, Any]]) -> Any:
        """A JSON object if its keys stay different as text, else a list of pairs."""
        shown = [(self.view(key), self.view(value)) for key, value in pairs]
        texts = {key if isinstance(key, str) else msgspec.json.encode(key).decode(): value for key, value in shown}
        return texts if len(texts) == len(shown) else [list(pair) for pair in shown]

    def _extension(self, raw: Ext) -> Any:
        if self.depth > MAX_DEPTH:
            return "…"
        self.depth += 1
        try:
            return self._shown(RAW.decode(raw.data), raw)
        finally:
            self.depth -= 1

    def _shown(self, kept: Any, raw: Ext) -> Any:
        code = raw.code
        if code == BIGINT:
            # Python refuses to write longer ones down as text, and nobody reads them.
            return int.from_bytes(kept, "big", signed=True) if len(kept) < 1024 else f"<int of {8 * len(kept)} bits>"
        if code == UUID_:
            return str(UUID(bytes=kept))
        if code == COMPLEX:
            return str(complex(*kept))
        if code == TIMEDELTA:
            return str(timedelta(*kept))
        if code in (TIME, DATETIME):
            return self._instant(code, kept)
        if code == PATH:
            return bytes(kept[1]).decode(errors="replace")
        if code == UNSET_:
            return "UNSET"
        if code == PAIRS:
            return self._pairs(list(zip(kept[::2], kept[1::2], strict=True)))
        if code == REFERENCE:
            return f"<{kept[1]:,} bytes in blob {kept[0].hex()}>"
        if code == BLOB:
            return f"<blob {kept[0].hex()} of {kept[1]:,} bytes>"
        if code == ENUM:
            return f"{kept[0].rpartition(':')[2]}.{kept[1]}"
        if code in (DATACLASS, NAMEDTUPLE, STRUCT, MODEL):
            fields = {"__type__": kept[0].rpartition(":")[2], **kept[1]}
            for more in kept[3:]:
                fields.update(more or {})
            return self._pairs(list(fields.items()))
        known = (TUPLE, SET, FROZENSET, BYTEARRAY, DATE, DECIMAL, SHORTENED)
        return self.view(kept) if code in known else f"<{memoryview(raw.data).nbytes} bytes of unknown kind {code}>"

    def _instant(self, code: int, kept: Any) -> str:
        zone = zone_back(kept[2]) if not isinstance(kept[2], dict) else timezone(timedelta(seconds=kept[2]["pydantic"]))
        kind: Any = time if code == TIME else datetime
        shown = str(kind.fromisoformat(kept[0]).replace(fold=kept[1], tzinfo=zone).isoformat())
        return f"{shown}[{kept[2]}]" if isinstance(kept[2], str) else shown
