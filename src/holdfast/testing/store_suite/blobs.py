"""The suite on blobs: parts come back under their hash, and a blob is whole when its last part was put."""

from __future__ import annotations

from holdfast.store import Store

from .rows import MakeStore, at_once, checkpoint, create
from .rows import append as append_rows

HASH = b"h" * 32


class Keeping:
    """Blobs."""

    def test_what_nobody_put_is_not_there(self, store: Store) -> None:
        assert store.blob_part(HASH, 0) is None
        assert not store.renew_blob(HASH)

    def test_parts_come_back(self, store: Store, make_store: MakeStore) -> None:
        parts = [b"\x00first", bytes(1_000_000)]
        store.put_blob(HASH, parts, size_bytes=None)
        assert not store.renew_blob(HASH), "its last part is not there yet"
        store.put_blob(HASH, [b""], first=2, size_bytes=1_000_006)
        assert store.renew_blob(HASH) and not store.renew_blob(b"other")
        found = [store.blob_part(HASH, n) for n in range(4)]
        assert found == [*parts, b"", None] and all(isinstance(each, bytes) for each in found[:3])

    def test_what_is_put_again_is_written_over(self, store: Store) -> None:
        store.put_blob(HASH, [b"damaged"], size_bytes=5)
        store.put_blob(HASH, [b"whole"], size_bytes=5)
        assert store.blob_part(HASH, 0) == b"whole" and store.renew_blob(HASH)

    def test_many_put_the_same(self, make_store: MakeStore) -> None:
        stores = [make_store() for _ in range(4)]
        at_once(4, lambda n: stores[n].put_blob(HASH, [b"a", b"b"], size_bytes=2))
        for store in stores:
            assert (store.renew_blob(HASH), store.blob_part(HASH, 1)) == (True, b"b")
            store.close()

    def test_a_row_says_what_it_names(self, store: Store) -> None:
        (run,) = create(store, "a")
        row = checkpoint(run.no, 1, blobs=HASH)
        assert row.checksum != checkpoint(run.no, 1).checksum
        assert append_rows(store, row) == set()
        assert store.load(run.no) == [row]
