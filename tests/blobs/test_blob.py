"""``holdfast.Blob``: what is too much for memory goes from step to step as a reference."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from peaks import PEAK

import holdfast
from holdfast import Blob, CodecError, Holdfast, step, workflow
from holdfast.blobs import PART_BYTES, Blobs, hashes_in
from holdfast.store import Checkpoint
from holdfast.store.memory import MemoryStore

CONTENT = b"".join(n.to_bytes(4, "big") for n in range(PART_BYTES // 2))  # two parts, and no two words are equal

executed: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    executed.clear()


class Crash(BaseException):
    """Ends a run where it stands."""


@dataclass
class Page:
    name: str
    scan: Blob


@step
async def scan(path: str) -> Page:
    executed.append("scan")
    return Page("first", await asyncio.to_thread(Blob.of, path))


@step
async def measure(pages: list[Page]) -> int:
    executed.append("measure")
    with pages[0].scan.open() as stream:
        stream.seek(-4, io.SEEK_END)
        return int.from_bytes(stream.read(), "big")


@step
async def last() -> None:
    executed.append("last")
    if executed.count("last") == 1:
        raise Crash


@workflow(version="1")
async def read(path: str) -> tuple[int, Blob]:
    page = await scan(path)
    holdfast.state["scan"] = page.scan
    found = await measure([page])
    await last()
    return found, page.scan


def in_store(store: Path | Holdfast, work: Callable[[Holdfast], Any]) -> Any:
    async def main() -> Any:
        async with store if isinstance(store, Holdfast) else holdfast.open(store) as hf:
            return await work(hf)

    return asyncio.run(main())


def test_a_file_goes_through_a_workflow_as_a_reference(tmp_path: Path) -> None:
    path, file = tmp_path / "a.db", tmp_path / "scan.tiff"
    file.write_bytes(CONTENT)
    with contextlib.suppress(Crash):
        in_store(path, lambda hf: hf.run(read(str(file)), id="a"))
    file.unlink()

    async def resumed(hf: Holdfast) -> None:
        found, blob = await hf.run(read(str(file)), id="a")
        assert (found, blob.size_bytes) == (PART_BYTES // 2 - 1, len(CONTENT))
        assert executed == ["scan", "measure", "last", "last"]
        assert blob.read() == CONTENT and blob.uri.startswith(f"sqlite:///{path}#blob=")
        blob.save(tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == CONTENT
        row = hf._store.get("a")
        assert row is not None
        rows = hf._store.load(row.no)
        assert all(len(each.result or b"") < 200 for each in rows)
        assert hashes_of(rows) == {blob._named.hash}
        assert "<blob " in str((await hf.history("a"))[0].result)

    in_store(path, resumed)


def hashes_of(rows: list[Checkpoint]) -> set[bytes]:
    return {row.blobs[at : at + 32] for row in rows if row.blobs for at in range(0, len(row.blobs), 32)}


@pytest.mark.parametrize("kind", ["path", "bytes", "stream", "pipe"])
def test_of_what_it_is_made(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)

    def made() -> Blob:
        if kind == "path":
            return Blob.of(file)
        if kind == "bytes":
            return Blob.of(CONTENT)
        if kind == "stream":
            return Blob.of(io.BytesIO(CONTENT))
        out, into = os.pipe()
        with os.fdopen(into, "wb", 0) as pipe:
            pipe.write(CONTENT[:1000])
        with os.fdopen(out, "rb", 0) as pipe:
            return Blob.of(pipe)

    @step
    async def make() -> Blob:
        return made()

    @workflow(version="1")
    async def job() -> Blob:
        return await make()

    expected = CONTENT[:1000] if kind == "pipe" else CONTENT
    store = MemoryStore()
    hf = Holdfast(store)
    kept = in_store(hf, lambda hf: hf.run(job(), id="a"))
    plain = made()  # outside of a run it is what it was made of
    assert kept == plain == deepcopy(kept) and len({kept, plain}) == 1
    assert kept.read() == plain.read() == plain.read() == expected
    with plain.open() as stream:
        assert stream.read(3) == expected[:3]
    assert kept.uri.endswith(kept._named.hash.hex()) and plain.uri.startswith("blob:")


def test_one_that_nothing_keeps_does_not_enter_a_run() -> None:
    hf = Holdfast(MemoryStore())

    @workflow(version="1")
    async def job(blob: Blob) -> int:
        return blob.size_bytes

    with pytest.raises(CodecError, match=r"blob is a Blob made outside of a run.*make it in a step"):
        in_store(hf, lambda hf: hf.run(job(Blob.of(b"x")), id="a"))


def test_an_empty_one() -> None:
    @step
    async def make() -> Blob:
        return Blob.of(b"")

    @workflow(version="1")
    async def job() -> Blob:
        return await make()

    hf = Holdfast(MemoryStore())
    assert in_store(hf, lambda hf: hf.run(job(), id="a")).read() == b""


def test_what_is_damaged_is_not_given_out(tmp_path: Path) -> None:
    store = MemoryStore()
    hf = Holdfast(store)

    @step
    async def make() -> Blob:
        return Blob.of(CONTENT)

    @workflow(version="1")
    async def job() -> Blob:
        return await make()

    blob = in_store(hf, lambda hf: hf.run(job(), id="a"))
    (tmp_path / "copy").write_text("before")
    store.put_blob(blob._named.hash, [store.blob_part(blob._named.hash, 0) or b""], first=1, size_bytes=len(CONTENT))
    for use in (blob.read, blob.open, lambda: blob.save(tmp_path / "copy")):
        with pytest.raises(CodecError, match=rf"#blob={blob._named.hash.hex()}.*changed or damaged"):
            use()
    assert (tmp_path / "copy").read_text() == "before" and list(tmp_path.iterdir()) == [tmp_path / "copy"]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    class Changing(io.BytesIO):
        def seek(self, *args: int) -> int:
            with self.getbuffer() as held:
                held[-1] = (held[-1] + 1) % 256
            return super().seek(*args)

    store = MemoryStore()
    with pytest.raises(ValueError, match="changed while it was being read"):
        Holdfast(store)._blobs.keep_stream(Changing(CONTENT))
    assert not store._data.blobs, "what is not whole does not count as kept"


def test_every_blob_that_a_value_names_is_found() -> None:
    store = Holdfast(MemoryStore())._blobs
    named = [store.keep(bytes([n])) for n in range(3)]
    blobs = [Blob(each) for each in named]
    data = holdfast.codec.encode({"a": blobs[:2], "b": (blobs[2], blobs[0])}, holdfast.codec.Types.none, "it")
    assert hashes_in(None, data) == b"".join(each.hash for each in named)
    assert hashes_in(data, known=named[2].hash) == b"".join(named[n].hash for n in (2, 0, 1))
    assert hashes_in(b"\x93\x01\x02\x03", None) is None


def test_what_only_looks_like_a_hash_hides_none() -> None:
    blobs = Blobs(MemoryStore())
    named = blobs.keep(b"x")
    for cut in range(4, 34):  # bytes that look like the beginning of a reference, before one
        data = b"\x19\x92\xc4\x20" + bytes(cut - 4) + named.encode()
        assert named.hash in (hashes_in(data) or b"")


def test_a_big_result_of_blobs_names_them_all() -> None:
    @step
    async def make() -> tuple[str, Blob]:
        return "x" * 100_000, Blob.of(CONTENT)

    @workflow(version="1")
    async def job() -> Blob:
        return (await make())[1]

    async def look(hf: Holdfast) -> None:
        blob = await hf.run(job(), id="a")
        row = hf._store.get("a")
        assert row is not None
        named = hashes_of(hf._store.load(row.no))
        assert len(named) == 2 and blob._named.hash in named

    in_store(Holdfast(MemoryStore()), look)


def test_it_is_read_from_the_store_it_came_from() -> None:
    content = b"in no other store that a test has opened"

    @step
    async def make() -> Blob:
        return Blob.of(content)

    @workflow(version="1")
    async def job() -> Blob:
        return await make()

    async def look(hf: Holdfast) -> None:
        for blob in (await hf.run(job(), id="a"), await hf.run(job(), id="a"), (await hf.get("a")).result):
            assert blob._held() is hf._blobs

    both = [Holdfast(MemoryStore()) for _ in range(2)]
    for hf in both:
        in_store(hf, look)
    named = Blob.of(content)._named
    assert Blob(named).read() == content, "one that came from nowhere is looked for in all"
    with pytest.raises(CodecError, match="not to be found"):
        Blob(Blob.of(b"nowhere")._named).read()


def test_what_is_too_big(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("holdfast.executing.RESULT_MAX_BYTES", 1000)
    monkeypatch.setattr("holdfast.blobs.BLOB_MAX_BYTES", 1000)

    @step
    async def make(size: int) -> str:
        return "x" * size

    @step
    async def keep(size: int) -> Blob:
        return Blob.of(b"x" * size)

    @workflow(version="1")
    async def job(size: int) -> int:
        return len(await make(size)) + (await keep(size)).size_bytes

    hf = Holdfast(MemoryStore())
    assert in_store(hf, lambda hf: hf.run(job(400), id="small")) == 800 and "at most" not in caplog.text
    hf = Holdfast(MemoryStore())
    assert in_store(hf, lambda hf: hf.run(job(600), id="half")) == 1200
    told = [record.getMessage() for record in caplog.records if "at most 1000" in record.getMessage()]
    assert len(told) == 2 and "holdfast.Blob" in told[0] and "split" in told[1]
    hf = Holdfast(MemoryStore())
    with pytest.raises(CodecError, match=r"make' has 1,2\d\d bytes, and at most 1,000 .* holdfast.Blob"):
        in_store(hf, lambda hf: hf.run(job(1200), id="big"))
    with pytest.raises(ValueError, match="at most 1,000 bytes, and this one has 1,200: split"):
        Blob.of(b"x" * 1200)


def test_memory_does_not_grow_with_it(tmp_path: Path) -> None:
    program = PEAK + textwrap.dedent("""
        import asyncio, sys
        import holdfast
        from holdfast import Blob, step, workflow

        @step
        async def make(path: str) -> Blob:
            return await asyncio.to_thread(Blob.of, path)

        @step
        async def copy(blob: Blob, path: str) -> None:
            await asyncio.to_thread(blob.save, path)

        @workflow(version="1")
        async def job(path: str) -> None:
            await copy(await make(path), path + ".copy")

        async def main():
            async with holdfast.open(sys.argv[1]) as hf:
                await hf.run(job(sys.argv[2]), id="small")
                before = peak()
                await hf.run(job(sys.argv[3]), id="big")
                print(peak() - before)
        asyncio.run(main())
    """)
    small, big = tmp_path / "small", tmp_path / "big"
    small.write_bytes(CONTENT)
    with big.open("wb") as file:
        for n in range(64):
            file.write(n.to_bytes(4, "big") * (PART_BYTES // 4))
    command = [sys.executable, "-c", program, tmp_path / "a.db", small, big]
    grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(grown) < 24_000, "KB; the file has 65,536"
    assert big.read_bytes() == Path(f"{big}.copy").read_bytes()
