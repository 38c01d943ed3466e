"""Values too big for a row: kept beside it under the hash of their content, so the same bytes are stored once.

A row holds a reference in the place of the value. The blob is written before the row that names it, so the worst that a
crash leaves behind is a blob that nothing names. What is read is compared with its hash.

Why zstandard, and at its fastest level: docs/design/blobs.md.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib would load OpenSSL, 2 ms of every cold start
from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec.msgpack import Ext

from .codec.format import ENCODE, RAW, REFERENCE
from .errors import CodecError
from .store import Store

APART_FROM_BYTES = 64 * 1024  # longer values leave the row
PART_BYTES = 1024 * 1024  # of content, in a part: what is held in memory at once of a blob that is not wanted whole
_HASH_BYTES = 32
_REFERENCE_MAX_BYTES = 64
_LEVEL = 1


class Reference(NamedTuple):
    """What stands in a row for a value that is kept beside it."""

    hash: bytes
    size_bytes: int

    def encode(self) -> bytes:
        return ENCODE(Ext(REFERENCE, ENCODE([self.hash, self.size_bytes])))


def reference_in(data: bytes | None) -> Reference | None:
    """The reference that a row holds in the place of a value; None where it holds the value."""
    if data is None or len(data) > _REFERENCE_MAX_BYTES or data[2:3] != bytes([REFERENCE]):
        return None
    try:
        found: Any = RAW.decode(data)
        hash, size_bytes = RAW.decode(found.data)
    except (ValueError, AttributeError, TypeError):  # a value of the user's whose third byte is that one
        return None
    return Reference(hash, size_bytes) if found.code == REFERENCE else None


class Blobs:
    """The blobs of one store. Blocking, and for any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def uri(self, hash: bytes) -> str:
        """Names a blob to people."""
        return f"{self._store.url}#blob={hash.hex()}"

    def keep(self, content: bytes) -> Reference:
        """Have it stored, if it is not already. Raises ``StoreError``."""
        found = Reference(hash_of(content), len(content))
        # What was damaged in the meantime is written again: that is how a repair mends it.
        if not (self._store.renew_blob(found.hash) and self.flaw_of(found) is None):
            self._write(found, content)
        return found

    def _write(self, named: Reference, content: bytes) -> None:
        for n, at in enumerate(range(0, len(content), PART_BYTES)):
            is_last = at + PART_BYTES >= len(content)
            part = _compressed(memoryview(content)[at : at + PART_BYTES])
            self._store.put_blob(named.hash, [part], first=n, size_bytes=named.size_bytes if is_last else None)

    def flaw_of(self, named: Reference) -> str | None:
        """Why its content cannot be had, None if it can. Raises ``StoreError``."""
        try:
            for _ in self.parts(named):
                pass
        except CodecError as lost:
            return str(lost)
        return None

    def content(self, named: Reference) -> bytes:
        """Raises ``CodecError``, naming the uri, if it is missing or not what was stored; ``StoreError``."""
        return b"".join(self.parts(named))

    def parts(self, named: Reference) -> Iterator[bytes]:
        """Its content, part by part. Raises as ``content`` does, at the latest behind the last part."""
        digest = blake2b(digest_size=_HASH_BYTES)
        left = named.size_bytes
        for n in range(-(-named.size_bytes // PART_BYTES)):
            data = self._store.blob_part(named.hash, n)
            if data is None:
                raise self._lost(named, "it is not there" if n == 0 else "a part of it is missing")
            part = _decompressed(data, min(left, PART_BYTES))
            if part is None:
                raise self._lost(named, "it was changed or damaged since it was written")
            digest.update(part)
            left -= len(part)
            yield part
        if digest.digest() != named.hash:
            raise self._lost(named, "it was changed or damaged since it was written")

    def _lost(self, named: Reference, what: str) -> CodecError:
        return CodecError(f"the blob {self.uri(named.hash)} ({named.size_bytes:,} bytes): {what}")


def hash_of(content: bytes) -> bytes:
    return blake2b(content, digest_size=_HASH_BYTES).digest()


def _compressed(part: memoryview) -> bytes:
    import zstandard  # imported by who has something to compress: it takes longer than a small run

    return zstandard.ZstdCompressor(level=_LEVEL).compress(part)


def _decompressed(data: bytes, size_bytes: int) -> bytes | None:
    """None if that is not what ``data`` holds. It is not trusted to say how much memory it takes."""
    import zstandard

    try:
        if zstandard.frame_content_size(data) != size_bytes:
            return None
        return zstandard.ZstdDecompressor().decompress(data)
    except (zstandard.ZstdError, TypeError, MemoryError):
        return None
