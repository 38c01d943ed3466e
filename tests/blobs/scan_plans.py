"""A workflow whose code, once it is deployed, keeps a ``Blob`` on its way, for a plan to import."""

from __future__ import annotations

from holdfast import Blob, step, workflow

is_deployed = False


@step
async def last() -> None:
    raise ConnectionError("not yet")


@workflow(version="1")
async def scans() -> None:
    if is_deployed:
        Blob.of(b"scan")
    await last()
