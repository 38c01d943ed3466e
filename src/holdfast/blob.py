"""``holdfast.Blob``: bytes that are too many for memory, handed from step to step as a reference."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias

from . import codec
from .blobs import PART_BYTES, Blobs, Reference, holder_of, nearest, reference_of
from .branches import current_frame
from .errors import CodecError

Source: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]


class Blob:
    """A file, or any bytes, kept beside the rows of a run. It may be an argument or a result of a step, alone or inside
    of other values, and stand in the state: what is recorded is its hash and its size.

    What is read of it is compared with that hash before anything is given out. All methods block: on an event loop call
    them by ``await asyncio.to_thread(blob.save, path)``.
    """

    __slots__ = ("_blobs", "_named", "_source")

    def __init__(self, named: Reference, blobs: Blobs | None = None, source: Source | None = None) -> None:
        self._named = named
        self._blobs = blobs
        self._source = source  # of one made outside of a run, which nothing keeps

    @classmethod
    def of(cls, content: Source) -> Blob:
        """The content of a file (by its path), of bytes, or of a binary stream from where it stands to its end. It is
        stored before this returns; the same content only once. Outside of a run nothing is stored, and the file must
        stay. Raises ``OSError``, ``StoreError``, and ``ValueError`` for a file that changes while it is read, or is
        bigger than 48 GiB."""
        frame = current_frame()
        blobs = None if frame is None else frame.run.home._blobs
        if not isinstance(content, (str, os.PathLike, bytes)):
            # Its hash has to be known before it is written, and a stream may be one that can be read only once.
            spooled = tempfile.TemporaryFile()  # noqa: SIM115  (gone with the last who holds it)
            shutil.copyfileobj(content, spooled, PART_BYTES)
            content = spooled
        with _reading(content) as stream:
            if blobs is None:
                return cls(reference_of(stream), source=content)
            return cls(blobs.keep_stream(stream), blobs)

    @property
    def size_bytes(self) -> int:
        return self._named.size_bytes

    @property
    def uri(self) -> str:
        """Where it is kept. Equal content has an equal one, in one store."""
        if self._source is not None:
            return f"blob:{self._named.hash.hex()}"
        return self._held().uri(self._named.hash)

    def open(self) -> BinaryIO:
        """Its content as a file of one's own to read and seek in, which is gone when it is closed. Raises
        ``CodecError``, naming the uri, if it is missing or damaged; ``StoreError``."""
        copied = tempfile.TemporaryFile()  # noqa: SIM115  (whoever opens it closes it)
        try:
            self._copy_to(copied)
            copied.seek(0)
        except BaseException:
            copied.close()
            raise
        return copied

    def read(self) -> bytes:
        """Its whole content, in memory. Raises as ``open`` does."""
        copied = BytesIO()
        self._copy_to(copied)
        return copied.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write its content to a file, in the place of what is there. The file is there whole or not at all, and for
        its owner alone (mode 0600). Raises as ``open`` does, and ``OSError``."""
        target = Path(path)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as copied:
                self._copy_to(copied)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _copy_to(self, target: IO[bytes]) -> None:
        if self._source is not None:
            with _reading(self._source) as stream:
                shutil.copyfileobj(stream, target, PART_BYTES)
        else:
            for part in self._held().parts(self._named):
                target.write(part)

    def _held(self) -> Blobs:
        if self._blobs is None:
            self._blobs = holder_of(self._named)
        return self._blobs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and other._named == self._named

    def __hash__(self) -> int:
        return hash(self._named)

    def __repr__(self) -> str:
        return f"<Blob {self._named.hash.hex()[:12]}… of {self.size_bytes:,} bytes>"

    def __copy__(self) -> Blob:
        return self  # nothing of it changes

    def __deepcopy__(self, memo: object) -> Blob:
        return self

    def _plain(self) -> list[Any]:
        if self._source is not None:
            raise CodecError("is a Blob made outside of a run, which no store keeps; make it in a step, Blob.of(path)")
        return list(self._named)


@contextmanager
def _reading(content: Source) -> Iterator[IO[bytes]]:
    """Its bytes from the first one."""
    if isinstance(content, bytes):
        yield BytesIO(content)
    elif isinstance(content, (str, os.PathLike)):
        with Path(content).open("rb") as stream:
            yield stream
    else:
        content.seek(0)
        yield content


def _restored(kept: Any) -> Blob:
    frame = current_frame()
    return Blob(Reference(bytes(kept[0]), int(kept[1])), nearest() if frame is None else frame.run.home._blobs)


codec.know(Blob, Blob._plain, _restored)
