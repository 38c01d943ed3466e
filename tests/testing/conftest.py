"""The fixtures as programs that build on holdfast get them; pytest takes ``pytest_plugins`` only at the root."""

from holdfast.testing.pytest_plugin import fake_clock, hf, hf_sqlite

__all__ = ["fake_clock", "hf", "hf_sqlite"]
