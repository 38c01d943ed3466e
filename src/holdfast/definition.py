"""What a decorated function is: its name, its options, and how the arguments of a call become inputs."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import CodeType
from typing import Any

from . import codec
from .errors import CodecError, HoldfastError
from .store import is_text
from .syntax import fingerprint_of
from .upgrades import refuse_unfit_options

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DEFAULT_QUEUE = "default"
_QUEUE = re.compile(r"[\w./-]{1,100}")  # no colon, which stands before a limit on the command line


class Definition:
    """A step or workflow as declared. Whatever needs the signature is worked out at the first call, not at import."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        kind: str,
        name: str | None = None,
        version: str | int | None = None,
        key: Callable[..., str] | None = None,
        ignore: str | Iterable[str] = (),
        returns: Any = codec.MISSING,
        attempts: int = 1,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        backoff: float = 1.0,
        timeout: float | None = None,
        upgrade: Mapping[str | int, Callable[[Any], Any]] | None = None,
        on_change: str = "salvage",
        schema_version: int | None = None,
        migrate: Callable[[dict[str, Any], int], dict[str, Any]] | None = None,
        once: bool = False,
        verify: Callable[..., Any] | None = None,
        not_done: type[Exception] | tuple[type[Exception], ...] = (),
        queue: str = DEFAULT_QUEUE,
        max_deaths: int = 5,
    ) -> None:
        self.function = function
        self.kind = kind
        self.name = name if name is not None else getattr(function, "__qualname__", "")
        if version is not None and (not isinstance(version, (str, int)) or version == ""):
            raise TypeError(f"@{kind} {self.name}: version= must be a non-empty str or an int, got {version!r}")
        self.declared_version = None if version is None else str(version)
        self.key = key
        self.ignore = frozenset([ignore] if isinstance(ignore, str) else ignore)
        self.returns = returns
        self.attempts = attempts
        self.retry_on = retry_on
        self.backoff = backoff
        self.timeout = timeout
        self.upgrade = {} if upgrade is None else upgrade
        self.on_change = on_change
        self.schema_version = schema_version
        self.migrate = migrate
        self.once = once
        self.verify = verify
        self.not_done = not_done
        self.queue = queue
        self.max_deaths = max_deaths
        self.is_async = inspect.iscoroutinefunction(function)
        self.is_method = False
        self._validate()

    def _validate(self) -> None:
        function, kind = self.function, self.kind
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"@{kind} {self.name}: a generator cannot be resumed in the middle. Return a list, or make each item "
                "a step of its own and loop over them in the workflow."
            )
        if not inspect.isfunction(function):
            raise TypeError(f"@{kind} needs a function, got {function!r}. {_instead(function, kind)}")
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"@{kind}: name= must be a non-empty str, got {self.name!r}")
        if "\n" in self.name:
            raise ValueError(f"@{kind} {self.name!r}: name= must be on one line")
        if not is_text(self.name + (self.declared_version or "")):
            raise TypeError(
                f"@{kind} {self.name!r}: name= or version= has a lone surrogate or a NUL, which no store can hold"
            )
        if self.name.endswith("<lambda>"):
            raise TypeError(
                f"@{kind}: a lambda has no name for its records to be found by. Write a def, or name it: "
                f'{kind}(name="…")(lambda …).'
            )
        if type(self.attempts) is not int or self.attempts < 1:
            raise ValueError(f"@{kind} {self.name}: attempts= must be a whole number from 1, got {self.attempts!r}")
        if not isinstance(self.backoff, (int, float)) or not self.backoff >= 0:
            raise ValueError(f"@{kind} {self.name}: backoff= must be seconds from 0, got {self.backoff!r}")
        if self.timeout is not None:
            if not isinstance(self.timeout, (int, float)) or not self.timeout > 0:
                raise ValueError(f"@{kind} {self.name}: timeout= must be seconds above 0, got {self.timeout!r}")
            if not self.is_async:
                raise TypeError(
                    f"@{kind} {self.name}: timeout= needs an async def: a thread cannot be stopped. Make the "
                    "function async, or give the call inside it a timeout of its own."
                )
        if self.key is not None and not callable(self.key):
            raise TypeError(f"@{kind} {self.name}: key= must be a function of the arguments, got {self.key!r}")
        for option in ("retry_on", "not_done"):
            if not _are_exceptions(getattr(self, option)):
                raise TypeError(f"@{kind} {self.name}: {option}= must be an exception class or a tuple of them")
        if self.ignore and (unknown := self.ignore - set(inspect.signature(function).parameters)):
            raise TypeError(f"@{kind} {self.name}: ignore= names {sorted(unknown)}, which are no parameters of it")
        refuse_unfit_options(self)
        refuse_queue(self.queue, f"@{kind} {self.name}: ")
        if type(self.max_deaths) is not int or self.max_deaths < 1:
            raise ValueError(f"@{kind} {self.name}: max_deaths= must be a whole number from 1, got {self.max_deaths!r}")
        self._validate_once()

    def _validate_once(self) -> None:
        where, verify = f"@{self.kind} {self.name}", self.verify
        if type(self.once) is not bool:
            raise TypeError(f"{where}: once= must be True or False, got {self.once!r}")
        if not self.once:
            if verify is not None or self.not_done != ():
                option = "not_done" if verify is None else "verify"
                raise TypeError(f"{where}: {option}= says what became of a once step; write once=True, or leave it out")
            return
        if self.attempts > 1 and verify is None and self.not_done == ():
            raise TypeError(
                f"{where}: once=True with attempts={self.attempts} needs not_done= (the exceptions after which it "
                "certainly has not happened) or verify= (which asks whether it has): nothing else may be tried again"
            )
        if verify is None:
            return
        if not callable(verify) or hasattr(verify, "_definition"):
            raise TypeError(f"{where}: verify= must be a plain function of the step's arguments, got {verify!r}")
        if self.is_async and not inspect.iscoroutinefunction(verify):
            raise TypeError(f"{where}: verify= of an async step must be an async def: it would block the event loop")
        given, taken = inspect.signature(self.function), inspect.signature(verify)
        named = [each.name for each in given.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
        try:
            taken.bind(**dict.fromkeys(named))
        except TypeError:
            raise TypeError(
                f"{where}: verify= must take the step's arguments by the same names: {given}, not {taken}"
            ) from None

    def ask(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call ``verify`` as ``call`` calls the function."""
        assert self.verify is not None
        return self.verify(*args, **kwargs) if instance is None else self.verify(instance, *args, **kwargs)

    def call(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function itself, on ``instance`` if it is a method of one: a coroutine if it is async."""
        return self.function(*args, **kwargs) if instance is None else self.function(instance, *args, **kwargs)

    @property
    def code(self) -> CodeType:
        return self.function.__code__

    @cached_property
    def version(self) -> str:
        if self.declared_version is not None or self.kind == "step":
            return self.declared_version or ""
        return fingerprint_of(self.function)

    @property
    def python(self) -> str:
        """``major.minor`` of the Python that runs it."""
        return PYTHON

    @cached_property
    def older_versions(self) -> tuple[str, ...]:
        """Those whose results ``upgrade`` turns, oldest first."""
        return tuple(map(str, self.upgrade))

    @cached_property
    def result_types(self) -> codec.Types:
        return codec.Types.of_return(self.function, self.returns)

    @cached_property
    def result_annotation(self) -> Any:
        """What is declared of the result; ``codec.MISSING`` if nothing is, or nothing that can be read here."""
        if self.returns is not codec.MISSING:
            return self.returns
        try:
            return typing.get_type_hints(self.function).get("return", codec.MISSING)
        except Exception:  # a name that only a type checker imports, mostly
            return codec.MISSING

    @cached_property
    def parameter_types(self) -> codec.Types:
        return codec.Types.of_parameters(self.function)

    @cached_property
    def of_method(self) -> Definition:
        """The same for a call on an object or a class, which is no input."""
        method = object.__new__(Definition)
        method.__dict__.update(self.__dict__)
        for worked_out in ("_signature", "_plain"):
            method.__dict__.pop(worked_out, None)
        method.is_method = True
        return method

    @cached_property
    def _signature(self) -> inspect.Signature:
        signature = inspect.signature(self.function)
        if self.is_method:
            signature = signature.replace(parameters=list(signature.parameters.values())[1:])
        return signature

    @cached_property
    def _plain(self) -> tuple[tuple[str, ...], dict[str, Any]] | None:
        """(names in order, defaults) if every argument has one name; None if the slow way is needed."""
        parameters = list(self._signature.parameters.values())
        if any(each.kind is not each.POSITIONAL_OR_KEYWORD for each in parameters):
            return None
        defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
        return tuple(each.name for each in parameters), defaults

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name, those equal to their default left out, so that a new parameter with a default changes
        nothing.
        """
        plain = self._plain
        if plain is not None and len(args) <= len(plain[0]):
            names, defaults = plain
            bound = dict(zip(names, args))  # noqa: B905 - fewer arguments than names is the usual case
            if not defaults and not kwargs and len(args) == len(names):
                return bound
            if kwargs:
                if not bound.keys().isdisjoint(kwargs) or not kwargs.keys() <= set(names):
                    self._signature.bind(*args, **kwargs)  # raises the TypeError that Python would
                bound.update(kwargs)
            if len(bound) + len(defaults) < len(names) or not all(n in bound or n in defaults for n in names):
                self._signature.bind(*args, **kwargs)
        else:
            bound = dict(self._signature.bind(*args, **kwargs).arguments)
            defaults = {
                name: each.default
                for name, each in self._signature.parameters.items()
                if each.default is not each.empty
            }
        if defaults:
            for name, default in defaults.items():
                if name in bound and _is(bound[name], default):
                    del bound[name]
        return bound

    def encode_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The canonical bytes of a call's inputs. Raises ``CodecError`` naming the argument."""
        bound = self.bind(args, kwargs)
        for name in self.ignore:
            bound.pop(name, None)
        try:
            return codec.encode_inputs(bound, self._inputs_where)
        except CodecError as unfit:
            raise CodecError(f"{unfit} {self._way_around(unfit.path)}", path=unfit.path) from None

    def _way_around(self, path: str) -> str:
        """What to do about an argument that cannot be stored, such as a client or a connection."""
        if self.kind == "workflow":
            return (
                "All arguments of a workflow are stored, so that it can be resumed without them: make what cannot be "
                "stored inside a step, or where the module is loaded."
            )
        argument = re.match(r"\w*", path)
        return f'Or leave the argument out of what is compared and stored: @step(ignore="{argument and argument[0]}").'

    @cached_property
    def _inputs_where(self) -> str:
        return f"the inputs of {self.kind} {self.name!r}"

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        if self.key is None:
            return None
        key = self.key(*args, **kwargs)
        if not isinstance(key, str) or not key:
            raise HoldfastError(f"{self.kind} {self.name!r}: key= must return a non-empty str, got {key!r}")
        if not is_text(key):
            raise HoldfastError(
                f"{self.kind} {self.name!r}: key= returned {key!r}, a str with a lone surrogate or a NUL, which no "
                "store can hold; return repr(key), say."
            )
        return key


def _are_exceptions(given: Any) -> bool:
    kinds = given if isinstance(given, tuple) else (given,)
    return all(isinstance(each, type) and issubclass(each, Exception) for each in kinds)


def refuse_queue(queue: object, where: str = "") -> None:
    """Raises ``TypeError`` or ``ValueError`` for what is no name of a queue."""
    if not isinstance(queue, str):
        raise TypeError(f"{where}queue= must be a str, got {queue!r}")
    if not _QUEUE.fullmatch(queue):
        raise ValueError(
            f"{where}queue= must be a name of at most 100 letters, digits and the signs . _ - /, got {queue!r}"
        )


def _instead(thing: Any, kind: str) -> str:
    """What to mark where ``thing`` is no function."""
    if isinstance(thing, (staticmethod, classmethod)):
        return f"Put @{kind} nearer to the def, below @{type(thing).__name__}."
    if isinstance(thing, type):
        return f"Mark the methods of the class that are {kind}s, each by itself."
    return f"Write a def that calls it, and mark that with @{kind}."


def _is(value: Any, default: Any) -> bool:
    if value is default:
        return True
    if type(value) is not type(default):
        return False
    try:
        return bool(value == default)
    except Exception:  # a value that cannot be compared is not the default
        return False
