"""The fixtures as programs that build on holdfast get them."""

from holdfast.testing.pytest_plugin import fake_clock, hf, hf_sqlite

__all__ = ["fake_clock", "hf", "hf_sqlite"]
