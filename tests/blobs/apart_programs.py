"""A workflow whose steps return more than a row takes, for the crash sweep to import."""

from __future__ import annotations

import asyncio

from holdfast import step, workflow


@step
async def read(n: int, size: int) -> bytes:
    return bytes([n]) * size


@workflow(version="1")
async def reading(size: int) -> list[int]:
    first = await read(1, size)
    some = await asyncio.gather(*(read(n, size) for n in (2, 1)))
    return [len(first), *(part[0] for part in some)]
