"""What an owner had in flight, as its run's row tells others."""

from __future__ import annotations

from typing import Any

import msgspec

from . import codec
from .errors import CodecError

Steps = list[tuple[str, str, int, int]]
"""Name, scope, when it began (ms) and the attempt, of each step that is named."""


def encode_doing(count: int, steps: list[list[Any]]) -> bytes:
    """Raises ``CodecError`` for a name that no text can hold."""
    return codec.seal(codec.encode([count, steps], codec.Types.none, "what is in flight"))


def decode_doing(doing: bytes | None) -> tuple[int, Steps]:
    """How many steps were in flight, and some of them; none where it cannot be read: it was no promise."""
    if not doing:
        return 0, []
    where = "what is in flight"
    try:
        held = codec.decode(codec.unseal(doing, where), codec.Types.none, where)
        return msgspec.convert(held, tuple[int, Steps])
    except (CodecError, msgspec.ValidationError):
        return 0, []
