"""What holdfast is tested with, for programs that build on it. Never imported by ``import holdfast``.

* ``crash_sweep(review_loan("A-17"))`` kills a process at every store call, and resumes in a new one.
* ``FakeClock``: the time passes when the test says so.
* ``pytest_plugin``: the fixtures ``hf``, ``hf_sqlite`` and ``fake_clock``;
  ``pytest_plugins = ["holdfast.testing.pytest_plugin"]``.
* ``StoreSuite``: what every store must do, for a store of one's own.

The names are imported when they are used, so that a crash sweep needs no pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .crash import Sweep, crash_sweep
    from .fake_clock import FakeClock
    from .store_suite import MakeStore, StoreSuite

_HOME = {
    "FakeClock": "fake_clock",
    "MakeStore": "store_suite",
    "StoreSuite": "store_suite",
    "Sweep": "crash",
    "crash_sweep": "crash",
}

__all__ = ["FakeClock", "MakeStore", "StoreSuite", "Sweep", "crash_sweep"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
