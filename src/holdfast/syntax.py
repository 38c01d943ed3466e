"""What a function is, as far as its meaning goes: a fingerprint of its syntax tree.

It is the same over formatting, comments, docstrings and decorators, and over the patch releases of one Python. The
tree is written out here, since the text of ``ast.dump`` is promised by nobody.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

_NOT_MEANT = frozenset({"ctx", "kind", "type_comment", "decorator_list"})  # fields that change nothing of what is done


def fingerprint_of(function: Callable[..., Any]) -> str:
    """``ast:`` and 16 hex digits; ``code:`` for what has no source, such as a function typed at a prompt."""
    try:
        data = canonical(inspect.getsource(function))
    except (OSError, SyntaxError, TypeError, RecursionError):
        return "code:" + _digest(repr(list(_code(function.__code__))).encode())
    return "ast:" + _digest(data)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def canonical(source: str) -> bytes:
    """The meaning of a piece of source, which may stand indented. Raises ``SyntaxError``."""
    if source[:1] in (" ", "\t"):
        source = "if True:\n" + source  # not dedented, which would change the texts in it that have several lines
    return repr(_written(ast.parse(source))).encode("utf-8", "backslashreplace")


def _written(node: Any) -> Any:
    """A node as plain tuples: its class, and those of its fields that are not empty. So a field that a later release
    adds, and this source does not use, is as if it were not there."""
    if isinstance(node, ast.Constant):
        return "Constant", type(node.value).__name__, _constant(node.value)
    if isinstance(node, ast.AST):
        found = [(name, _field(node, name)) for name in node._fields if name not in _NOT_MEANT]
        return type(node).__name__, *((name, value) for name, value in found if value not in (None, ()))
    if isinstance(node, list):
        return tuple(map(_written, node))
    return node if node is None or isinstance(node, (str, int)) else repr(node)


def _field(node: ast.AST, name: str) -> Any:
    value: Any = getattr(node, name, None)
    if name == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        value = value[1:] or [ast.Pass()] if ast.get_docstring(node, clean=False) is not None else value
    if name == "values" and isinstance(node, ast.JoinedStr):
        return tuple(_texts_joined(value))
    return _written(value)


def _constant(value: Any) -> str:
    return hex(value) if type(value) is int else repr(value)  # decimal digits of huge numbers are refused


def _texts_joined(parts: list[Any]) -> Iterator[Any]:
    """The parts of an f-string, with texts side by side as one: releases differ in how they cut them."""
    text = ""
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            text += part.value
            continue
        if text:
            yield text
        text = ""
        yield _written(part)
    if text:
        yield text


def _code(code: CodeType) -> Iterator[Any]:
    """What compiled code does, without its docstring, names of files and numbers of lines."""
    for each in dis.get_instructions(code):
        value = each.argval
        if isinstance(value, CodeType):
            yield each.opname, list(_code(value))
        elif isinstance(value, frozenset):
            yield each.opname, sorted(map(repr, value))  # it is in another order in each process
        else:
            yield each.opname, repr(value)
