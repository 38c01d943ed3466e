"""Bytes to values, of the classes their annotations reach; where that fails, which part of the value it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from msgspec import UNSET
from msgspec.msgpack import Decoder, Ext
from msgspec.structs import force_setattr

from holdfast.codec.annotations import Types
from holdfast.codec.format import (
    BIGINT,
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
    PATHS,
    RAW,
    SET,
    SHORTENED,
    STRUCT,
    TIME,
    TIMEDELTA,
    TUPLE,
    UNSET_,
    UUID_,
    full_name,
    key_path,
    model_state_methods,
    shape,
    zone_back,
)
from holdfast.codec.viewing import readable
from holdfast.errors import CodecError

_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"


def decode(data: bytes, types: Types, where: str, root: str = "result") -> Any:
    """The value of ``data``; CodecError, naming ``where`` and the path, if it cannot be restored as it was."""
    try:
        return (types.decoder or _decoder(types))(data)
    except Exception as error:  # whatever the classes of the value raise while they are put together
        path, reason = _blame(data, types, root) or (root, str(error))
        what = "it" if path and path == root else path or "the arguments"
        message = f"{where} cannot be restored: {what} {reason}. The bytes are kept as they are."
        raise CodecError(message, path=path) from error


def _decoder(types: Types) -> Callable[[Any], Any]:
    """The decoder that restores the classes of ``types``: made when first asked for, then kept with them."""
    if types.decoder is None:
        depth = threading.local()  # in extensions; a value inside of lists alone is held to it by msgspec

        def restore(code: int, data: memoryview) -> Any:
            build = BUILD.get(code)
            if build is None:
                raise ValueError(f"is of kind {code}, which this version of holdfast does not know")
            around = getattr(depth, "now", 0)
            if around >= MAX_DEPTH:
                raise ValueError(_TOO_DEEP)
            depth.now = around + 1
            try:
                kept = decoder(data)
                if type(kept) is not _PAYLOADS.get(code, list):
                    raise ValueError(f"is damaged (what is of kind {code} is not kept as {type(kept).__name__})")
                return build(types, kept)
            finally:
                depth.now = around

        types.decoder = decoder = Decoder(ext_hook=restore).decode
    return types.decoder


def _found(types: Types, name: str, code: int, fields: dict[str, Any] | None = None) -> type:
    """The class of a named value, if it still is of the same kind and has the same fields."""
    cls = types.find(name)
    now, names, _ = shape(cls)
    if now != code:
        raise ValueError(f"was written when {full_name(cls)} was another kind of class")
    if fields is not None and fields.keys() != names:
        gone, new = sorted(fields.keys() - names), sorted(names - fields.keys())
        raise ValueError(f"does not fit {full_name(cls)} as it is now: fields gone {gone}, fields new {new}")
    return cls


def _enum_back(types: Types, kept: Any) -> Any:
    cls: Any = _found(types, kept[0], ENUM)
    if isinstance(kept[1], int):
        return cls(kept[1])
    if kept[1] not in cls.__members__:
        raise ValueError(f"is {cls.__qualname__}.{kept[1]}, and {full_name(cls)} has no such member any more")
    return cls[kept[1]]


def _dataclass_back(types: Types, kept: Any) -> Any:
    value: Any = object.__new__(_found(types, kept[0], DATACLASS, kept[1]))
    for name, held in kept[1].items():
        object.__setattr__(value, name, held)
    return value


def _struct_back(types: Types, kept: Any) -> Any:
    cls = _found(types, kept[0], STRUCT, kept[1])
    value = cls(**kept[1])
    if hasattr(cls, "__post_init__"):  # what it changes had been changed before the value was written
        for name, held in kept[1].items():
            force_setattr(value, name, held)
    return value


def _namedtuple_back(types: Types, kept: Any) -> Any:
    cls: Any = _found(types, kept[0], NAMEDTUPLE, kept[1])
    return tuple.__new__(cls, [kept[1][name] for name in cls._fields])


def _model_back(types: Types, kept: Any) -> Any:
    name, fields, fields_set, extra, private = kept
    cls: Any = _found(types, name, MODEL, fields)
    value = cls.__new__(cls)
    state = {"__dict__": fields, "__pydantic_fields_set__": set(fields_set)}
    model_state_methods(cls)[1](value, {**state, "__pydantic_extra__": extra, "__pydantic_private__": private})
    return value


def _path_back(types: Types, kept: Any) -> Any:
    import pathlib

    if kept[0] not in PATHS:
        raise ValueError(f"is a path of unknown kind {kept[0]!r}")
    return getattr(pathlib, kept[0])(kept[1].decode("utf-8", "surrogatepass"))


BUILD: dict[int, Callable[[Types, Any], Any]] = {
    TUPLE: lambda _, kept: tuple(kept),
    SET: lambda _, kept: set(kept),
    FROZENSET: lambda _, kept: frozenset(kept),
    BIGINT: lambda _, kept: int.from_bytes(kept, "big", signed=True),
    BYTEARRAY: lambda _, kept: bytearray(kept),
    COMPLEX: lambda _, kept: complex(*kept),
    DATE: lambda _, kept: date.fromisoformat(kept),
    TIME: lambda _, kept: time.fromisoformat(kept[0]).replace(fold=kept[1], tzinfo=zone_back(kept[2])),
    DATETIME: lambda _, kept: datetime.fromisoformat(kept[0]).replace(fold=kept[1], tzinfo=zone_back(kept[2])),
    TIMEDELTA: lambda _, kept: timedelta(*kept),
    DECIMAL: lambda _, kept: Decimal(kept),
    UUID_: lambda _, kept: UUID(bytes=kept),
    PATH: _path_back,
    PAIRS: lambda _, kept: dict(zip(kept[::2], kept[1::2], strict=True)),
    UNSET_: lambda _, kept: UNSET,
    ENUM: _enum_back,
    DATACLASS: _dataclass_back,
    NAMEDTUPLE: _namedtuple_back,
    STRUCT: _struct_back,
    MODEL: _model_back,
}


# What the others are made from is a list. Not to be taken on trust: bytearray(10**12) would be made of a number.
_PAYLOADS: dict[int, type] = {
    BIGINT: bytes,
    BYTEARRAY: bytes,
    DATE: str,
    DECIMAL: str,
    UUID_: bytes,
    UNSET_: type(None),
}


def _blame(data: Any, types: Types, path: str, depth: int = 0) -> tuple[str, str] | None:
    """(path, reason) of the innermost part that cannot be restored; only called when something cannot."""
    if depth > MAX_DEPTH:
        return path, _TOO_DEEP
    try:
        raw = RAW.decode(data)
    except Exception as error:
        return path, f"is damaged ({error})"
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(raw, Ext):
        if raw.code == SHORTENED:
            return path, "was too big for a preview, of which only the beginning is kept"
        if raw.code in BUILD and (found := _blame_inside(raw, types, path, depth)) is not None:
            return found
    elif isinstance(raw, list):
        parts = ((f"{path}[{i}]", part) for i, part in enumerate(raw))
    elif isinstance(raw, dict):
        parts = ((path + key_path(key) if path else str(key), part) for key, part in raw.items())
    for inner, part in parts:
        if (found := _blame(ENCODE(part), types, inner, depth + 1)) is not None:
            return found
    try:
        _decoder(types)(data)
    except Exception as error:
        return path, str(error)
    return None


def _blame_inside(raw: Ext, types: Types, path: str, depth: int) -> tuple[str, str] | None:
    """The same for the parts of an extension, whose paths are written as in Python."""
    try:
        kept = RAW.decode(raw.data)
        if raw.code == PAIRS:
            parts = [(path + key_path(readable(ENCODE(k))), v) for k, v in zip(kept[::2], kept[1::2], strict=True)]
        elif raw.code in (DATACLASS, NAMEDTUPLE, STRUCT, MODEL):
            groups = [kept[1], *(kept[3:] if raw.code == MODEL else [])]
            parts = [(f"{path}.{name}", part) for group in groups for name, part in (group or {}).items()]
        else:
            return _blame(raw.data, types, path, depth + 1) if isinstance(kept, list) else None
    except Exception as error:
        return path, f"is damaged ({error})"
    for inner, part in parts:
        if (found := _blame(ENCODE(part), types, inner, depth + 1)) is not None:
            return found
    return None
