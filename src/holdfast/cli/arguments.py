"""ARGS of ``holdfast run``: texts, converted by the workflow's annotations."""

from __future__ import annotations

import inspect
import json
import sys
import typing
from pathlib import Path, PurePath
from typing import Any

import msgspec

from holdfast.cli.problems import Problem
from holdfast.definition import Definition


def parse_arguments(definition: Definition, texts: tuple[str, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional texts and ``name=value`` ones, as the call's arguments. ``Problem`` names what does not fit."""
    signature = inspect.signature(definition.function)
    takes = f"{definition.name} takes {_described(signature)}"
    named: dict[str, str] = {}
    positional: list[str] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and _is_name(signature, name):
            if name in named:
                raise Problem(f"argument {name} is given twice. {takes}.")
            named[name] = value
        elif equals and name.isidentifier() and not _takes_any(signature, inspect.Parameter.VAR_POSITIONAL):
            raise Problem(
                f"there is no argument {name!r}. {takes}. (A value that itself begins like this: NAME={text}, with "
                "the name of its argument.)"
            )
        else:
            positional.append(text)
    try:
        bound = signature.bind(*positional, **named)
    except TypeError as error:
        raise Problem(f"{error}. {takes}.") from None
    notes = _annotations(definition)
    for name, held in bound.arguments.items():
        note = notes.get(name, signature.parameters[name].annotation)
        bound.arguments[name] = _converted_all(signature.parameters[name], name, held, note)
    return bound.args, bound.kwargs


def _is_name(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    if parameter is not None:
        return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return name.isidentifier() and _takes_any(signature, inspect.Parameter.VAR_KEYWORD)


def _takes_any(signature: inspect.Signature, kind: Any) -> bool:
    return any(each.kind is kind for each in signature.parameters.values())


def _annotations(definition: Definition) -> dict[str, Any]:
    try:
        return typing.get_type_hints(definition.function)
    except Exception as error:  # a name that only a type checker imports, mostly
        raise Problem(
            f"the annotations of {definition.name} cannot be read ({error}), so its arguments cannot be converted. "
            "Import what they name, also when the program runs."
        ) from None


def _converted_all(parameter: inspect.Parameter, name: str, held: Any, note: Any) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple(convert(name, text, note) for text in held)
    if parameter.kind is parameter.VAR_KEYWORD:
        return {each: convert(each, text, note) for each, text in held.items()}
    return convert(name, held, note)


def convert(name: str, text: str, note: Any) -> Any:
    """One text as what the annotation asks for: itself, a number, a date …; what has parts is written as JSON."""
    if note in (str, Any, object, inspect.Parameter.empty):
        return text
    looks_like_json = text.lstrip()[:1] in ("[", "{", '"')
    reason = ""
    for read in (_from_json, _from_text) if looks_like_json else (_from_text, _from_json):
        try:
            return read(text, note)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            if not reason or (read is _from_json) == looks_like_json:
                reason = str(error)
    because = "" if reason.endswith("got `str`") and not looks_like_json else f" ({reason.rstrip('.')})"
    raise Problem(f"argument {name}: {text!r} is not {_with_article(_named(note))}{because}.{_hint(note, text)}")


def _from_text(text: str, note: Any) -> Any:
    return msgspec.convert(text, note, strict=False, dec_hook=_other_class)


def _from_json(text: str, note: Any) -> Any:
    return msgspec.convert(json.loads(text), note, strict=False, dec_hook=_other_class)


def _other_class(cls: type, value: Any) -> Any:
    """Classes that msgspec leaves to us."""
    if isinstance(cls, type) and issubclass(cls, PurePath):
        return (Path if cls is Path else cls)(value)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel):
        model: Any = cls
        return model.model_validate(value)
    raise TypeError(f"a {_named(cls)} cannot be typed on a command line")


def _named(note: Any) -> str:
    if isinstance(note, type) and not typing.get_args(note):
        return note.__name__
    return str(note).replace("typing.", "")


def _with_article(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def _hint(note: Any, text: str) -> str:
    origin = typing.get_origin(note) or note
    if origin in (list, tuple, set, frozenset) and not text.lstrip().startswith("["):
        return """ Write it as JSON: '["a", "b"]' or '[1, 2]'."""
    if (origin is dict or hasattr(origin, "__dataclass_fields__")) and not text.lstrip().startswith("{"):
        return """ Write it as JSON: '{"name": "value"}'."""
    return ""


def _described(signature: inspect.Signature) -> str:
    """``app_id: str, score: int = 3`` as one reads it in the source."""
    parts = []
    for each in signature.parameters.values():
        stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        note = each.annotation if isinstance(each.annotation, str) else _named(each.annotation)
        typed = "" if each.annotation is each.empty else f": {note}"
        default = "" if each.default is each.empty else f" = {each.default!r}"
        parts.append(f"{stars}{each.name}{typed}{default}")
    return f"({', '.join(parts)})" if parts else "no arguments"
