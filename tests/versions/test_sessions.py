"""The explicit style under another schema version: brought along, begun anew, or refused; told by the next save."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import NotRecorded, VersionMismatch
from holdfast.store.damage import flaw_of_run
from holdfast.store.memory import MemoryStore


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    return str(tmp_path / "s.db")


def up(state: dict[str, Any], version: int) -> dict[str, Any]:
    """1 holds ``name``, 2 ``names``, 3 counts them too."""
    if version < 2:
        state["names"] = [state.pop("name")]
    state["count"] = len(state["names"])
    return state


async def saved(hf: holdfast.Holdfast, state: dict[str, Any], version: int | None) -> None:
    async with hf.session("s", schema_version=version) as session:
        session.state.update(state)
        await session.save()


@pytest.mark.parametrize("before", [None, 1])
def test_a_state_is_brought_along_and_the_next_save_says_so(url: str, before: int | None) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await saved(hf, {"name": "ada"}, before)
            seen: list[int] = []

            def migrate(state: dict[str, Any], version: int) -> dict[str, Any]:
                seen.append(version)
                return up(state, version)

            with pytest.warns(NotRecorded, match="not saved"):
                async with hf.session("s", schema_version=3, migrate=migrate) as session:
                    assert session.state == {"names": ["ada"], "count": 1}
            # nothing was saved, so nothing has changed
            async with hf.session("s", schema_version=before) as session:
                assert session.state == {"name": "ada"}
            async with hf.session("s", schema_version=3, migrate=migrate) as session:
                await session.save()
                session.state["names"].append("bob")
                await session.save()
            async with hf.session("s", schema_version=3, migrate=migrate) as session:
                assert session.state == {"names": ["ada", "bob"], "count": 1}
            assert seen == [before or 0] * 2
            row = hf._store.get("s")
            assert row is not None and flaw_of_run(row) is None and row.schema_version == 3
            assert [each.version for each in await hf.history("s")] == [str(before or ""), "3", "3"]
            with pytest.raises(VersionMismatch, match=r"saved with schema version 3, and this program says 1"):
                async with hf.session("s", schema_version=1):
                    pass

    asyncio.run(main())


def test_without_a_way_along_it_is_refused_and_nothing_changes(url: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await saved(hf, {"name": "ada"}, 1)
            for options in ({"schema_version": 2}, {"schema_version": 2, "on_change": "refuse"}, {}):
                with pytest.raises(VersionMismatch, match="saved with schema version 1"):
                    async with hf.session("s", **options):  # type: ignore[arg-type]
                        pass
            async with hf.session("s", schema_version=1) as session:
                assert session.state == {"name": "ada"}
            assert len(await hf.history("s")) == 1

    asyncio.run(main())


def test_begun_anew_what_was_saved_stays_in_history(url: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await saved(hf, {"name": "ada"}, 1)
            async with hf.session("s", {"names": []}, schema_version=2, on_change="restart") as session:
                assert session.state == {"names": []}
                await session.save()
            async with hf.session("s", {"names": ["other"]}, schema_version=2, on_change="restart") as session:
                assert session.state == {"names": []}
            old, new = await hf.history("s")
            assert (old.version, new.version) == ("1", "2")
            assert "ada" in str(old.delta)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("migrate", "told"),
    [
        (lambda state, version: state["nothing"], "failed on a state of schema version 1 with KeyError"),
        (lambda state, version: None, "must return the state"),
        (lambda state, version: {1: 2}, "must return the state"),
    ],
)
def test_a_migration_that_fails_changes_nothing(url: str, migrate: Any, told: str) -> None:
    async def main() -> None:
        async with holdfast.open(url) as hf:
            await saved(hf, {"name": "ada"}, 1)
            with pytest.raises(VersionMismatch, match=told):
                async with hf.session("s", schema_version=2, migrate=migrate):
                    pass
            async with hf.session("s", schema_version=1) as session:
                assert session.state == {"name": "ada"}

    asyncio.run(main())


def test_the_save_and_its_schema_version_are_one_transaction() -> None:
    store = MemoryStore()
    commit, sent = store.commit, []

    def noting(batch: Any) -> Any:
        sent.extend((row.kind, len(batch.revisions)) for row in batch.appends)
        return commit(batch)

    async def main() -> None:
        async with holdfast.app.Holdfast(store) as hf:
            await saved(hf, {"name": "ada"}, 1)
            store.commit = noting  # type: ignore[method-assign]
            async with hf.session("s", schema_version=3, migrate=up) as session:
                await session.save()

    asyncio.run(main())
    assert sent == [("save", 1)]
