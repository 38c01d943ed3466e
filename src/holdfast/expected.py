"""The type of the value a run waits for: what came is made one of it, or refused; and other processes are told of it.

What is told (a *description*) is plain data, ``["list", ["str"]]``, for the types that any process knows; nothing from
the store is ever evaluated. Other types are told by their name, and judged by the run alone.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path, PurePath
from typing import Any, Literal

import msgspec

from . import codec
from .errors import CodecError

Description = list[Any]
_SCALARS: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str, "bytes": bytes, "None": type(None)}
_NAMES = {each: name for name, each in _SCALARS.items()} | {None: "None"}
_DEPTH_MAX = 8


_YES = {"yes": True, "y": True, "no": False, "n": False}


class Typed(msgspec.Struct, frozen=True):
    """What somebody typed, or nothing, for a run of which was not known yet what it asks for: read when it asks."""

    text: str | None

    def read_as(self, type: Any) -> Any:
        """Raises ``ValueError`` or ``TypeError``."""
        text = self.text
        if text is None:
            return True if type is bool else convert(None, type)
        if type is bool and text.lower() in _YES:
            return _YES[text.lower()]
        try:
            plain = json.loads(text)
        except ValueError:
            plain = text
        if type is str or type in (Any, object):
            return text if type is str else plain
        as_json_first = text.lstrip()[:1] in ("[", "{", '"')
        first, second = (plain, text) if as_json_first else (text, plain)
        try:
            return convert(first, type, strict=False)
        except (TypeError, ValueError):
            return convert(second, type, strict=False)


class Expected:
    """A value of ``type`` is expected. Raises ``TypeError`` if that is no type."""

    def __init__(self, type: Any) -> None:
        self.type = type
        self.types = codec.Types.of(type)
        self._sent = codec.Types([(Typed, {}), *([] if type in (Any, object, None) else [(type, {})])], "return")
        self.description = describe(type)
        try:
            msgspec.convert(None, type, dec_hook=_of_class)
        except msgspec.ValidationError:
            pass  # a type, of which None is none
        except TypeError as error:
            raise TypeError(f"wait_for() takes the type of the value, such as bool or list[str]: {error}") from None

    @property
    def text(self) -> str:
        return text_of(self.description)

    def read(self, data: bytes, where: str) -> Any:
        """The value that was sent. Raises ``CodecError`` if it is none of the type."""
        value = codec.decode(data, self._sent, where, root="value")
        if self.type in (Any, object) and not isinstance(value, Typed):
            return value
        try:
            return convert(value, self.type)
        except (TypeError, ValueError) as error:
            raise CodecError(f"{where} is not {article(self.text)}: {error}") from None


def convert(value: Any, type: Any, *, strict: bool = True) -> Any:
    """Raises ``ValueError`` or ``TypeError``."""
    if isinstance(value, Typed):
        return value.read_as(type)
    return msgspec.convert(value, type, strict=strict, dec_hook=_of_class)


def _of_class(cls: type, value: Any) -> Any:
    """Classes that msgspec leaves to us."""
    if isinstance(value, cls):
        return value
    if issubclass(cls, PurePath) and isinstance(value, str):
        return (Path if cls is Path else cls)(value)
    validate = getattr(cls, "model_validate", None)  # of pydantic
    if validate is not None and isinstance(value, dict):
        return validate(value)
    raise TypeError(f"expected {article(cls.__qualname__)}, got {article(value.__class__.__qualname__)}")


def describe(type: Any, depth: int = 0) -> Description:
    """What can be told of a type: ["other", its name] where that is all."""
    origin, args = typing.get_origin(type), typing.get_args(type)
    if type in (Any, object):
        return ["any"]
    if origin is None and type in (list, dict):
        return [type.__name__]
    if origin is None and (name := _named(type)) is not None:
        return [name]
    if origin is Literal and all(each.__class__ in (bool, int, str) for each in args):
        return ["literal", list(args)]
    if depth < _DEPTH_MAX and origin in (list, dict, typing.Union, types.UnionType):
        parts = [describe(each, depth + 1) for each in args]
        if all(part[0] != "other" for part in parts):
            return ["union" if origin not in (list, dict) else origin.__name__, *parts]
    plain = isinstance(type, builtins_type) and origin is None
    return ["other", type.__qualname__ if plain else str(type).replace("typing.", "")]


builtins_type = type


def _named(type: Any) -> str | None:
    try:
        return _NAMES.get(type)
    except TypeError:  # not hashable
        return None


def annotation_of(description: Description) -> Any:
    """The type described, or None if that takes more than is told. Raises ``ValueError`` for what is no description."""
    try:
        kind, *parts = description
        if kind == "other":
            return None
        if kind == "any":
            return Any
        if kind in _SCALARS:
            return _SCALARS[kind]
        if kind == "literal":
            return Literal[tuple(parts[0])]
        inner = tuple(annotation_of(part) for part in parts)
        if kind == "union":
            return typing.Union[inner]  # noqa: UP007 - there is no other way to write one from data
        base: Any = {"list": list, "dict": dict}[kind]
        return base[inner] if inner else base
    except (TypeError, ValueError, LookupError) as error:
        raise ValueError(f"{description!r} describes no type: {error}") from None


def text_of(description: Description) -> str:
    """As one writes it: ``list[str]``, ``str | None``, ``Literal['yes', 'no']``; "value" for what is no description."""
    try:
        return _text_of(description)
    except (TypeError, ValueError, LookupError):
        return "value"


def _text_of(description: Description) -> str:
    kind, *parts = description
    if kind == "other":
        return str(parts[0])
    if kind == "literal":
        return f"Literal[{', '.join(map(repr, parts[0]))}]"
    inner = [_text_of(part) for part in parts]
    if kind == "union":
        return " | ".join(inner)
    return f"{kind}[{', '.join(inner)}]" if inner else "value" if kind == "any" else str(kind)


def article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def encode_value(value: Any, where: str) -> bytes:
    """The bytes of a value that is sent: its classes are those it is made of. Raises ``CodecError``."""
    return codec.encode(value, codec.Types([(each, {}) for each in _classes_in(value)], "return"), where, root="value")


def _classes_in(value: Any) -> set[Any]:
    inside = list(value.values()) if isinstance(value, dict) else []
    if isinstance(value, (list, tuple, set, frozenset)):
        inside = list(value)
    return {type(value)}.union(*map(_classes_in, inside))
