"""Big values in a folder or a bucket: an object for each, named by the hash of its content.

Values that left their row are compressed, files lie there as they are, so that other programs can read them by their
uri. obstore's synchronous API is called in threads: its asynchronous one can abort the interpreter at exit.
"""

from __future__ import annotations

import os
import threading
from _blake2 import blake2b
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from .blobs import HASH_BYTES, PART_BYTES, Blobs, Reference, compressed, decompressed, hash_of, parts_of, reference_of
from .errors import CodecError, StoreError
from .store import Store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("file", "s3", "gs", "az")
_UPLOADED_BYTES = 5 * PART_BYTES  # at once, of a file in several pieces: the least that S3 takes
_UPLOADS = 2  # of these at a time


class Bucket(Blobs):
    """``url``: ``file:///folder``, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://account/container/prefix``.
    Who may read and write there, the clouds' usual environment says; nothing of that is ever stored. What was kept in
    the database before there was a bucket is found there. Raises ``StoreError``."""

    def __init__(self, store: Store, url: str) -> None:
        parts = urlsplit(url)
        where = parts.path.startswith("/") and not parts.netloc if parts.scheme == "file" else parts.netloc
        self._within = parts.path.strip("/")  # the container and the prefix of an account
        where = where and (parts.scheme != "az" or self._within)
        if parts.scheme not in SCHEMES or not where or "@" in parts.netloc or parts.query or parts.fragment:
            raise StoreError(
                f"blobs= names a folder or a bucket, by an absolute URL without user, password or options, such as "
                f"file:///var/blobs, s3://bucket/prefix, gs://bucket/prefix or az://account/container; it begins with "
                f"{parts.scheme or 'none of these'}. Write %23 for a # in a name, %3F for a ?."
            )
        try:
            import obstore
        except ImportError as error:
            raise StoreError(f"{url}: blobs= needs obstore: pip install 'holdfast[blobs]' ({error}).") from error
        super().__init__(store)
        self._api = obstore
        self.url = url.rstrip("/")
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._made: ObjectStore | None = None
        self._reached = False  # whether the folders it is in survive the loss of power
        self._lock = threading.Lock()

    def uri(self, hash: bytes) -> str:
        return f"{self.url}/{hash.hex()}"

    @property
    def _objects(self) -> ObjectStore:
        with self._lock:
            if self._made is None:
                from obstore.store import LocalStore, from_url

                with _explained(self.url):
                    if self._folder is not None:
                        self._made = LocalStore(self._folder, mkdir=True)
                    elif self.url.startswith("az:"):  # obstore takes the host for the container
                        self._made = from_url(f"az://{self._within}", account_name=urlsplit(self.url).netloc)
                    else:
                        self._made = from_url(self.url)
            return self._made

    # -- values that left their row ------------------------------------------------------------------------

    def keep(self, content: bytes) -> Reference:
        named = Reference(hash_of(content), len(content))
        name = _value_name(named)
        is_new = self._size_of(name) is None or self.flaw_of(named) is not None
        with _explained(self.uri(named.hash)):
            if is_new:
                self._put(name, compressed(content))
            self._settle(name, is_new=is_new)
        return named

    def content(self, named: Reference) -> bytes:
        try:
            with _explained(self.uri(named.hash), may_be_missing=True):
                data = bytes(self._get(_value_name(named)).bytes())
        except FileNotFoundError:
            return self._from_database(named)
        found = decompressed(data, named.size_bytes)
        if found is None or hash_of(found) != named.hash:
            raise self._damaged(named)
        return found

    def flaw_of(self, named: Reference) -> str | None:
        try:
            self.content(named)
        except CodecError as lost:
            return str(lost)
        return None

    def _from_database(self, named: Reference) -> bytes:
        if not super().has(named):
            raise self._missing(named)
        return b"".join(super().parts(named))

    # -- files ---------------------------------------------------------------------------------------------

    def keep_stream(self, stream: IO[bytes]) -> Reference:
        named = reference_of(stream)
        name = named.hash.hex()
        is_new = not self._holds(named)
        with _explained(self.uri(named.hash)):
            if is_new:
                stream.seek(0)
                self._put(name, _unchanged(named, stream))
            self._settle(name, is_new=is_new)
        return named

    def _holds(self, named: Reference) -> bool:
        """Whether the file is there already. What lies in a bucket is not read: that may cost money."""
        is_there = self._size_of(named.hash.hex()) == named.size_bytes
        return is_there and (self._folder is None or super().flaw_of(named) is None)

    def has(self, named: Reference) -> bool:
        return self._size_of(named.hash.hex()) is not None or super().has(named)

    def parts(self, named: Reference) -> Iterator[bytes]:
        digest = blake2b(digest_size=HASH_BYTES)
        uri = self.uri(named.hash)
        try:
            with _explained(uri, may_be_missing=True):
                found = self._get(named.hash.hex()).stream(min_chunk_size=PART_BYTES)
        except FileNotFoundError:
            if not super().has(named):
                raise self._missing(named) from None
            yield from super().parts(named)
            return
        pieces = iter(found)
        while True:
            with _explained(uri):
                piece = next(pieces, None)
            if piece is None:
                break
            digest.update(piece)
            yield bytes(piece)
        if digest.digest() != named.hash:
            raise self._damaged(named)

    # -- objects -------------------------------------------------------------------------------------------

    def _size_of(self, name: str) -> int | None:
        try:
            with _explained(f"{self.url}/{name}", may_be_missing=True):
                return int(self._api.head(self._objects, name)["size"])
        except FileNotFoundError:
            return None

    def _get(self, name: str) -> Any:
        return self._api.get(self._objects, name)

    def _put(self, name: str, content: bytes | Iterator[bytes]) -> None:
        if isinstance(content, bytes):
            self._api.put(self._objects, name, content)
        else:
            self._api.put(self._objects, name, content, chunk_size=_UPLOADED_BYTES, max_concurrency=_UPLOADS)

    def _settle(self, name: str, *, is_new: bool) -> None:
        """The row that will name it survives the loss of power; so must this. Who put what is there already may have
        been killed before it had come to this."""
        if self._folder is None:
            return
        try:
            _sync(self._folder / name)
            _sync(self._folder)
        except OSError:
            if is_new:  # asked once more, the system would say that all is well
                (self._folder / name).unlink(missing_ok=True)
            raise
        for folder in () if self._reached else self._folder.parents:
            with suppress(PermissionError):  # another's, who has made it
                _sync(folder)
        self._reached = True


@contextmanager
def _explained(uri: str, *, may_be_missing: bool = False) -> Iterator[None]:
    """Raises ``StoreError`` in the place of obstore's errors; ``FileNotFoundError`` only where the caller asks."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        if may_be_missing and isinstance(error, FileNotFoundError):
            raise
        raise StoreError(f"{uri}: {str(error).partition(chr(10))[0]}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _value_name(named: Reference) -> str:
    return f"{named.hash.hex()}.zst"


def _unchanged(named: Reference, stream: IO[bytes]) -> Iterator[bytes]:
    """The content of a stream; it ends with an error, and nothing is put, if that is not what its name says."""
    digest = blake2b(digest_size=HASH_BYTES)
    for part in parts_of(stream):
        digest.update(part)
        yield part
    if digest.digest() != named.hash:
        raise ValueError("the file was changed while it was being read; make the Blob when nobody writes to it")
