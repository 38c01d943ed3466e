"""How one process tells another which function it means: by module, else by file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec


class Reference(msgspec.Struct):
    """A function (or what a decorator made of it) at the top of a module or of a class in it."""

    module: str
    file: str
    qualname: str


def reference_to(function: Callable[..., Any], what: str) -> Reference:
    """Raises ``TypeError`` if another process could not find it."""
    qualname: str = function.__qualname__
    if "<locals>" in qualname or "<lambda>" in qualname:
        raise TypeError(
            f"{what} {qualname!r} is made inside a function, where a new process cannot find it: define it at the "
            "top of its module"
        )
    module = sys.modules.get(function.__module__)
    name, file = function.__module__, getattr(function, "__code__", None)
    if name == "__main__":
        spec = getattr(module, "__spec__", None)
        name = spec.name if spec is not None else ""
    path = file.co_filename if file is not None else str(getattr(module, "__file__", "") or "")
    path = str(Path(path).resolve()) if Path(path).is_file() else ""
    if not (name or path):
        raise TypeError(
            f"{what} {qualname!r} was typed at a prompt, where a new process cannot find it: put it in a file"
        )
    return Reference(name, path, qualname)


def resolve(reference: Reference) -> Any:
    """What a reference names, imported here. Raises ``ImportError`` or ``AttributeError``."""
    found: Any = _imported(reference)
    for part in reference.qualname.split("."):
        found = getattr(found, part)
    return found


def _imported(reference: Reference) -> ModuleType:
    name, file = reference.module, reference.file
    if name and (not file or _is_at(name, file)):
        return importlib.import_module(name)
    name = name.rpartition(".")[2] or Path(file).stem  # a script is loaded under another name than __main__
    while name in sys.modules:
        name += "_"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # What the file imports from beside it is found as when it is run as a script.
    folder = str(Path(file).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    return module


def _is_at(name: str, file: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    origin = spec.origin if spec is not None else None
    return origin is not None and Path(origin).exists() and Path(origin).samefile(file)
