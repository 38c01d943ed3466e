"""One connection to PostgreSQL that is made when it is needed, and made anew when it was lost."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

from holdfast.store import postgres_schema
from holdfast.store.postgres_connect import LET_GO, Connection, connect
from holdfast.store.postgres_errors import Verdict, explain, is_refused_for_good, is_unknown_host, judge
from holdfast.store.postgres_rows import Array, Statements, rows_of, values
from holdfast.store.postgres_url import Address
from holdfast.store.refusing import Refused

T = TypeVar("T")

# As long as the holder of a lease trusts it: 0.8 of its 10 s. What is still not written then may be another's to write.
PATIENCE_S = 8.0
STATEMENT_MAX_BYTES = 1_000_000_000
_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 1.0

# Connections inherited through a fork. They are the parent's: to close one would end its session on the server.
_parked: list[Connection] = []


class _Again(Exception):
    """Raised from the error after which the same is worth trying again."""


class Transaction:
    """The statements by name, in the transaction that is open."""

    def __init__(self, db: Connection, statements: Statements, now_ms: int | None) -> None:
        self._db = db
        self._statements = statements
        self._now_ms = now_ms

    def ask(self, name: str, given: Mapping[str, Any]) -> list[Any]:
        statement = self._statements.named(name)
        asked = self._db.execute(statement.text, values(statement.names, self._with_time(given)), binary=True)
        return asked.fetchall() if asked.description is not None else []

    def bulk(self, name: str, rows: list[tuple[Any, ...]]) -> int:
        if not rows:
            return 0
        statement = self._statements.bulk(name, len(rows) > 1)
        given = rows_of(self._statements.types(name), rows) + values(statement.names, self._with_time({}))
        return self._db.execute(statement.text, _checked(given), binary=True).rowcount

    def batch(self, parts: Mapping[str, list[tuple[Any, ...]]], given: Mapping[str, Any]) -> list[Any]:
        """One statement for all of a batch: by name of the statement of each part, the rows for it. What it did, see
        ``Statements.batch``."""
        statement = self._statements.batch(*(min(len(rows), 2) for rows in parts.values()))
        rows = [value for name, some in parts.items() if some for value in rows_of(self._statements.types(name), some)]
        rows += values(statement.names, self._with_time(given))
        return self._db.execute(statement.text, _checked(rows), binary=True).fetchall()

    def _with_time(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return given if self._now_ms is None else {**given, "now_ms": self._now_ms}


def _checked(given: list[Any]) -> list[Any]:
    """The parameters of a statement, unless the server would end the connection over their size."""
    size_bytes = sum(len(v.data) if isinstance(v, Array) else len(v) if isinstance(v, bytes) else 0 for v in given)
    if size_bytes > STATEMENT_MAX_BYTES:
        raise Refused(
            f"PostgreSQL takes no row of {size_bytes} bytes, only up to about a gigabyte: keep values in files, and "
            "their paths in the run."
        )
    return given


class Link:
    """For one thread at a time; ``lock`` is held meanwhile."""

    def __init__(self, address: Address, statements: Statements, clock: Callable[[], int] | None) -> None:
        self._address = address
        self._statements = statements
        self._clock = clock
        self.lock = threading.RLock()  # reentrant, so that a signal handler that reads meets no dead lock
        self._db: Connection | None = None
        self._seen = False  # whether the server was ever reached
        self.opened = 0
        self.schema_number = 0

    def ask(self, name: str, given: Mapping[str, Any], taken: Callable[[psycopg.Cursor[Any]], T]) -> T:
        """What one statement returns, in a transaction of its own."""
        statement = self._statements.named(name)

        def look(db: Connection) -> T:
            asked = given if self._clock is None else {**given, "now_ms": self._clock()}
            return taken(db.execute(statement.text, values(statement.names, asked), binary=True))

        return self.run(look)

    def transact(
        self,
        work: Callable[[Transaction], T],
        stands: Callable[[Transaction, T], bool] = lambda t, result: False,
    ) -> T:
        """Do ``work`` in a transaction. When the answer to its COMMIT was lost, ``stands`` is asked whether what it did
        is there, in the transaction that would do it again."""
        unsure: list[T] = []

        def attempt(db: Connection) -> T:
            t = self.transaction(db)
            for result in unsure:
                if in_transaction(db, lambda: stands(t, result)):  # noqa: B023 - called at once
                    return result
            unsure.clear()
            return in_transaction(db, lambda: work(t), unsure.append)

        return self.run(attempt)

    def transaction(self, db: Connection) -> Transaction:
        return Transaction(db, self._statements, self._clock() if self._clock else None)

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        again: Callable[[Connection], T] | None = None,
        patience_s: float | None = None,
    ) -> T:
        """Do ``work`` on the connection; when that is lost, ``again`` (or the same) on a new one, for ``patience_s``.
        Raises ``StoreError``."""
        with self.lock:
            try:
                return self._try(work)
            except _Again:
                pass
            retrying = Retrying(
                retry=retry_if_exception_type(_Again),
                stop=stop_before_delay(PATIENCE_S if patience_s is None else patience_s),
                wait=wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
                reraise=True,
            )
            try:
                result: T = retrying(lambda: self._try(again or work))
                return result
            except _Again as last:
                cause = last.__cause__
                assert isinstance(cause, Exception)
                raise explain(self._address, cause) from cause

    def _try(self, work: Callable[[Connection], T]) -> T:
        db = self._db
        try:
            if db is None:
                db = self._open()
            return work(db)
        except psycopg.Error as error:
            verdict = judge(error, db)
            if verdict is Verdict.FINAL or (is_unknown_host(error) and not self._seen):
                if db is not None and db.closed:
                    self._drop()
                raise explain(self._address, error) from error
            if verdict is Verdict.REFUSED:
                raise Refused(str(explain(self._address, error)), for_good=is_refused_for_good(error)) from error
            if verdict is Verdict.LOST:
                self._drop()
            raise _Again from error
        except (TypeError, ValueError, OverflowError, struct.error) as error:
            raise Refused(f"{self._address.url}: a row holds what PostgreSQL cannot ({error}).") from error

    def _open(self) -> Connection:
        db = connect(self._address, self._address.libpq)
        try:
            self.schema_number = postgres_schema.check(db, self._address, first=not self._seen)
        except BaseException:
            db.close()
            raise
        self._seen = True
        self.opened += 1
        self._db = db
        return db

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def close(self) -> None:
        with self.lock:
            self._drop()

    def forget(self) -> None:
        """To be called in a forked child, where the connection is the parent's, and the lock may be held for ever."""
        self.lock = threading.RLock()
        db, self._db = self._db, None
        if db is not None:
            park(db)


def park(db: Connection) -> None:
    """Keep what a fork inherited from being closed."""
    _parked.append(db)


def in_transaction(db: Connection, work: Callable[[], T], done: Callable[[T], object] | None = None) -> T:
    """``done`` is told the result before the transaction is committed."""
    # What a role may have set instead would show it, behind a lock it had to wait for, what was true before.
    db.execute(b"BEGIN ISOLATION LEVEL READ COMMITTED; " + LET_GO, prepare=False)
    try:
        result = work()
        if done is not None:
            done(result)
        db.execute(b"COMMIT", prepare=False)
    except BaseException:
        if not db.closed and db.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                db.execute(b"ROLLBACK", prepare=False)
        raise
    return result
