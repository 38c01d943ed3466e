"""Values too big for a row: kept beside it under the hash of their content, so the same bytes are stored once.

A row holds a reference in the place of the value. The blob is written before the row that names it, so the worst that a
crash leaves behind is a blob that nothing names. What is read is compared with its hash.

Why zstandard, and at its fastest level: docs/design/blobs.md.
"""

from __future__ import annotations

import logging
import re
import weakref
from _blake2 import blake2b  # hashlib would load OpenSSL at every start
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from typing import IO, Any, NamedTuple

from msgspec.msgpack import Ext

from .codec.format import BLOB, ENCODE, RAW, REFERENCE
from .errors import CodecError
from .store import Store

APART_FROM_BYTES = 64 * 1024  # longer values leave the row
PART_BYTES = 1024 * 1024  # of content, in a part: what is held in memory at once of a blob that is not wanted whole
BLOB_MAX_BYTES = 48 * 1024**3  # in the ten thousand pieces that S3 takes, of five megabytes
HASH_BYTES = 32
_REFERENCE_MAX_BYTES = 64
_LEVEL = 1

_log = logging.getLogger("holdfast")


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


# An extension of either kind, from the byte of its kind on: a list of two, of which the first is the hash. Looked ahead
# for, since what only looks like one may end in the beginning of another.
_NAMED = re.compile(b"(?=[%c%c]\\x92\\xc4\\x20(.{32}))" % (BLOB, REFERENCE), re.DOTALL)
_SIGN = b"\x92\xc4\x20"


def hashes_in(*encoded: bytes | None, known: bytes | None = None) -> bytes | None:
    """The hashes of the blobs that encoded values name, behind those ``known``, one behind the other; None if there are
    none. Now and then there is one too many, which keeps a blob for nothing, and never one too few."""
    if not any(data is not None and _SIGN in data for data in encoded):  # as good as always, and every step asks
        return known
    before = known or b""
    hashes = [before[at : at + HASH_BYTES] for at in range(0, len(before), HASH_BYTES)]
    for data in encoded:
        hashes += _NAMED.findall(data or b"")
    return b"".join(dict.fromkeys(hashes)) or None


class Blobs:
    """The blobs of one store, inside the database. Blocking, and for any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        _known.add(self)

    @contextmanager
    def nearest(self) -> Iterator[None]:
        """What is restored inside is looked for here first."""
        token = _nearest.set(self)
        try:
            yield
        finally:
            _nearest.reset(token)

    def uri(self, hash: bytes) -> str:
        """Names a blob to people."""
        return f"{self._store.url}#blob={hash.hex()}"

    def keep(self, content: bytes) -> Reference:
        """Have it stored, if it is not already. Raises ``StoreError``."""
        return self.keep_stream(BytesIO(content))

    def keep_stream(self, stream: IO[bytes]) -> Reference:
        """The same of what a stream holds; it is read twice. Raises ``ValueError`` if that gives different bytes."""
        named = reference_of(stream)
        # What was damaged in the meantime is written again: that is how a repair mends it.
        if not (self._store.renew_blob(named.hash) and self.flaw_of(named) is None):
            stream.seek(0)
            self._write(named, parts_of(stream))
        return named

    def _write(self, named: Reference, parts: Iterable[bytes]) -> None:
        digest, left = blake2b(digest_size=HASH_BYTES), named.size_bytes
        for n, part in enumerate(parts):
            digest.update(part)
            left -= len(part)
            if left < 0 or (left == 0 and digest.digest() != named.hash):
                break
            self._store.put_blob(named.hash, [compressed(part)], first=n, size_bytes=None if left else named.size_bytes)
        if left or digest.digest() != named.hash:
            raise ValueError("the file was changed while it was being read; make the Blob when nobody writes to it")

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

    def has(self, named: Reference) -> bool:
        """Whether its beginning is here."""
        return named.size_bytes == 0 or self._store.blob_part(named.hash, 0) is not None

    def parts(self, named: Reference) -> Iterator[bytes]:
        """Its content, part by part. Raises as ``content`` does, at the latest behind the last part."""
        digest = blake2b(digest_size=HASH_BYTES)
        left = named.size_bytes
        for n in range(-(-named.size_bytes // PART_BYTES)):
            data = self._store.blob_part(named.hash, n)
            if data is None:
                raise self._missing(named) if n == 0 else self._lost(named, "a part of it is missing")
            part = decompressed(data, min(left, PART_BYTES))
            if part is None:
                raise self._damaged(named)
            digest.update(part)
            left -= len(part)
            yield part
        if digest.digest() != named.hash:
            raise self._damaged(named)

    def _missing(self, named: Reference) -> CodecError:
        return self._lost(named, "it is not there")

    def _damaged(self, named: Reference) -> CodecError:
        return self._lost(named, "it was changed or damaged since it was written")

    def _lost(self, named: Reference, what: str) -> CodecError:
        return CodecError(f"the blob {self.uri(named.hash)} ({named.size_bytes:,} bytes): {what}")


_known: weakref.WeakSet[Blobs] = weakref.WeakSet()
_nearest: ContextVar[Blobs | None] = ContextVar("holdfast_blobs", default=None)


def nearest() -> Blobs | None:
    return _nearest.get()


def holder_of(named: Reference) -> Blobs:
    """Who keeps it, of all that this process has open. Raises ``CodecError`` if nobody does."""
    asked = list(_known)
    found = next((blobs for blobs in asked if blobs.has(named)), None)
    if found is None:
        where = ", ".join(sorted({blobs.uri(named.hash) for blobs in asked})) or "no store is open"
        raise CodecError(
            f"the blob of {named.size_bytes:,} bytes is not to be found: {where}. Open the store it is in."
        )
    return found


def hash_of(content: bytes) -> bytes:
    return blake2b(content, digest_size=HASH_BYTES).digest()


def reference_of(stream: IO[bytes]) -> Reference:
    """What names the content of a stream, from its beginning."""
    stream.seek(0)
    digest, size_bytes = blake2b(digest_size=HASH_BYTES), 0
    for part in parts_of(stream):
        digest.update(part)
        size_bytes += len(part)
    if size_bytes > BLOB_MAX_BYTES:
        raise ValueError(
            f"a Blob has at most {BLOB_MAX_BYTES:,} bytes, and this one has {size_bytes:,}: split the file"
        )
    if size_bytes > BLOB_MAX_BYTES // 2:
        _log.warning("a Blob of %s bytes; at most %s are kept: split such files", size_bytes, BLOB_MAX_BYTES)
    return Reference(digest.digest(), size_bytes)


def parts_of(stream: IO[bytes]) -> Iterator[bytes]:
    """Pieces of a part's size. A raw stream may give less at once than it was asked for."""
    while part := stream.read(PART_BYTES):
        while len(part) < PART_BYTES and (more := stream.read(PART_BYTES - len(part))):
            part += more
        yield part


def compressed(part: bytes) -> bytes:
    import zstandard  # imported by who has something to compress: it takes longer than a small run

    return zstandard.ZstdCompressor(level=_LEVEL).compress(part)


def decompressed(data: bytes, size_bytes: int) -> bytes | None:
    """None if that is not what ``data`` holds. It is not trusted to say how much memory it takes."""
    import zstandard

    try:
        if zstandard.frame_content_size(data) != size_bytes:
            return None
        return zstandard.ZstdDecompressor().decompress(data)
    except (zstandard.ZstdError, TypeError, MemoryError):
        return None
