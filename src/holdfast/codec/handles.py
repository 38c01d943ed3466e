"""Values that stand for something kept elsewhere: their class is of a layer above, and makes itself known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from holdfast.codec.format import BLOB
from holdfast.codec.reading import BUILD
from holdfast.codec.writing import TAG, Refused
from holdfast.errors import CodecError

T = TypeVar("T")


def know(cls: type[T], plain: Callable[[T], list[Any]], back: Callable[[Any], T]) -> None:
    """From now on a ``cls`` is written as what ``plain`` gives, which raises ``CodecError`` to refuse it."""

    def tag(_: object, value: T) -> tuple[int, Any]:
        try:
            return BLOB, plain(value)
        except CodecError as refused:
            raise Refused(str(refused)) from None

    TAG[cls] = tag
    BUILD[BLOB] = lambda _, kept: back(kept)
