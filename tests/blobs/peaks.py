"""What a program of a test needs to tell how much memory it took."""

from __future__ import annotations

# Not getrusage: its ru_maxrss is inherited by a new process, so that it says what pytest took.
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""
