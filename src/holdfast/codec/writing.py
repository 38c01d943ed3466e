"""Values to bytes: checked for what would not come back the same, tagged where msgpack alone is not exact."""

from __future__ import annotations

import sys
from _blake2 import blake2b  # hashlib would load OpenSSL at every start
from collections.abc import Callable, Iterable, KeysView
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Flag
from functools import cached_property
from types import NoneType
from typing import Any
from uuid import UUID

from msgspec import UNSET
from msgspec.msgpack import Ext

from holdfast.codec.annotations import Types
from holdfast.codec.format import (
    BIGINT,
    BYTEARRAY,
    COMPLEX,
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
    SET,
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
)
from holdfast.errors import CodecError

_LEAVES = frozenset({NoneType, bool, int, float, str, bytes})
_SAFE_LEAVES = frozenset({NoneType, bool, float, bytes})  # those the encoder cannot refuse
_KEYS = frozenset({str, int})


def encode(value: Any, types: Types, where: str, root: str = "result") -> bytes:
    """The bytes of ``value``; CodecError, naming ``where`` and the path, if it would not come back the same.

    With ``root=""`` the value is a dict of arguments by name, and paths begin with the name.
    """
    if type(value) in _LEAVES:
        try:
            return ENCODE(value)
        except (OverflowError, UnicodeEncodeError):
            pass  # found again, and explained, below
    return _written(value, types, where, root)


def canonical(value: Any, where: str, root: str) -> bytes:
    """Bytes that equal values share in every process: sorted keys, named values of any class, no modules."""
    return _written(value, None, where, root)


def encode_inputs(values: dict[str, Any], where: str) -> bytes:
    """Canonical bytes of the arguments of a call, by name. Classes need no annotation to be fingerprinted."""
    if set(map(type, values.values())) <= _LEAVES:
        try:
            return ENCODE(values if len(values) < 2 else dict(sorted(values.items())))
        except (OverflowError, UnicodeEncodeError):
            pass  # found again, and explained, below
    return _written(values, None, where, "")


def fingerprint(data: bytes) -> bytes:
    """16 bytes that stand for canonical bytes."""
    return blake2b(data, digest_size=16).digest()


def _written(value: Any, types: Types | None, where: str, root: str) -> bytes:
    reason, path = "", root
    try:
        # Ints and strings the encoder refuses are rare: they are looked for only when it has refused one.
        for careful in (False, True):
            writer = _Writer(types, careful)
            try:
                return ENCODE(writer.tag(value) if root else writer.fields(value, str))
            except (OverflowError, UnicodeEncodeError) as error:
                reason = f"cannot be written: {error}"
    except Refused as refused:
        reason, path = refused.reason, root + "".join(reversed(refused.path))
    except (RecursionError, ValueError) as error:
        reason = f"cannot be written: {error}"
    what = "it" if path == root and "[" not in root else path  # a root with a subscript is a place of its own
    raise CodecError(f"{where} cannot be stored: {what} {reason}.", path=path)


class Refused(Exception):
    """A value inside the one being written cannot be; ``path`` grows from the inside out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


class _Writer:
    """One pass over a value. ``types`` None is canonical: any named value, sorted keys, bare names."""

    __slots__ = ("careful", "depth", "leaves", "types")

    def __init__(self, types: Types | None, careful: bool) -> None:
        self.types = types
        self.careful = careful
        self.leaves = _SAFE_LEAVES if careful else _LEAVES
        self.depth = 0

    def tag(self, value: Any) -> Any:
        """``value`` as msgspec may write it: itself if plain through and through, else with Ext in place."""
        cls = type(value)
        if cls in self.leaves:
            return value
        if cls is str or cls is int:  # only in the careful pass
            return self._checked_leaf(value)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refused(f"is nested more than {MAX_DEPTH} levels deep, or contains itself")
        if cls is dict:
            out = self._dict(value)
        elif cls is list:
            out = self.items(value)
        elif (tagger := TAG.get(cls)) is not None or (tagger := _learn(cls)) is not None:
            code, payload = tagger(self, value)
            out = Ext(code, ENCODE(payload))
        else:
            code, payload = self._named(value, cls)
            out = Ext(code, ENCODE(payload))
        self.depth -= 1
        return out

    def items(self, values: Any) -> Any:
        """The items of a list or tuple, copied only if one of them has to be tagged."""
        leaves = self.leaves
        if set(map(type, values)) <= leaves:
            return values
        out, i = values, 0
        try:
            for i, value in enumerate(values):
                if type(value) not in leaves and (tagged := self.tag(value)) is not value:
                    if out is values:
                        out = list(values)
                    out[i] = tagged
        except Refused as refused:
            refused.path.append(f"[{i}]")
            raise
        return out

    def fields(self, values: Any, segment: Callable[[Any], str] = ".{}".format) -> Any:
        """The values of a dict with plain keys, likewise; ``segment`` writes a key as a part of the path."""
        if self.types is None and len(values) > 1:
            values = dict(sorted(values.items(), key=lambda item: item[0]))
        leaves, out, key = self.leaves, values, None
        if set(map(type, values.values())) <= leaves:
            return values
        try:
            for key, value in values.items():
                if type(value) not in leaves and (tagged := self.tag(value)) is not value:
                    if out is values:
                        out = dict(values)
                    out[key] = tagged
        except Refused as refused:
            refused.path.append(segment(key))
            raise
        return out

    def _dict(self, values: dict[Any, Any]) -> Any:
        kinds = set(map(type, values))
        native = kinds <= _KEYS and (len(kinds) < 2 or self.types is not None)
        if native and self.careful:
            native = not any(type(self.tag(key)) is Ext for key in values)
        if native:
            return self.fields(values, key_path)
        pairs, key = [], None
        try:
            for key, value in values.items():
                pairs.append((self.tag(key), self.tag(value)))
        except Refused as refused:
            refused.path.append(key_path(key))
            raise
        if self.types is None:
            pairs.sort(key=lambda pair: ENCODE(pair[0]))
        return Ext(PAIRS, ENCODE([part for pair in pairs for part in pair]))

    def elements(self, values: Any) -> list[Any]:
        """The elements of a set in an order that depends on nothing but them."""
        kinds = set(map(type, values))
        if len(kinds) < 2 and kinds <= _KEYS:
            return [self.tag(value) for value in sorted(values)]
        return sorted(map(self.tag, values), key=ENCODE)

    def _checked_leaf(self, value: Any) -> Any:
        if type(value) is int:
            if -(2**63) <= value < 2**64:
                return value
            return Ext(BIGINT, ENCODE(value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)))
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Refused("is a str with a lone surrogate, which no UTF-8 text can hold; keep it as bytes") from None
        return value

    def _named(self, value: Any, cls: type) -> tuple[int, Any]:
        code, names, slots = shape(cls)
        if not code:
            if hasattr(cls, "__await__"):
                raise Refused(f"is {value!r:.100}, which nobody has awaited yet; write await before the call")
            raise Refused(f"is of type {full_name(cls)}; {_advice(cls, self.types)}")
        if self.types is None:
            name = cls.__qualname__
        else:
            try:
                name = self.types.name_of(cls)
            except LookupError as error:
                why = "nothing there says what to restore it as" if self.types.is_empty else error
                way_out = _ANNOTATE[self.types.place].replace("…", cls.__name__)
                raise Refused(f"is a {full_name(cls)}, and {why}; {way_out}") from None
        if code == ENUM:
            return ENUM, [name, _member(value, cls)]
        if code == MODEL:
            return MODEL, [name, *self._model(value, cls, names)]
        _refuse_extra(cls, getattr(value, "__dict__", {}), names, [s for s in slots if hasattr(value, s)])
        if code == NAMEDTUPLE:
            return code, [name, self.fields(dict(zip(value._fields, value, strict=True)))]
        try:
            fields = {field: getattr(value, field) for field in names}
        except AttributeError as error:
            raise Refused(f"is a {full_name(cls)} with a field that was never set: {error}") from None
        if code == STRUCT and hasattr(cls, "__post_init__"):
            try:  # it runs again on the way back and may not take its own results
                cls(**fields)
            except Exception as error:
                raise Refused(f"is a {full_name(cls)} whose __post_init__ refuses its own fields: {error}") from None
        return code, [name, self.fields(fields)]

    def _model(self, value: Any, cls: type, names: KeysView[str]) -> list[Any]:
        """[fields, names of those set explicitly, extra, private] of a pydantic model."""
        state = model_state_methods(cls)[0](value)
        fields = {name: held for name, held in state["__dict__"].items() if name in names}
        _refuse_extra(cls, state["__dict__"], names, [])
        if len(fields) < len(names):
            raise Refused(f"is a {full_name(cls)} without its fields {sorted(names - fields.keys())}")
        extra, private = state.get("__pydantic_extra__"), state.get("__pydantic_private__")
        return [
            self.fields(fields),
            sorted(state["__pydantic_fields_set__"]),
            extra and self.fields(extra),
            private and self.fields(private),
        ]


def _refuse_extra(cls: type, held: Iterable[str], names: KeysView[str], slots: list[str]) -> None:
    """Attributes beyond the fields would be lost; cached properties are computed again, so they may be."""
    extra = [name for name in held if name not in names and name != "__orig_class__"]
    extra = [name for name in extra if not isinstance(getattr(cls, name, None), cached_property)] + slots
    if extra:
        raise Refused(f"is a {full_name(cls)} with attributes that are not fields and would be lost: {extra}")


def _member(value: Any, cls: Any) -> Any:
    """What stands for an enum member: its name, or the number of a combination of flags."""
    if isinstance(value, Flag) and cls.__members__.get(value.name or "") is not value:
        return int(value.value)
    if cls.__members__.get(value.name) is not value:
        raise Refused(f"is {value!r}, which is not among the members of {full_name(cls)}")
    return value.name


def _advice(cls: type, types: Types | None) -> str:
    bases = {base.__name__ for base in cls.__mro__ if base.__module__.startswith("pydantic.")}
    if bases & {"SecretStr", "SecretBytes", "Secret"}:
        return "a secret is never written to the store"
    if cls.__module__.partition(".")[0] in ("numpy", "pandas"):
        return "convert it with .item() or .tolist()"
    for base in (dict, list, tuple, set, frozenset, str, int, float, bytes):
        if issubclass(cls, base):
            return f"it would come back as a plain {base.__name__}; convert it with {base.__name__}(…) first"
    return _INSTEAD["parameter" if types is None else types.place]


# What to do about a value, by the place it was meant for: see ``Types.place``.
_INSTEAD = {
    "return": "return plain data instead (dict, list, a dataclass, …)",
    "parameter": "pass plain data instead",
    "": "keep plain data there (dict, list, str, numbers)",
}
_ANNOTATE = {
    "return": "annotate the return type of the function so that it names … (a step may say returns=… too), or return "
    "plain data",
    "parameter": "annotate the parameter so that it names …, or pass plain data",
    "": "keep plain data there (dict, list, str, numbers)",
}


def _zone(zone: Any) -> Any:
    """None, [seconds, microseconds, name?] for a fixed offset, a key for ZoneInfo, or {"pydantic": seconds}."""
    if zone is None:
        return None
    if type(zone) is timezone:
        arguments: Any = zone.__reduce__()[1]
        offset, *name = arguments
        return [offset.days * 86400 + offset.seconds, offset.microseconds, *name]
    known = getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)
    if type(zone) is known and zone.key is not None:
        return zone.key
    if type(zone) is getattr(sys.modules.get("pydantic_core"), "TzInfo", None):
        return {"pydantic": zone.__reduce__()[1][0]}
    raise Refused(f"has a time zone of type {full_name(type(zone))}; use datetime.timezone or zoneinfo.ZoneInfo")


def _tag_instant(code: int) -> Callable[[_Writer, Any], tuple[int, Any]]:
    """A time or datetime as [ISO text without zone, fold, zone]."""
    return lambda _, value: (code, [value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)])


def _tag_path(_: _Writer, value: Any) -> tuple[int, Any]:
    """A path as [kind, bytes]: file names of POSIX are bytes, lone surrogates where they are not UTF-8."""
    kind, text = type(value).__name__, str(value)
    if kind.endswith("WindowsPath") and type(value)(text) != value:
        raise Refused(f"is the path {text!r}, which pathlib itself reads back as another one")
    return PATH, [kind, text.encode("utf-8", "surrogatepass")]


TAG: dict[type, Callable[[_Writer, Any], tuple[int, Any]]] = {
    tuple: lambda writer, value: (TUPLE, writer.items(value)),
    set: lambda writer, value: (SET, writer.elements(value)),
    frozenset: lambda writer, value: (FROZENSET, writer.elements(value)),
    bytearray: lambda _, value: (BYTEARRAY, value),
    complex: lambda _, value: (COMPLEX, [value.real, value.imag]),
    date: lambda _, value: (DATE, value.isoformat()),
    time: _tag_instant(TIME),
    datetime: _tag_instant(DATETIME),
    timedelta: lambda _, value: (TIMEDELTA, [value.days, value.seconds, value.microseconds]),
    Decimal: lambda _, value: (DECIMAL, str(value)),
    UUID: lambda _, value: (UUID_, value.bytes),
    type(UNSET): lambda _, value: (UNSET_, None),
}


def _learn(cls: type) -> Callable[[_Writer, Any], tuple[int, Any]] | None:
    """The tagger of paths; whoever holds one has imported pathlib, and who does not should not pay for it."""
    pathlib = sys.modules.get("pathlib")
    if pathlib is None or cls not in (getattr(pathlib, name) for name in PATHS):
        return None
    TAG[cls] = _tag_path
    return _tag_path
