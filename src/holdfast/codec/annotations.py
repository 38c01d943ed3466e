"""Which classes an annotation reaches: only those are looked up when a stored value names its class."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Any, ClassVar, Final

MISSING: Final[Any] = object()
_FOUNDATIONS = frozenset({"builtins", "typing", "typing_extensions", "collections", "abc", "enum", "types"})


class Types:
    """The classes of named values that may come back: those an annotation reaches, and their subclasses.

    ``where`` gives the names that string annotations are evaluated with. The classes are collected at first
    use, so forward references may be defined after the step; what could not be resolved is told in later
    error messages. ``place`` says what is annotated, so that a message can say what to write there: a function's
    "return", a "parameter" of it, or "" where nothing can be.
    """

    __slots__ = ("_index", "_names", "_problems", "_roots", "decoder", "place")
    none: ClassVar[Types]

    def __init__(self, roots: Iterable[tuple[Any, Mapping[str, Any]]] = (), place: str = "") -> None:
        self._roots = tuple(roots)
        self.place = place
        self._index: dict[str, dict[str, type]] | None = None  # qualname -> module -> class
        self._names: dict[type, str] = {}
        self._problems: dict[str, str] = {}
        self.decoder: Callable[[Any], Any] | None = None  # kept for reading.py, which alone makes and calls it

    @classmethod
    def of(cls, annotation: Any, where: Mapping[str, Any] | None = None) -> Types:
        """The classes reachable from one annotation of a result; a missing one or Any has none."""
        if annotation in (None, Any, MISSING) or getattr(annotation, "__name__", "") == "_empty":
            return cls((), "return")
        return cls([(annotation, where or {})], "return")

    @classmethod
    def of_return(cls, function: Callable[..., Any], override: Any = MISSING) -> Types:
        """Those of the return annotation of ``function``, or of ``override`` (the ``returns=`` of a step)."""
        plain, names = _names_seen_by(function)
        return cls.of(_annotations(plain).get("return") if override is MISSING else override, names)

    @classmethod
    def of_parameters(cls, function: Callable[..., Any]) -> Types:
        """Those of all parameters of ``function``."""
        plain, names = _names_seen_by(function)
        return cls([(found, names) for name, found in _annotations(plain).items() if name != "return"], "parameter")

    @property
    def is_empty(self) -> bool:
        """Whether there is no annotation at all."""
        return not self._roots

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


def _annotations(thing: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(thing, format=annotationlib.Format.FORWARDREF)
    found = thing.__dict__ if isinstance(thing, type) else {"__annotations__": getattr(thing, "__annotations__", {})}
    return dict(found.get("__annotations__") or {})
