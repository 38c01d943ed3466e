"""Disks that fail, power that is cut, processes that are killed: ``python -m tests.torture``."""
