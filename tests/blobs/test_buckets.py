"""Big values in a folder, or in a bucket of a real S3 server: its own process, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import apsw
import obstore
import pytest
import scan_plans
from obstore.store import from_url
from peaks import PEAK
from tests.servers.s3 import make_bucket, s3_server

import holdfast
from holdfast import Blob, CodecError, Holdfast, StoreError, buckets, step, workflow
from holdfast.blobs import PART_BYTES, Reference
from holdfast.buckets import Bucket
from holdfast.cli import _main
from holdfast.store.memory import MemoryStore

CONTENT = b"".join(n.to_bytes(4, "big") for n in range(3 * PART_BYTES))  # 12 MiB: more than one piece of an upload
VALUE = "text " * 30_000

executed: list[str] = []


@step
async def scan(path: str) -> Blob:
    executed.append("scan")
    return await asyncio.to_thread(Blob.of, path)


@step
async def words(blob: Blob) -> str:
    executed.append("words")
    with await asyncio.to_thread(blob.open) as stream:
        assert stream.read() == CONTENT
    return VALUE


@step
async def last() -> None:
    executed.append("last")
    if executed.count("last") == 1:
        raise ConnectionError("not yet")


@workflow(version="1")
async def read(path: str) -> tuple[int, Blob]:
    blob = await scan(path)
    text = await words(blob)
    await last()
    return len(text), blob


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a server that the environment names."""
    environment = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "open sesame",
    }
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    executed.clear()
    return server


@pytest.fixture(params=["file", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    executed.clear()
    if request.param == "file":
        return f"file://{tmp_path}/made/when%20needed"
    name = f"b{uuid.uuid4().hex}"
    make_bucket(request.getfixturevalue("s3"), name)
    return f"s3://{name}/blobs"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "scan.tiff"
    path.write_bytes(CONTENT)
    return str(path)


def in_store(path: Path, bucket: str | None, work: Callable[[Holdfast], Any]) -> Any:
    async def main() -> Any:
        async with holdfast.open(path, blobs=bucket) as hf:
            return await work(hf)

    return asyncio.run(main())


def begun(path: Path, bucket: str | None, file: str) -> None:
    with pytest.raises(holdfast.StepFailed, match="not yet"):
        in_store(path, bucket, lambda hf: hf.run(read(file), id="a"))


def objects(bucket: str) -> dict[str, int]:
    return {each["path"]: each["size"] for part in obstore.list(from_url(bucket)) for each in part}


def test_a_run_keeps_what_is_big_there(tmp_path: Path, bucket: str, file: str) -> None:
    path = tmp_path / "a.db"
    begun(path, bucket, file)
    Path(file).unlink()
    kept = objects(bucket)
    assert len(kept) == 2 and path.stat().st_size < 500_000

    async def resumed(hf: Holdfast) -> str:
        found, blob = await hf.run(read(file), id="a")
        assert (found, executed) == (len(VALUE), ["scan", "words", "last", "last"])
        assert (await hf.history("a"))[1].result == VALUE
        assert await asyncio.to_thread(blob.read) == CONTENT
        assert blob.uri == f"{bucket}/{blob._named.hash.hex()}" and blob.uri.rpartition("/")[2] in kept
        return str(blob.uri)

    uri = in_store(path, bucket, resumed)
    as_others_read_it = obstore.get(from_url(uri.rpartition("/")[0]), uri.rpartition("/")[2]).bytes()
    assert bytes(as_others_read_it) == CONTENT, "a file lies there as it is"
    assert objects(bucket) == kept
    for secret in (b"open sesame", b"someone"):
        assert all(secret not in each.read_bytes() for each in tmp_path.glob("a.db*"))


def test_the_same_content_is_stored_once(tmp_path: Path, bucket: str, file: str) -> None:
    begun(tmp_path / "a.db", bucket, file)
    begun_first = objects(bucket)
    executed.clear()
    begun(tmp_path / "b.db", bucket, file)
    assert objects(bucket) == begun_first


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_lost_one_is_named_and_the_run_stays_resumable(tmp_path: Path, bucket: str, file: str, damage: str) -> None:
    path = tmp_path / "a.db"
    begun(path, bucket, file)
    store = from_url(bucket)
    (name,) = (name for name in objects(bucket) if name.endswith(".zst"))
    before = bytes(obstore.get(store, name).bytes())
    if damage == "missing":
        obstore.delete(store, name)
    else:
        obstore.put(store, name, before[:-9] + bytes(9))
    for _ in range(2):
        with pytest.raises(CodecError) as lost:
            in_store(path, bucket, lambda hf: hf.run(read(file), id="a"))
        told = "it is not there" if damage == "missing" else "changed or damaged"
        for each in ("run 'a', checkpoint 2 (words)", f"{bucket}/{name.removesuffix('.zst')}", told, "resolve a 2"):
            assert each in str(lost.value)
    assert executed == ["scan", "words", "last"]
    obstore.put(store, name, before)
    assert in_store(path, bucket, lambda hf: hf.run(read(file), id="a"))[0] == len(VALUE)
    assert executed == ["scan", "words", "last", "last"]


def test_a_damaged_file_is_not_given_out(tmp_path: Path, bucket: str, file: str) -> None:
    path = tmp_path / "a.db"
    begun(path, bucket, file)
    (name,) = (name for name in objects(bucket) if not name.endswith(".zst"))
    obstore.put(from_url(bucket), name, CONTENT[:-1] + b"\x00")

    async def look(hf: Holdfast) -> None:
        _, blob = await hf.run(read(file), id="a")
        with pytest.raises(CodecError, match=rf"{name}.*changed or damaged"):
            await asyncio.to_thread(blob.save, tmp_path / "copy")
        obstore.delete(from_url(bucket), name)
        with pytest.raises(CodecError, match=rf"{name}.*it is not there"):
            await asyncio.to_thread(blob.read)

    in_store(path, bucket, look)
    assert not (tmp_path / "copy").exists()


def test_what_was_in_the_database_before_is_found(tmp_path: Path, bucket: str, file: str) -> None:
    path = tmp_path / "a.db"
    begun(path, None, file)

    async def resumed(hf: Holdfast) -> None:
        found, blob = await hf.run(read(file), id="a")
        assert found == len(VALUE) and await asyncio.to_thread(blob.read) == CONTENT

    in_store(path, bucket, resumed)
    assert executed == ["scan", "words", "last", "last"]


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_stops_the_run(tmp_path: Path, file: str) -> None:
    @workflow(version="1")
    async def text() -> int:
        try:
            return len(await write())
        except Exception:
            return -1

    @step
    async def write() -> str:
        return VALUE

    path = tmp_path / "a.db"
    with pytest.raises(StoreError, match="s3://nobody-made-it/blobs/"):
        in_store(path, "s3://nobody-made-it/blobs", lambda hf: hf.run(text(), id="a"))
    assert in_store(path, None, lambda hf: hf.run(text(), id="a")) == len(VALUE)


NO_PLACES = [
    "ftp://x/y",
    "blobs",
    "s3://key:secret@bucket/x",
    "s3://:secret@bucket/x",
    "az://account/x#secret",
    "s3://",
    "file://host/x",
    "file:x",  # would be another folder wherever the program is started
    "file://",
    "file:///x#y",
]


@pytest.mark.parametrize("url", NO_PLACES)
def test_what_is_no_place_for_blobs(url: str) -> None:
    with pytest.raises(StoreError, match="blobs= names a folder or a bucket") as refused:
        holdfast.open("memory://", blobs=url)
    assert "secret" not in str(refused.value)


KEPT: list[Callable[[Bucket], Any]] = [
    lambda bucket: bucket.keep(CONTENT),
    lambda b: b.keep_stream(io.BytesIO(CONTENT)),
]


@pytest.mark.parametrize("keep", KEPT)
def test_what_another_put_in_a_folder_is_on_the_disk_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Callable[[Bucket], Any]
) -> None:
    folder, synced = tmp_path / "a" / "b", list[Path]()
    monkeypatch.setattr(buckets, "_sync", synced.append)
    for _ in range(2):  # the first may have been killed behind its last write
        synced.clear()
        keep(Bucket(MemoryStore(), f"file://{folder}"))
        (file,) = folder.iterdir()
        assert {file, folder, folder.parent, tmp_path} <= set(synced)


@pytest.mark.parametrize("keep", KEPT)
def test_what_a_disk_has_failed_to_take_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Callable[[Bucket], Any]
) -> None:
    bucket, put = Bucket(MemoryStore(), f"file://{tmp_path}/kept"), list[str]()
    written = bucket._put

    def noted(name: str, content: Any) -> None:
        put.append(name)
        written(name, content)

    monkeypatch.setattr(bucket, "_put", noted)
    with monkeypatch.context() as failing:
        failing.setattr(buckets, "_sync", lambda path: (path / "no folder").stat())
        with pytest.raises(StoreError, match=r"kept/[0-9a-f]{64}"):
            keep(bucket)
    keep(bucket)
    assert len(put) == 2, "a second fsync says nothing of what the first one lost"
    keep(bucket)
    assert len(put) == 2


def test_a_damaged_file_in_a_folder_is_mended_by_who_keeps_it_again(tmp_path: Path) -> None:
    bucket = Bucket(MemoryStore(), f"file://{tmp_path}/kept")
    named = bucket.keep_stream(io.BytesIO(CONTENT))
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(CONTENT[:-1] + b"x")
    assert bucket.keep_stream(io.BytesIO(CONTENT)) == named
    assert b"".join(bucket.parts(named)) == CONTENT


@pytest.mark.parametrize("url", ["gs://bucket/x", "az://account/container/x"])
def test_other_clouds_are_named_the_same_way(url: str) -> None:
    hf = holdfast.open("memory://", blobs=url)
    assert hf._blobs.uri(b"h" * 32) == f"{url}/{(b'h' * 32).hex()}"


def test_a_container_of_an_account_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has nothing, and notes what it is asked for."""
    asked: list[str] = []

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0])
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"key").decode())
        bucket = Bucket(MemoryStore(), "az://account/container/pre/fix")
        assert bucket.flaw_of(Reference(b"h" * 32, 5)) is not None
    finally:
        server.shutdown()
        server.server_close()
    assert asked and {path.rpartition("/")[0] for path in asked} == {"/container/pre/fix"}


def test_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    executed.clear()
    monkeypatch.setenv("HOLDFAST_BLOBS", f"file://{tmp_path}/kept")
    begun(tmp_path / "a.db", None, file)
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize("place", ["", "kept"])
def test_a_plan_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setenv("HOLDFAST_BLOBS", place and f"file://{tmp_path}/{place}")
    with pytest.raises(holdfast.StepFailed, match="not yet"):
        in_store(path, None, lambda hf: hf.run(scan_plans.scans(), id="a"))
    monkeypatch.setattr(scan_plans, "is_deployed", True)
    _main(["plan", "a", "--against", "scan_plans", "--store", str(path)])
    assert "the code would keep a big value" in " ".join(capsys.readouterr().out.split())
    db = apsw.Connection(str(path))
    assert db.execute("SELECT count(*) FROM blob").fetchall() == [(0,)]
    db.close()
    assert list(tmp_path.glob("kept/*")) == []


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    program = PEAK + textwrap.dedent("""
        import asyncio, sys
        import holdfast
        from holdfast import Blob, step, workflow

        @step
        async def make(path: str) -> Blob:
            return await asyncio.to_thread(Blob.of, path)

        @workflow(version="1")
        async def job(path: str) -> Blob:
            return await make(path)

        async def main():
            async with holdfast.open(sys.argv[1], blobs=sys.argv[2]) as hf:
                for path in sys.argv[3:]:
                    before = peak()
                    blob = await hf.run(job(path), id=path)
                    await asyncio.to_thread(blob.save, path + ".copy")
                print(peak() - before)
        asyncio.run(main())
    """)
    small, big = tmp_path / "small", tmp_path / "big"
    small.write_bytes(CONTENT)
    with big.open("wb") as out:
        for n in range(150):
            out.write(n.to_bytes(4, "big") * (PART_BYTES // 4))
    where = [tmp_path / "a.db", f"file://{tmp_path}/kept", small, big]
    grown = subprocess.run([sys.executable, "-c", program, *where], check=True, capture_output=True, text=True).stdout
    assert int(grown) < 48_000, "KB; the file has 153,600"
    assert big.stat().st_size == Path(f"{big}.copy").stat().st_size
