"""Who owns a run: how long a lease lasts, the name of an owner, and whether that owner is dead.

An owner's name says where it lives: host (with its boot and its PID namespace, since containers share neither PIDs
nor their meaning), PID and the process's start time, so that a PID used again is not taken for the old one."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SECONDS_MIN, SECONDS_MAX = 1.0, 86_400.0
START_TOLERANCE_S = 0.5  # start times are read from clock ticks


@dataclass(frozen=True)
class Lease:
    """How long the leases of one ``Holdfast`` last: ``seconds``, from 1 to a day. A lease lapses then, whether or not
    its process lives."""

    seconds: float = 10.0

    def __post_init__(self) -> None:
        given = self.seconds
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            raise TypeError(f"lease= must be a number of seconds, got {given!r}")
        if not SECONDS_MIN <= given <= SECONDS_MAX:
            raise ValueError(
                f"lease= must be from {SECONDS_MIN:g} to {SECONDS_MAX:g} seconds, got {given!r}: it is renewed every "
                "third of that, and a run whose machine is gone waits so long for the next one"
            )

    @property
    def ttl_ms(self) -> int:
        return round(self.seconds * 1000)

    @property
    def renew_every_s(self) -> float:
        return self.seconds / 3

    @property
    def trusted_s(self) -> float:
        """How long the holder trusts its lease without a renewal: then it stops by itself."""
        return 0.8 * self.seconds


@cache
def host() -> str:
    """This machine, this boot of it, and this PID namespace."""
    return "/".join(part for part in (socket.gethostname(), _boot(), _pid_namespace()) if part)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:  # not Linux: the host's name must do
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    """Seconds between boot and the start of the process; None if dead, -1 if it may live and cannot be looked at."""
    if not Path("/proc/self/stat").exists():
        return _started_by_psutil(pid)
    try:
        # Not by psutil, whose times are those of the wall clock: it may be stepped between two looks at it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        return -1.0 if _is_hidden(pid) else None
    except (OSError, ValueError, IndexError):
        return -1.0


def _is_hidden(pid: int) -> bool:
    """Whether it lives all the same: /proc may be mounted so that other users' processes are not shown."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _started_by_psutil(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time() - psutil.boot_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return -1.0


_own: tuple[int, float] | None = None


def owner_name() -> str:
    """A new owner in this process: ``host|pid|start|serial``, unique among all that ever were."""
    global _own
    pid = os.getpid()
    if _own is None or _own[0] != pid:
        _own = (pid, _started(pid) or 0.0)
    return f"{host()}|{pid}|{_own[1]:.2f}|{time.time_ns():x}{os.urandom(2).hex()}"


def process_of(owner: str) -> str:
    """The part of an owner's name that people want to see: ``host pid``."""
    where, _, rest = owner.partition("|")
    return f"{where.partition('/')[0]} pid {rest.partition('|')[0]}"


def is_dead(owner: str) -> bool:
    """Whether the owner's process certainly lives no more. False if it may: another host's is never known dead."""
    try:
        where, pid, started, _ = owner.split("|")
        if where != host():
            return False
        now = _started(int(pid))
        began = float(started)
    except (ValueError, OverflowError):
        return False
    if now is None:
        return True
    return now >= 0 and abs(now - began) > START_TOLERANCE_S
