"""Values to bytes and back, with their exact types; fingerprints of inputs; a view for people.

Bytes are msgpack. ``None``, exact ``bool int float str bytes list`` and dicts with ``str`` or ``int`` keys
are written natively; everything else is a msgpack extension of one of the codes below whose payload is again
such an encoding. Named values (enum members, dataclasses, named tuples, Structs, pydantic models) carry
``["module:qualname", fields, …]``, and the name is looked up only among the classes that an annotation of
the user's code reaches (``Types``): nothing is ever imported because the store says so.
"""

from __future__ import annotations

import sys
import typing
from _blake2 import blake2b  # hashlib would load OpenSSL, 2 ms of every cold start
from collections.abc import Callable, Iterable, KeysView, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, EnumMeta, Flag
from functools import cached_property, lru_cache, partial
from types import NoneType
from typing import Any, ClassVar, Final
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct
from msgspec.msgpack import Decoder, Encoder, Ext
from msgspec.structs import force_setattr

from holdfast.errors import CodecError

TUPLE, SET, FROZENSET, BIGINT, BYTEARRAY, COMPLEX = 1, 2, 3, 4, 5, 6
DATE, TIME, DATETIME, TIMEDELTA, DECIMAL, UUID_, PATH, PAIRS, UNSET_ = 7, 8, 9, 10, 11, 12, 13, 14, 15
ENUM, DATACLASS, NAMEDTUPLE, STRUCT, MODEL = 20, 21, 22, 23, 24
SHORTENED = 30

MISSING: Final[Any] = object()
MAX_DEPTH = 100  # levels of nesting; each costs a few interpreter frames when read back

_LEAVES = frozenset({NoneType, bool, int, float, str, bytes})
_SAFE_LEAVES = frozenset({NoneType, bool, float, bytes})  # those the encoder cannot refuse
_KEYS = frozenset({str, int})
_FOUNDATIONS = frozenset({"builtins", "typing", "typing_extensions", "collections", "abc", "enum", "types"})
_ENCODE = Encoder().encode
_RAW: Final[Decoder[Any]] = Decoder()  # leaves extensions as Ext objects


class _Refused(Exception):
    """A value inside the one being written cannot be; ``path`` grows from the inside out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


def _keys(names: Iterable[str]) -> KeysView[str]:
    """A set that keeps its order, so that the bytes of a value are the same in every process."""
    return dict.fromkeys(names).keys()


_NO_NAMES = _keys(())


@lru_cache(maxsize=1024)
def _shape(cls: type) -> tuple[int, KeysView[str], tuple[str, ...]]:
    """(code, field names, slots that are not fields) of a class of named values; code 0 if it is none."""
    if isinstance(cls, EnumMeta):
        return ENUM, _NO_NAMES, ()
    if issubclass(cls, tuple):
        return (NAMEDTUPLE, _keys(cls._fields), ()) if hasattr(cls, "_fields") else (0, _NO_NAMES, ())
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


def _model_state_methods(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any, Any], None]]:
    """pydantic's own ``__getstate__`` and ``__setstate__``: a user's override need not keep everything."""
    for base in cls.__mro__:
        if base.__module__.startswith("pydantic.") and "__getstate__" in base.__dict__:
            return base.__dict__["__getstate__"], base.__dict__["__setstate__"]
    raise TypeError(f"{cls.__qualname__} is not a pydantic 2 model")


def _annotations(thing: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(thing, format=annotationlib.Format.FORWARDREF)
    found = thing.__dict__ if isinstance(thing, type) else {"__annotations__": getattr(thing, "__annotations__", {})}
    return dict(found.get("__annotations__") or {})


class Types:
    """The classes of named values that may come back: those an annotation reaches, and their subclasses.

    ``where`` gives the names that string annotations are evaluated with. The classes are collected at first
    use, so forward references may be defined after the step; what could not be resolved is told in later
    error messages.
    """

    __slots__ = ("_decode", "_index", "_names", "_problems", "_roots")
    none: ClassVar[Types]

    def __init__(self, roots: Iterable[tuple[Any, Mapping[str, Any]]] = ()) -> None:
        self._roots = tuple(roots)
        self._index: dict[str, dict[str, type]] | None = None  # qualname -> module -> class
        self._names: dict[type, str] = {}
        self._problems: dict[str, str] = {}
        self._decode: Callable[[Any], Any] = Decoder(ext_hook=self._restore).decode

    @classmethod
    def of(cls, annotation: Any, where: Mapping[str, Any] | None = None) -> Types:
        """The classes reachable from one annotation; a missing one (``Parameter.empty``) or Any has none."""
        if annotation in (None, Any, MISSING) or getattr(annotation, "__name__", "") == "_empty":
            return cls.none
        return cls([(annotation, where or {})])

    @classmethod
    def of_return(cls, function: Callable[..., Any], override: Any = MISSING) -> Types:
        """Those of the return annotation of ``function``, or of ``override`` (the ``returns=`` of a step)."""
        plain, names = _names_seen_by(function)
        return cls.of(_annotations(plain).get("return") if override is MISSING else override, names)

    @classmethod
    def of_parameters(cls, function: Callable[..., Any]) -> Types:
        """Those of all parameters of ``function``."""
        plain, names = _names_seen_by(function)
        return cls([(found, names) for name, found in _annotations(plain).items() if name != "return"])

    @property
    def problem(self) -> str:
        """Why some annotation could not be followed, as the end of an error message, or ''."""
        return "".join(
            f" (the annotation {text!r} cannot be resolved: {why})" for text, why in [*self._problems.items()][:3]
        )

    def name_of(self, cls: type) -> str:
        """The name ``cls`` is written with; LookupError if it would not be found again."""
        name = self._names.get(cls)
        if name is None:
            name = f"{cls.__module__}:{cls.__qualname__}"
            if self.find(name) is not cls:
                raise LookupError(f"another class is called {name} too")
            self._names[cls] = name
        return name

    def find(self, name: str) -> type:
        """The class written as ``module:qualname`` or, canonically, ``qualname``; LookupError if unknown.

        The module may differ where only one class has the qualname: ``__main__`` of one process is a module
        in the next.
        """
        module, _, qualname = name.rpartition(":")
        for fresh in (False, True):  # a miss looks again: classes may have been defined since
            if fresh or self._index is None:
                self._index = self._collect()
            found = self._index.get(qualname, {})
            if module in found:
                return found[module]
            if len(found) == 1:
                return next(iter(found.values()))
            if found:
                raise LookupError(f"the name {name} fits {' and '.join(sorted(found))}")
        raise LookupError(f"the class {name} is not reachable from the annotation{self.problem}")

    def _collect(self) -> dict[str, dict[str, type]]:
        """Walk the annotations, and the subclasses and fields of what is found, and so on."""
        self._problems.clear()
        classes: dict[type, None] = {}
        queue, seen = list(self._roots), set[Any]()
        for note, names in queue:
            if not isinstance(note, type) or typing.get_args(note):
                # Aliases may contain themselves. The queue keeps what it had, so an id stays one object's.
                mark = (note if isinstance(note, str) else id(note), id(names))
                if mark not in seen:
                    seen.add(mark)
                    queue.extend((part, names) for part in self._parts(note, names))
                continue
            if note in classes or note.__module__.partition(".")[0] in _FOUNDATIONS:
                continue
            classes[note] = None
            # Newest first: a dataclass with slots replaces a class that lives on as a subclass for a while.
            subclasses: list[type] = type.__subclasses__(note)
            queue.extend((sub, names) for sub in reversed(subclasses))
            for base in note.__mro__:
                if base.__module__.partition(".")[0] not in _FOUNDATIONS | {
                    "pydantic",
                    "msgspec",
                    "pydantic_core",
                }:
                    module = getattr(sys.modules.get(base.__module__), "__dict__", {})
                    inside = {**names, **module, base.__name__: base}
                    queue.extend((field, inside) for field in _annotations(base).values())
            fields = getattr(note, "__pydantic_fields__", {})  # generic models know their parameters only here
            queue.extend((field.annotation, names) for field in fields.values())
        index: dict[str, dict[str, type]] = {}
        for cls in reversed(classes):  # of two with one name, the one met first wins
            index.setdefault(cls.__qualname__, {})[cls.__module__] = cls
        return index

    def _parts(self, note: Any, names: Mapping[str, Any]) -> list[Any]:
        """What an annotation that is not a class is made of."""
        text = note if isinstance(note, str) else getattr(note, "__forward_arg__", None)
        if text is not None:
            try:  # the text is the user's own annotation, evaluated as typing.get_type_hints does
                return [eval(text, {"typing": typing, **names})]
            except Exception as error:
                self._problems[text] = f"{type(error).__name__}: {error}"
                return []
        if isinstance(note, (list, tuple)):
            return list(note)
        if isinstance(note, typing.TypeVar):
            return [note.__bound__, *note.__constraints__, getattr(note, "__default__", None)]
        for inner in ("__supertype__", "__value__"):  # NewType; ``type X = …``
            if hasattr(note, inner):
                return [getattr(note, inner), *typing.get_args(note)]
        origin, args = typing.get_origin(note), typing.get_args(note)
        if origin is typing.Literal:
            return [type(arg) for arg in args if isinstance(arg, Enum)]
        if origin is typing.Annotated:
            return [args[0]]
        return [origin, *args] if origin is not None else []

    def _restore(self, code: int, data: memoryview) -> Any:
        build = _BUILD.get(code)
        if build is None:
            raise ValueError(f"is of kind {code}, which this version of holdfast does not know")
        return build(self, self._decode(data))


Types.none = Types()


def _names_seen_by(function: Any) -> tuple[Any, dict[str, Any]]:
    """The function under its wrappers, and the names its string annotations may use: globals and closure."""
    while (inner := getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)) is not None:
        function = inner
    if isinstance(function, partial):
        return _names_seen_by(function.func)
    names = dict(getattr(function, "__globals__", {}))
    free = getattr(getattr(function, "__code__", None), "co_freevars", ())
    for name, cell in zip(free, getattr(function, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return function, names


def _key_path(key: Any) -> str:
    return f"[{key!r}]"


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
            raise _Refused(f"is nested more than {MAX_DEPTH} levels deep, or contains itself")
        if cls is dict:
            out = self._dict(value)
        elif cls is list:
            out = self.items(value)
        elif (tagger := _TAG.get(cls)) is not None or (tagger := _learn(cls)) is not None:
            code, payload = tagger(self, value)
            out = Ext(code, _ENCODE(payload))
        else:
            code, payload = self._named(value, cls)
            out = Ext(code, _ENCODE(payload))
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
        except _Refused as refused:
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
        except _Refused as refused:
            refused.path.append(segment(key))
            raise
        return out

    def _dict(self, values: dict[Any, Any]) -> Any:
        kinds = set(map(type, values))
        native = kinds <= _KEYS and (len(kinds) < 2 or self.types is not None)
        if native and self.careful:
            native = not any(type(self.tag(key)) is Ext for key in values)
        if native:
            return self.fields(values, _key_path)
        pairs, key = [], None
        try:
            for key, value in values.items():
                pairs.append((self.tag(key), self.tag(value)))
        except _Refused as refused:
            refused.path.append(_key_path(key))
            raise
        if self.types is None:
            pairs.sort(key=lambda pair: _ENCODE(pair[0]))
        return Ext(PAIRS, _ENCODE([part for pair in pairs for part in pair]))

    def elements(self, values: Any) -> list[Any]:
        """The elements of a set in an order that depends on nothing but them."""
        kinds = set(map(type, values))
        if len(kinds) < 2 and kinds <= _KEYS:
            return [self.tag(value) for value in sorted(values)]
        return sorted(map(self.tag, values), key=_ENCODE)

    def _checked_leaf(self, value: Any) -> Any:
        if type(value) is int:
            if -(2**63) <= value < 2**64:
                return value
            return Ext(BIGINT, _ENCODE(value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)))
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused("is a str with a lone surrogate, which no UTF-8 text can hold; keep it as bytes") from None
        return value

    def _named(self, value: Any, cls: type) -> tuple[int, Any]:
        code, names, slots = _shape(cls)
        if not code:
            raise _Refused(f"is of type {_full_name(cls)}; {_advice(cls, self.types)}")
        if self.types is None:
            name = cls.__qualname__
        else:
            try:
                name = self.types.name_of(cls)
            except LookupError as error:
                raise _Refused(
                    f"is a {_full_name(cls)}, and {error}; annotate the return type of the function"
                    f" so that it names {cls.__name__}, give returns={cls.__name__}, or return plain data"
                ) from None
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
            raise _Refused(f"is a {_full_name(cls)} with a field that was never set: {error}") from None
        if code == STRUCT and hasattr(cls, "__post_init__"):
            try:  # it runs again on the way back and may not take its own results
                cls(**fields)
            except Exception as error:
                raise _Refused(f"is a {_full_name(cls)} whose __post_init__ refuses its own fields: {error}") from None
        return code, [name, self.fields(fields)]

    def _model(self, value: Any, cls: type, names: KeysView[str]) -> list[Any]:
        """[fields, names of those set explicitly, extra, private] of a pydantic model."""
        state = _model_state_methods(cls)[0](value)
        fields = {name: held for name, held in state["__dict__"].items() if name in names}
        _refuse_extra(cls, state["__dict__"], names, [])
        if len(fields) < len(names):
            raise _Refused(f"is a {_full_name(cls)} without its fields {sorted(names - fields.keys())}")
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
        raise _Refused(f"is a {_full_name(cls)} with attributes that are not fields and would be lost: {extra}")


def _member(value: Any, cls: Any) -> Any:
    """What stands for an enum member: its name, or the number of a combination of flags."""
    if isinstance(value, Flag) and cls.__members__.get(value.name or "") is not value:
        return int(value.value)
    if cls.__members__.get(value.name) is not value:
        raise _Refused(f"is {value!r}, which is not among the members of {_full_name(cls)}")
    return value.name


def _full_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _advice(cls: type, types: Types | None) -> str:
    bases = {base.__name__ for base in cls.__mro__ if base.__module__.startswith("pydantic.")}
    if bases & {"SecretStr", "SecretBytes", "Secret"}:
        return "a secret is never written to the store: a secret among the inputs must be named in ignore=[…]"
    if cls.__module__.partition(".")[0] in ("numpy", "pandas"):
        return "convert it with .item() or .tolist()"
    for base in (dict, list, tuple, set, frozenset, str, int, float, bytes):
        if issubclass(cls, base):
            return f"it would come back as a plain {base.__name__}; convert it with {base.__name__}(…) first"
    if types is None:
        return "pass plain data instead, or name the argument in ignore=[…]"
    return "return plain data instead (dict, list, a dataclass, …)"


def _zone(zone: Any) -> Any:
    """A time zone: None, [seconds, name?] for a fixed offset, a key for ZoneInfo, {"pydantic": seconds}."""
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
    raise _Refused(f"has a time zone of type {_full_name(type(zone))}; use datetime.timezone or zoneinfo.ZoneInfo")


def _zone_back(kept: Any) -> tzinfo | None:
    if kept is None:
        return None
    if isinstance(kept, list):
        return timezone(timedelta(seconds=kept[0], microseconds=kept[1]), *kept[2:])
    if isinstance(kept, dict):
        from importlib import import_module

        return typing.cast(tzinfo, import_module("pydantic_core").TzInfo(kept["pydantic"]))
    from zoneinfo import ZoneInfo

    return ZoneInfo(kept)


def _tag_instant(code: int) -> Callable[[_Writer, Any], tuple[int, Any]]:
    """A time or datetime as [ISO text without zone, fold, zone]."""
    return lambda _, value: (code, [value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)])


_TAG: dict[type, Callable[[_Writer, Any], tuple[int, Any]]] = {
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
    if pathlib is None or cls not in (getattr(pathlib, name) for name in _PATHS):
        return None
    _TAG[cls] = _tag_path
    return _tag_path


def _tag_path(_: _Writer, value: Any) -> tuple[int, Any]:
    """A path as [kind, bytes]: file names of POSIX are bytes, lone surrogates where they are not UTF-8."""
    kind, text = type(value).__name__, str(value)
    if kind.endswith("WindowsPath") and type(value)(text) != value:
        raise _Refused(f"is the path {text!r}, which pathlib itself reads back as another one")
    return PATH, [kind, text.encode("utf-8", "surrogatepass")]


_PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")


def _path_back(types: Types, kept: Any) -> Any:
    import pathlib

    if kept[0] not in _PATHS:
        raise ValueError(f"is a path of unknown kind {kept[0]!r}")
    return getattr(pathlib, kept[0])(kept[1].decode("utf-8", "surrogatepass"))


def _enum_back(types: Types, kept: Any) -> Any:
    cls: Any = _found(types, kept[0], ENUM)
    if isinstance(kept[1], int):
        return cls(kept[1])
    if kept[1] not in cls.__members__:
        raise ValueError(f"is {cls.__qualname__}.{kept[1]}, and {_full_name(cls)} has no such member any more")
    return cls[kept[1]]


def _found(types: Types, name: str, code: int, fields: dict[str, Any] | None = None) -> type:
    """The class of a named value, if it still is of the same kind and has the same fields."""
    cls = types.find(name)
    now, names, _ = _shape(cls)
    if now != code:
        raise ValueError(f"was written when {_full_name(cls)} was another kind of class")
    if fields is not None and fields.keys() != names:
        gone, new = sorted(fields.keys() - names), sorted(names - fields.keys())
        raise ValueError(f"does not fit {_full_name(cls)} as it is now: fields gone {gone}, fields new {new}")
    return cls


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
    _model_state_methods(cls)[1](value, {**state, "__pydantic_extra__": extra, "__pydantic_private__": private})
    return value


_BUILD: dict[int, Callable[[Types, Any], Any]] = {
    TUPLE: lambda _, kept: tuple(kept),
    SET: lambda _, kept: set(kept),
    FROZENSET: lambda _, kept: frozenset(kept),
    BIGINT: lambda _, kept: int.from_bytes(kept, "big", signed=True),
    BYTEARRAY: lambda _, kept: bytearray(kept),
    COMPLEX: lambda _, kept: complex(*kept),
    DATE: lambda _, kept: date.fromisoformat(kept),
    TIME: lambda _, kept: time.fromisoformat(kept[0]).replace(fold=kept[1], tzinfo=_zone_back(kept[2])),
    DATETIME: lambda _, kept: datetime.fromisoformat(kept[0]).replace(fold=kept[1], tzinfo=_zone_back(kept[2])),
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


def encode(value: Any, types: Types, where: str, root: str = "result") -> bytes:
    """The bytes of ``value``; CodecError, naming ``where`` and the path, if it would not come back the same.

    With ``root=""`` the value is a dict of arguments by name, and paths begin with the name.
    """
    if type(value) in _LEAVES:
        try:
            return _ENCODE(value)
        except (OverflowError, UnicodeEncodeError):
            pass  # found again, and explained, below
    return _written(value, types, where, root)


def canonical(value: Any, where: str, root: str) -> bytes:
    """Bytes that equal values share in every process: sorted keys, named values of any class, no modules."""
    return _written(value, None, where, root)


def encode_inputs(values: dict[str, Any], where: str) -> bytes:
    """Canonical bytes of the arguments of a call, by name. Classes need no annotation to be fingerprinted."""
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
                return _ENCODE(writer.tag(value) if root else writer.fields(value, str))
            except (OverflowError, UnicodeEncodeError) as error:
                reason = f"cannot be written: {error}"
    except _Refused as refused:
        reason, path = refused.reason, root + "".join(reversed(refused.path))
    except (RecursionError, ValueError) as error:
        reason = f"cannot be written: {error}"
    raise CodecError(f"{where} cannot be stored: {path} {reason}.", path=path)


def decode(data: bytes, types: Types, where: str, root: str = "result") -> Any:
    """The value of ``data``; CodecError, naming ``where`` and the path, if it cannot be restored as it ."""
    try:
        return types._decode(data)
    except Exception as error:  # whatever the classes of the value raise while they are put together
        path, reason = _blame(data, types, root) or (root, str(error))
        message = f"{where} cannot be restored: {path or 'the arguments'} {reason}. The bytes are kept as they are."
        raise CodecError(message, path=path) from error


def _blame(data: Any, types: Types, path: str) -> tuple[str, str] | None:
    """(path, reason) of the innermost part that cannot be restored; only called when something cannot."""
    try:
        raw = _RAW.decode(data)
    except Exception as error:
        return path, f"is damaged ({error})"
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(raw, Ext):
        if raw.code == SHORTENED:
            return path, "was too big for a preview, of which only the beginning is kept"
        if raw.code in _BUILD and (found := _blame_inside(raw, types, path)) is not None:
            return found
    elif isinstance(raw, list):
        parts = ((f"{path}[{i}]", part) for i, part in enumerate(raw))
    elif isinstance(raw, dict):
        parts = ((path + _key_path(key) if path else str(key), part) for key, part in raw.items())
    for inner, part in parts:
        if (found := _blame(_ENCODE(part), types, inner)) is not None:
            return found
    try:
        types._decode(data)
    except Exception as error:
        return path, str(error)
    return None


def _blame_inside(raw: Ext, types: Types, path: str) -> tuple[str, str] | None:
    """The same for the parts of an extension, whose paths are written as in Python."""
    try:
        kept = _RAW.decode(raw.data)
        if raw.code == PAIRS:
            parts = [(path + _key_path(readable(_ENCODE(k))), v) for k, v in zip(kept[::2], kept[1::2], strict=True)]
        elif raw.code in (DATACLASS, NAMEDTUPLE, STRUCT, MODEL):
            groups = [kept[1], *(kept[3:] if raw.code == MODEL else [])]
            parts = [(f"{path}.{name}", part) for group in groups for name, part in (group or {}).items()]
        else:
            return _blame(raw.data, types, path) if isinstance(kept, list) else None
    except Exception as error:
        return path, f"is damaged ({error})"
    for inner, part in parts:
        if (found := _blame(_ENCODE(part), types, inner)) is not None:
            return found
    return None


def readable(data: bytes) -> Any:
    """What ``data`` holds as JSON-able plain data for people. Needs no classes and never raises."""
    try:
        return _Viewer(sys.maxsize).view(_RAW.decode(data))
    except Exception as error:
        return f"<{len(data)} bytes, unreadable: {error}>"


def preview(data: bytes, limit: int = 2048) -> bytes:
    """``data`` itself if it has at most ``limit`` bytes, else as much of its readable form."""
    if len(data) <= limit:
        return data
    room = max(0, limit - 9)  # the headers of the extension and of the text
    try:
        raw = _RAW.decode(data)
        if isinstance(raw, dict) and len(raw) > 1:  # each argument gets its share, not the first one all
            share = room // len(raw) - 4
            text = ", ".join(f"{key}: {_cut(_text(value, share), share)}" for key, value in raw.items())
        else:
            text = _text(raw, room)
    except Exception as error:
        text = f"<{len(data)} bytes, unreadable: {error}>"
    short = _ENCODE(Ext(SHORTENED, _ENCODE(_cut(text, room))))
    return short if len(short) <= limit else b""


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

    def view(self, raw: Any) -> Any:
        self.budget -= 4
        if self.budget < 0:
            return "…"
        if isinstance(raw, str):
            short = raw if len(raw) <= self.budget else raw[: self.budget] + "…"
            self.budget -= len(short)
            return short
        if isinstance(raw, bytes):
            return f"<{len(raw)} bytes>"
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
        kept, code = _RAW.decode(raw.data), raw.code
        if code == BIGINT:
            return int.from_bytes(kept, "big", signed=True)
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
        zone = (
            _zone_back(kept[2]) if not isinstance(kept[2], dict) else timezone(timedelta(seconds=kept[2]["pydantic"]))
        )
        kind: Any = time if code == TIME else datetime
        shown = str(kind.fromisoformat(kept[0]).replace(fold=kept[1], tzinfo=zone).isoformat())
        return f"{shown}[{kept[2]}]" if isinstance(kept[2], str) else shown
