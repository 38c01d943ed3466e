"""What a store raises where it cannot write a row, while it can write others."""

from __future__ import annotations

from holdfast.errors import StoreError


class Refused(StoreError):
    """What was asked for was refused for a row in it, while others can be written. ``for_good``: so it will be the
    next time."""

    def __init__(self, message: str, *, for_good: bool = True) -> None:
        self.for_good = for_good
        super().__init__(message)
