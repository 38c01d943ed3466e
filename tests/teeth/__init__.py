"""Bugs planted into copies of the sources, for the tests to notice. ``python -m tests.teeth`` runs them all."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from .plant import Plant

MODULES = ("core", "order", "watch", "disk", "postgres", "machines", "waiting")

PLANTED: list[Plant] = [
    each
    for module in MODULES
    if find_spec(f"{__name__}.{module}") is not None
    for each in import_module(f"{__name__}.{module}").PLANTED
]
