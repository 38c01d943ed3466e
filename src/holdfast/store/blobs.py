"""Values too big for a row, in the store: parts of bytes under the hash of what they are the parts of.

What a part holds, and whether parts add up to what their hash says, is the business of who writes and reads them
(``holdfast.blobs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BlobRows(Protocol):
    """Blocking, and called from any thread."""

    def renew_blob(self, hash: bytes) -> bool:
        """Whether this blob was put to its end. If so it counts as written now: somebody is about to name it."""
        ...

    def put_blob(self, hash: bytes, parts: Sequence[bytes], *, first: int = 0, size_bytes: int | None) -> None:
        """Write the parts numbered from ``first``, over what stands there, in one transaction. With ``size_bytes``,
        that of the whole content, they are the last."""
        ...

    def blob_part(self, hash: bytes, n: int) -> bytes | None: ...
