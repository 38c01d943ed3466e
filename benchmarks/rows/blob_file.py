"""A file that is too much for memory: into a folder of blobs and out of it again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from measure import Figure, Result, figure, ratios, rounded

TITLE = "A big file through a `Blob`"
FLOOR = (
    "A step makes a `Blob` of a file in a folder (`blobs=` a `file://` URL), another one saves it to a file, in a "
    "process of their own. The floor copies the file twice, hashing what it reads with the same hash (BLAKE2b) and "
    "fsyncing the first copy, as the folder of blobs does. Speed is the floor's time over ours, in turns. Memory is "
    "the peak of the whole process, by the kernel (`VmHWM`)."
)
HELD_BY = (
    "What holds it: the name of what is stored is its hash, so the file is read and hashed once before it is copied, "
    "and hashed again while it is."
)

MB = 1_000_000
SIZE, QUICK = 1_000 * MB, 100 * MB

OURS = """
import asyncio, sys, time
import holdfast
from holdfast import Blob, step, workflow
@step
async def make(path: str) -> Blob:
    return await asyncio.to_thread(Blob.of, path)
@step
async def save(blob: Blob, path: str) -> None:
    await asyncio.to_thread(blob.save, path)
@workflow(version="1")
async def job(source: str, target: str) -> None:
    await save(await make(source), target)
async def main(folder, source):
    async with holdfast.open(f"{folder}/holdfast.db", blobs=f"file://{folder}/kept") as hf:
        began = time.perf_counter()
        await hf.run(job(source, f"{folder}/copy"), id="a")
        print(time.perf_counter() - began)
asyncio.run(main(*sys.argv[1:]))
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
"""
COPIED = """
import os, sys, time
from _blake2 import blake2b
def copied(source, target, durable):
    digest = blake2b(digest_size=32)
    with open(source, "rb") as read, open(target, "wb") as written:
        while part := read.read(1 << 20):
            digest.update(part)
            written.write(part)
        if durable:
            written.flush()
            os.fsync(written.fileno())
folder, source = sys.argv[1:]
began = time.perf_counter()
copied(source, f"{folder}/kept", True)
copied(f"{folder}/kept", f"{folder}/copy", False)
print(time.perf_counter() - began)
print(0)
"""


def measure(folder: Path, quick: bool) -> Result:
    source, size = folder / "source", QUICK if quick else SIZE
    with source.open("wb") as file:
        for _ in range(size // MB):
            file.write(os.urandom(MB))
    floor, ours, memory = [], [], []
    for turn in range(2 if quick else 3):
        floor.append(_run(COPIED, folder / f"floor{turn}", source)[0])
        seconds, peak = _run(OURS, folder / f"ours{turn}", source)
        ours.append(seconds)
        memory.append(peak / MB)
    return Result(
        [
            figure("speed ÷ copying and hashing", ratios(floor, ours), "×", 0.5, at_least=True),
            figure("peak memory of the process", memory, "MB", 64),
            Figure("the file", size / MB, "MB"),
        ],
        {"holdfast_s": rounded(ours), "floor_s": rounded(floor), "memory_mb": rounded(memory)},
    )


def _run(program: str, folder: Path, source: Path) -> tuple[float, float]:
    folder.mkdir()
    os.sync()  # what the one before has left to the disk is no work of this one
    time.sleep(0.5)
    command = [sys.executable, "-c", program, str(folder), str(source)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return float(seconds), float(peak)
