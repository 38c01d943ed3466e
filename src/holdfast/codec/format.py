"""The stored format: the extension codes, and what the rooms that write, read and show it must agree about."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterable, KeysView
from datetime import timedelta, timezone, tzinfo
from enum import EnumMeta
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

TUPLE, SET, FROZENSET, BIGINT, BYTEARRAY, COMPLEX = 1, 2, 3, 4, 5, 6
DATE, TIME, DATETIME, TIMEDELTA, DECIMAL, UUID_, PATH, PAIRS, UNSET_ = 7, 8, 9, 10, 11, 12, 13, 14, 15
ENUM, DATACLASS, NAMEDTUPLE, STRUCT, MODEL = 20, 21, 22, 23, 24
SHORTENED = 30
BLOB = 25
REFERENCE = 31  # stands in a row for a value that is kept beside it: see ``holdfast.blobs``
MAX_DEPTH = 100  # levels of nesting; each costs a few interpreter frames when read back
PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
ENCODE = Encoder().encode
RAW: Final[Decoder[Any]] = Decoder()  # leaves extensions as Ext objects


def _keys(names: Iterable[str]) -> KeysView[str]:
    """A set that keeps its order, so that the bytes of a value are the same in every process."""
    return dict.fromkeys(names).keys()


_NO_NAMES = _keys(())


@lru_cache(maxsize=1024)
def shape(cls: type) -> tuple[int, KeysView[str], tuple[str, ...]]:
    """(code, field names, slots that are not fields) of a class of named values; code 0 if it is none."""
    if isinstance(cls, EnumMeta):
        return ENUM, _NO_NAMES, ()
    if issubclass(cls, tuple):
        declared = getattr(cls, "_fields", None)
        return (0, _NO_NAMES, ()) if declared is None else (NAMEDTUPLE, _keys(declared), ())
    if issubclass(cls, Struct):
        return STRUCT, _keys(cls.__struct_fields__), ()
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return MODEL, _keys(getattr(cls, "__pydantic_fields__", {})), ()
    described = getattr(cls, "__dataclass_fields__", None)
    if described is None or not isinstance(described, dict):
        return 0, _NO_NAMES, ()
    if not getattr(cls, "__abstractmethods__", None):
        try:
            object.__new__(cls)
        except TypeError:  # it is also a dict, an exception, …: the fields are not the whole value
            return 0, _NO_NAMES, ()
    # ClassVar and InitVar pseudo-fields are in the mapping too, with another ``_field_type``.
    names = _keys(name for name, field in described.items() if field._field_type.name == "_FIELD")
    slots: set[str] = set()
    for base in cls.__mro__:
        own = base.__dict__.get("__slots__", ())
        slots.update((own,) if isinstance(own, str) else own)
    return DATACLASS, names, tuple(slots - names - {"__dict__", "__weakref__"})


def model_state_methods(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any, Any], None]]:
    """pydantic's own ``__getstate__`` and ``__setstate__``: a user's override need not keep everything."""
    for base in cls.__mro__:
        if base.__module__.startswith("pydantic.") and "__getstate__" in base.__dict__:
            return base.__dict__["__getstate__"], base.__dict__["__setstate__"]
    raise TypeError(f"{cls.__qualname__} is not a pydantic 2 model")


def full_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def key_path(key: Any) -> str:
    return f"[{key!r}]"


def zone_back(kept: Any) -> tzinfo | None:
    """The time zone that ``_zone`` in writing.py has described."""
    if kept is None:
        return None
    if isinstance(kept, list):
        return timezone(timedelta(seconds=kept[0], microseconds=kept[1]), *kept[2:])
    if isinstance(kept, dict):
        from importlib import import_module

        return typing.cast(tzinfo, import_module("pydantic_core").TzInfo(kept["pydantic"]))
    from zoneinfo import ZoneInfo

    return ZoneInfo(kept)
