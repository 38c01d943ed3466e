"""Blobs in memory."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.store.memory_data import Data


class MemoryBlobs:
    _data: Data

    def renew_blob(self, hash: bytes) -> bool:
        with self._data.lock:
            return hash in self._data.blobs

    def put_blob(self, hash: bytes, parts: Sequence[bytes], *, first: int = 0, size_bytes: int | None) -> None:
        with self._data.lock:
            self._data.blob_parts.update(((hash, n), data) for n, data in enumerate(parts, first))
            if size_bytes is not None:
                self._data.blobs[hash] = size_bytes

    def blob_part(self, hash: bytes, n: int) -> bytes | None:
        with self._data.lock:
            return self._data.blob_parts.get((hash, n))
