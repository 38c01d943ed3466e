"""Woken by PostgreSQL: a connection that listens, or, where none can, a look every so often."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from holdfast.store.postgres_connect import Connection, connect
from holdfast.store.postgres_link import park
from holdfast.store.postgres_url import Address

POLL_S = 0.5  # how long a change may go unnoticed where nobody can be told
_PROBE_S = 0.5  # how long a word of our own may take until it counts as lost


class Listener:
    """``listen`` is called from one thread; ``close`` from any."""

    def __init__(self, address: Address, channel: str, notify: Callable[[], object]) -> None:
        self._address = address
        self._channel = channel
        self._notify = notify
        self._start()

    def _start(self) -> None:
        self._db: Connection | None = None
        self._heard: bool | None = None  # whether a word of our own came back; None before one was sent
        self._closing = False
        self._lock = threading.Lock()  # held while the connection is used
        self._ended, self._end = socket.socketpair()

    def listen(self, seconds: float) -> None:
        """Return when something was told, or after so long; at once after a connection was made, since what was told
        before went unheard."""
        with self._lock:
            self._closing = False
            if self._address.listen == "off" or self._heard is False:
                self._sleep(min(seconds, POLL_S))
                return
            try:
                if self._db is None:
                    self._open()
                else:
                    self._wait(seconds)
            except psycopg.Error:
                self._drop()
                self._sleep(min(seconds, POLL_S))

    def _open(self) -> None:
        self._db = db = connect(self._address, self._address.direct())
        db.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)), prepare=False)
        if self._heard is None:
            # Behind a pooler that hands its connections on, somebody else would hear what is for us.
            self._notify()
            self._heard = self._wait(_PROBE_S)
            if not self._heard:
                self._drop()

    def _wait(self, seconds: float) -> bool:
        """Whether something was told. What else could be in a session that listens, psycopg takes care of."""
        assert self._db is not None
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._closing:
            ready = _readable(left, self._db, self._ended)
            if self._ended in ready:
                return False
            if ready and any(True for _ in self._db.notifies(timeout=0)):
                return True
        return False

    def _sleep(self, seconds: float) -> None:
        _readable(seconds, self._ended)

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def close(self) -> None:
        """Who listens returns, and a later ``listen`` begins anew."""
        self._closing = True
        self._end.send(b".")
        with self._lock:
            self._drop()
            self._ended.recv(1)

    def forget(self) -> None:
        if self._db is not None:
            park(self._db)
        for end in (self._ended, self._end):
            end.close()
        self._start()


def _readable(seconds: float, *files: Connection | socket.socket) -> list[object]:
    """Those with something to read, within so long. Not by ``select``, which takes no descriptor above 1023."""
    with selectors.DefaultSelector() as selector:
        for each in files:
            selector.register(each, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds)]
