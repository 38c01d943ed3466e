"""What stores do when their process is forked."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    def before_fork(self) -> None:
        """In the parent; whatever it locks stays locked until one of the others is called."""
        ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


_stores: weakref.WeakSet[Forked] = weakref.WeakSet()
_forking: list[Forked] = []


def watch(store: Forked) -> None:
    _stores.add(store)


def _before() -> None:
    for store in list(_stores):
        store.before_fork()
        _forking.append(store)


def _after_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_in_child() -> None:
    while _forking:
        _forking.pop().after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
