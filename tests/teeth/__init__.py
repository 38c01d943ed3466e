"""Bugs planted into copies of the sources, for the tests to notice. ``python -m tests.teeth`` runs them all."""

from __future__ import annotations

from importlib import import_module

from .plant import Plant

MODULES = (
    "core", "order", "watch", "disk", "postgres", "machines", "workers", "waiting", "once", "versions", "plans",
    "sessions", "generated", "agents", "deltas", "scopes", "blobs",
)  # fmt: skip

PLANTED: list[Plant] = [each for module in MODULES for each in import_module(f"{__name__}.{module}").PLANTED]
