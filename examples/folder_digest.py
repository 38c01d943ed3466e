"""A digest of a folder: words and a hash for every ``*.txt`` file in it and in the folders below, many at a time.

    python examples/folder_digest.py FOLDER

Ten files or ten thousand: each file is a step of its own, so a process that dies loses the few files it had in hand,
and the next one does only those that are missing.
"""

import asyncio
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import holdfast
from holdfast import step, workflow

AT_ONCE = 8


@dataclass
class Digest:
    path: str
    words: int
    sha256: str


# The list of files is a step too. Files come and go; a resumed run must go on with the list it began with, or the
# results would be those of two different folders.
@step
async def list_files(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*.txt"))


@step
async def digest_file(path: str) -> Digest:
    # Reading is blocking work: in a thread, it does not hold up the other files.
    data = await asyncio.to_thread(Path(path).read_bytes)
    await asyncio.sleep(0.02)  # stands for the work that would be worth remembering
    print("digested", Path(path).name, flush=True)
    return Digest(path, len(data.split()), hashlib.sha256(data).hexdigest())


@workflow(version="1")
async def digest_folder(folder: str) -> dict[str, int | str]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(path: str) -> Digest:
        # asyncio's own means are fine in a workflow: holdfast repeats the order in which they let things happen.
        async with limit:
            return await digest_file(path)

    # gather gives the results in the order of the files, however they finished.
    digests = await asyncio.gather(*(one(path) for path in await list_files(folder)))
    whole = hashlib.sha256("".join(each.sha256 for each in digests).encode())
    return {"files": len(digests), "words": sum(each.words for each in digests), "sha256": whole.hexdigest()}


async def main(folder: str) -> None:
    async with holdfast.open("digest.db") as hf:
        # The folder is part of the id: another folder is another run.
        result = await hf.run(digest_folder(folder), id=f"digest-{folder}")
        print(f"{result['files']} files, {result['words']} words, {result['sha256']}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    asyncio.run(main(str(Path(sys.argv[1]).resolve())))
