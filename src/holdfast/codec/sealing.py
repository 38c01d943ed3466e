"""A checksum inside the bytes themselves, for columns that SQL changes in place: nobody else could keep it right."""

from __future__ import annotations

from zlib import crc32

from holdfast.codec.format import ENCODE
from holdfast.errors import CodecError

_SIZE = 4  # bytes


def seal(data: bytes, *numbers: int) -> bytes:
    """``data`` and a checksum of it and of ``numbers``, which are kept beside it."""
    return data + crc32(data, crc32(ENCODE(numbers))).to_bytes(_SIZE, "big")


def unseal(sealed: bytes, where: str, *numbers: int) -> bytes:
    """What was sealed. Raises ``CodecError`` if it is not as it was, or is not beside these numbers."""
    if not isinstance(sealed, bytes) or seal(sealed[:-_SIZE], *numbers) != sealed:
        raise CodecError(f"{where} cannot be read: its checksum does not match its content. It is kept as it is.")
    return sealed[:-_SIZE]
