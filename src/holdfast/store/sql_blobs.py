"""Blobs in a store that speaks SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from holdfast.store.owners import Transaction

T = TypeVar("T")


class SQLBlobs(ABC):
    @abstractmethod
    def _ask(self, name: str, given: Mapping[str, Any]) -> list[Any]: ...

    @abstractmethod
    def _transact_now(self, work: Callable[[Transaction, int], T]) -> T:
        """Work in a transaction that is told the time."""

    def renew_blob(self, hash: bytes) -> bool:
        return self._transact_now(lambda t, now: bool(t.ask("renew_blob", {"hash": hash, "now_ms": now})))

    def put_blob(self, hash: bytes, parts: Sequence[bytes], *, first: int = 0, size_bytes: int | None) -> None:
        def put(t: Transaction, now: int) -> None:
            for n, data in enumerate(parts, first):
                t.ask("put_blob_part", {"hash": hash, "n": n, "data": data})
            if size_bytes is not None:
                t.ask("put_blob", {"hash": hash, "size_bytes": size_bytes, "now_ms": now})

        self._transact_now(put)

    def blob_part(self, hash: bytes, n: int) -> bytes | None:
        found = self._ask("blob_part", {"hash": hash, "n": n})
        return found[0][0] if found else None
