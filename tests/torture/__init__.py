"""Disks, power, processes, machines, servers and networks that fail: ``python -m tests.torture``."""
