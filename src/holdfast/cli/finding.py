"""Workflows by name: ``module:workflow`` or ``file.py:workflow`` as typed, module and file as a run recorded them."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from holdfast.admission import only_imported
from holdfast.cli.problems import Problem
from holdfast.definition import Definition
from holdfast.known import marked_here, place_of
from holdfast.store import RunRow
from holdfast.workflow import AsyncStep, AsyncWorkflow, PlainStep, PlainWorkflow, Workflow

LISTED = 8  # names in an error message
_AGENTS = "holdfast.adapters.adk."  # the modules whose runs are invocations of Google ADK

_loaded: dict[Path, ModuleType] = {}


def definition_of(workflow: Workflow) -> Definition:
    return workflow._definition


def workflow_named(target: str) -> Workflow:
    """``loans:review_loan``, ``jobs.loans:review_loan`` or ``jobs/loans.py:review_loan``."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise Problem(
            f"{target!r} names no workflow. Write MODULE:WORKFLOW, such as loans:review_loan or "
            "jobs/loans.py:review_loan."
        )
    module = module_named(where)
    found = _find(module, name)
    if found is None:
        raise Problem(_what_is_there(module, where, name))
    return found


def module_named(where: str) -> ModuleType:
    """``jobs.loans`` or ``jobs/loans.py``, imported."""
    search_here()
    return _of_file(Path(where)) if _is_path(where) else _of_module(where, advise=True)


def has_workflows(module: ModuleType) -> bool:
    """Whether it marks or imports any, or is a package of modules that do."""
    places = [place_of(workflow)[0] for workflow in marked_here()]
    return bool(workflows_in(module)) or any(f"{place}.".startswith(f"{module.__name__}.") for place in places)


def workflow_of_run(row: RunRow) -> Workflow:
    """The workflow that made a run: in the module it recorded, its file, or one that pyproject.toml names."""
    if row.module.startswith(_AGENTS):
        raise Problem(
            f"run {row.id!r} is an invocation of Google ADK, which its app goes on with: "
            "`holdfast worker --adk MODULE:APP`, or in a program resume(runner, user_id=…, session_id=…)."
        )
    search_here()
    tried: list[str] = []
    for what, module in _candidates(row, tried):
        found = _find(module, row.workflow)
        if found is not None:
            return found
        tried.append(f"{what} has no such workflow")
    raise Problem(
        f"run {row.id!r} is one of workflow {row.workflow!r}, which was not found: {'; '.join(tried)}. Say where it is "
        f"now, with the arguments it was started with: `holdfast run FILE.py:{row.workflow} ARGS --id {row.id}`; or "
        'name its module in pyproject.toml: [tool.holdfast] modules = ["…"]; or run the program that started it.'
    )


def _candidates(row: RunRow, tried: list[str]) -> Iterator[tuple[str, ModuleType]]:
    if row.module != "__main__" and (module := _importable(row.module, tried)) is not None:
        yield f"module {row.module}", module
    file = Path(row.file)
    if file.suffix == ".py" and file.exists():
        yield f"file {file}", _of_file(file)
    else:
        tried.append(f"there is no file {row.file}")
    for name in modules_of_project():
        if (named := _importable(name, tried)) is not None:
            yield f"module {name}", named


def search_here() -> None:
    """The current folder is where a line's modules are looked for first, as with ``python -m``."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


# -- modules -----------------------------------------------------------------------------------------------


def _importable(name: str, tried: list[str]) -> ModuleType | None:
    try:
        return _of_module(name)
    except Problem as problem:
        tried.append(problem.format_message().rstrip("."))
        return None


def _of_module(name: str, *, advise: bool = False) -> ModuleType:
    try:
        with only_imported(name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            instead = f". {_modules_beside(Path.cwd(), name)}" if advise else ""
            raise Problem(f"there is no module {name!r} in {Path.cwd()} or among the installed ones{instead}") from None
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _of_file(file: Path) -> ModuleType:
    """A file as the module it is: in its package, beside its neighbours, and never as ``__main__``."""
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise Problem(f"{file.resolve()} {what}. {_modules_beside(file.parent, file.stem)}")
    if file.suffix != ".py":
        raise Problem(
            f"{file.resolve()} is no Python file: its name does not end in .py. "
            f"{_modules_beside(file.parent, file.stem)}"
        )
    file = file.resolve()
    if file in _loaded:
        return _loaded[file]
    root, name = file.parent, file.stem
    while (root / "__init__.py").exists():
        root, name = root.parent, f"{root.name}.{name}"
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    spec = importlib.util.find_spec(name) if all(part.isidentifier() for part in name.split(".")) else None
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file:
        module = _of_module(name)
    else:  # its name is taken by another module, or is none
        module = _load(file)
    _loaded[file] = module
    return module


def _load(file: Path) -> ModuleType:
    name = f"holdfast_main_{file.stem}"
    while name in sys.modules:
        name += "_"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while they are made
    try:
        with only_imported(str(file)):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(str(file), error) from error
    return module


def _broken(what: str, error: BaseException) -> Problem:
    """The user's own code fails while it is imported: say where."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parents[1])
    own = [each for each in frames if "importlib" not in each.filename and not each.filename.startswith(ours)]
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})"
    else:
        where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return Problem(f"{what} cannot be imported: {type(error).__name__}: {error}{where}.")


def modules_of_project() -> list[str]:
    """``[tool.holdfast] modules`` in the pyproject.toml of this folder, or the nearest one above."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        if not path.exists():
            continue
        try:
            modules = (
                tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("holdfast", {}).get("modules", [])
            )
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Problem(f"{path} cannot be read: {error}.") from None
        if not isinstance(modules, list) or not all(isinstance(each, str) for each in modules):
            raise Problem(f'{path}: [tool.holdfast] modules is a list of names, such as ["jobs.loans"].')
        if modules and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        return modules
    return []


def _is_path(where: str) -> bool:
    """Whether a file is meant, be it a wrong one; else it is the name of a module."""
    return where.endswith(".py") or "/" in where or os.sep in where or Path(where).is_file()


def _modules_beside(folder: Path, name: str) -> str:
    """What could have been meant: the Python files of a folder, the most similar ones first."""
    known = sorted(path.stem for path in folder.glob("*.py")) if folder.is_dir() else []
    files = _listed([f"{stem}.py" for stem in known])
    there = (
        f"The Python files in {folder.resolve()}: {files}." if known else f"No Python file is in {folder.resolve()}."
    )
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean {near[0]}.py? " if near else ""
    return f"{meant}{there} Name a module (jobs.loans) or a file (jobs/loans.py)."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _what_is_there(module: ModuleType, where: str, name: str) -> str:
    """Why a name is that of no workflow, and which names of the module are."""
    found = getattr(module, name, None)
    if found is None:
        what = f"there is no {name!r} in {where}"
    elif isinstance(found, (AsyncStep, PlainStep)):
        what = f"{name!r} in {where} is a step, which runs inside of a workflow"
    elif inspect.isfunction(found):
        what = f"{name!r} in {where} is a function that is not marked @workflow"
    else:
        kind = "class" if isinstance(found, type) else f"value of type {type(found).__name__}"
        what = f"{name!r} in {where} is a {kind}, not a workflow"
    known = sorted(definition_of(each).name for each in workflows_in(module))
    if not known:
        return f"{what}. {where} has no workflow at all; mark one with @workflow."
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]}?" if near and found is None else ""
    return f"{what}.{meant} Its workflows: {_listed(known)}."


# -- workflows in a module ---------------------------------------------------------------------------------


def workflows_in(module: ModuleType) -> list[Workflow]:
    return [each for each in vars(module).values() if isinstance(each, (AsyncWorkflow, PlainWorkflow))]


def _find(module: ModuleType, name: str) -> Workflow | None:
    """By the name it is recorded under, else by the name it has in the module."""
    for each in workflows_in(module):
        if definition_of(each).name == name:
            return each
    found: Any = module
    for part in name.split("."):
        holder, found = found, getattr(found, part, None)
        if isinstance(holder, type) and isinstance(found, (AsyncWorkflow, PlainWorkflow)):
            _refuse_method(holder, part)
    return found if isinstance(found, (AsyncWorkflow, PlainWorkflow)) else None


def _refuse_method(holder: type, name: str) -> None:
    if not isinstance(inspect.getattr_static(holder, name), staticmethod):
        raise Problem(
            f"workflow {holder.__qualname__}.{name} is a method, and only its own program has the object it belongs "
            "to. Run that program, or make the workflow a function."
        )
