"""What may be declared about versions, and values of an older version brought to the present one.

``upgrade=`` turns recorded results of a step, ``migrate=`` a state; both are the user's own functions, and run each
time such a value is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import codec
from .errors import CodecError, VersionMismatch
from .store import Checkpoint

if TYPE_CHECKING:
    from .definition import Definition

ON_CHANGE = ("salvage", "restart", "refuse")


def refuse_unfit_options(definition: Definition) -> None:
    """Raises ``TypeError`` or ``ValueError`` for options about versions that make no sense."""
    where = f"@{definition.kind} {definition.name}: "
    refuse_unfit_choice(definition.on_change, ON_CHANGE, where)
    refuse_unfit_schema(definition.schema_version, definition.migrate, where)
    upgrade = definition.upgrade
    if not isinstance(upgrade, Mapping):
        raise TypeError(f"{where}upgrade= maps versions, each a str or an int, to functions; got {upgrade!r}")
    if not upgrade:
        return
    if not all(isinstance(version, (str, int)) and not isinstance(version, bool) for version in upgrade):
        raise TypeError(f"{where}upgrade= maps versions, each a str or an int, to functions; got {upgrade!r}")
    if definition.declared_version is None:
        raise ValueError(f"{where}upgrade= turns results of older versions, so version= has to say which this one is")
    if definition.declared_version in map(str, upgrade):
        raise ValueError(f"{where}upgrade= names version {definition.declared_version!r}, which is the present one")
    numbers = [version for version in upgrade if isinstance(version, int)]
    if numbers != sorted(numbers):
        raise ValueError(f"{where}upgrade= names the oldest version first: each turns a result into the next one's")
    for version, function in upgrade.items():
        _refuse_unfit_function(function, 1, f"{where}upgrade= for version {version!r} must be a def of one argument")


def refuse_unfit_choice(on_change: object, choices: tuple[str, ...], where: str) -> None:
    if not isinstance(on_change, str):
        raise TypeError(f"{where}on_change= must be one of {', '.join(choices)}, got {on_change!r}")
    if on_change not in choices:
        raise ValueError(f"{where}on_change= must be one of {', '.join(choices)}, got {on_change!r}")


def refuse_unfit_schema(schema_version: object, migrate: object, where: str) -> None:
    if schema_version is not None:
        if isinstance(schema_version, bool) or not isinstance(schema_version, int):
            raise TypeError(f"{where}schema_version= must be a whole number from 1, got {schema_version!r}")
        if not 1 <= schema_version < 2**31:
            raise ValueError(f"{where}schema_version= must be a whole number from 1, got {schema_version!r}")
    if migrate is not None:
        if schema_version is None:
            raise ValueError(f"{where}migrate= brings a state to schema_version=, which is missing")
        _refuse_unfit_function(migrate, 2, f"{where}migrate= must be a def of the state and the version it is of")


def _refuse_unfit_function(function: object, arguments: int, what: str) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise TypeError(f"{what}, got {function!r}")
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        raise TypeError(f"{what}, got {function!r}") from None
    except ValueError:  # written in C, and silent about what it takes
        pass


# -- states -------------------------------------------------------------------------------------------------------


def encoded_state(state: dict[str, Any], what: str) -> bytes | None:
    return codec.encode(state, codec.Types.none, what, root="state") if state else None


def migrated(state: dict[str, Any], version: int, migrate: Callable[[dict[str, Any], int], Any], what: str) -> Any:
    """``state``, which is the caller's to give away, as ``migrate`` makes it. Raises ``VersionMismatch``."""
    try:
        made = migrate(state, version)
    except Exception as error:
        raise VersionMismatch(
            f"{what}: migrate= failed on a state of schema version {version} with {type(error).__name__}: {error}. "
            "Nothing was changed; mend it, and resume."
        ) from error
    if not isinstance(made, dict) or not all(isinstance(key, str) for key in made):
        raise VersionMismatch(
            f"{what}: migrate= must return the state, a dict with keys of type str, and returned {made!r:.200}"
        )
    return made


# -- results of a step -------------------------------------------------------------------------------------------


def result_of(row: Checkpoint, definition: Definition) -> Any:
    """The recorded result of a step, as its present version would have returned it. Raises ``CodecError``."""
    if row.version not in definition.older_versions:
        return codec.decode(row.result or b"", definition.result_types, "the result")
    chain = list(definition.upgrade.values())[definition.older_versions.index(row.version) :]
    value, unfit = _as_asked_for(row.result or b"", chain[0])
    for function in chain:
        try:
            value = function(value)
        except Exception as error:
            raise CodecError(
                f"upgrade= of step {row.name!r} failed on a result of version {row.version!r} with "
                f"{type(error).__name__}: {error}{f' (it was given plain data: {unfit})' if unfit else ''}"
            ) from error
    where = f"the result of step {row.name!r}, upgraded from version {row.version!r}"
    data = codec.encode(value, definition.result_types, where, root=row.name)
    return codec.decode(data, definition.result_types, where, root=row.name)


def _as_asked_for(data: bytes, function: Callable[..., Any]) -> tuple[Any, CodecError | None]:
    """A result with the types that the parameter of ``function`` names; plain data, and why, if these do not fit: the
    class of then may be gone."""
    types = codec.Types.of_parameters(function) if inspect.isroutine(function) else codec.Types.none
    try:
        return codec.decode(data, types, "the result"), None
    except CodecError as unfit:
        return codec.readable(data), unfit
