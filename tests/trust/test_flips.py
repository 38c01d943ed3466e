"""A bit of a store is flipped, for every column of every table; everything that reads it says so, or is right."""

from __future__ import annotations

import os
import random
import re

import pytest
from tests.torture.flips import HARMLESS, TABLES, Scene, is_damage, sampled, told_of

from holdfast.errors import StoreError

SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))

VALUE = r"text of [^'\"]*"
ADVICE = r"is damaged: keep it|does not have the tables|is not a SQLite|is not the one"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("flips"))


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_a_flipped_bit_is_found_or_does_no_harm(scene: Scene, table: str) -> None:
    print(f"HOLDFAST_SEED={SEED} draws the same again")
    flips = sampled([flip for flip in scene.flips() if flip.table == table], SEED, 2)
    wrong = [each for flip in flips for each in scene.wrong_with(flip)]
    assert not wrong, "\n\n".join(wrong[:3])


_SIGN = 63  # a row whose number it is set in stands before all others


@pytest.mark.parametrize(
    ("place", "bit"),
    [
        (("checkpoint", "usd"), 1),
        (("run", "deaths"), 1),
        (("run", "epoch"), 1),
        (("claim", "epoch"), 1),
        (("checkpoint", "seq"), _SIGN),
        (("signal", "n"), _SIGN),
    ],
)
def test_what_nothing_but_a_look_at_the_whole_finds(scene: Scene, place: tuple[str, str], bit: int) -> None:
    for flip in [flip for flip in scene.flips() if flip.place == place and flip.bit == bit]:
        assert scene.wrong_with(flip) == []


def test_the_scene_has_something_in_every_column(scene: Scene) -> None:
    places = {flip.place for flip in scene.flips()}
    assert places >= HARMLESS.keys() - {("claim", "doing")}, HARMLESS.keys() - places


def test_a_flipped_byte_of_the_file_is_told_of_and_never_becomes_a_value(scene: Scene) -> None:
    """Pages, indices and the schema too. What a lost entry of an index hides is docs/design/trust.md's to tell."""
    print(f"HOLDFAST_SEED={SEED} draws the same again")
    scene.restore()
    whole, draw = scene.path.read_bytes(), random.Random(SEED)
    values = set(re.findall(VALUE, " ".join(scene.told.values())))
    places = [at for at, byte in enumerate(whole) if byte]
    for at in draw.sample(places, 40):
        data = bytearray(whole)
        data[at] ^= 1 << draw.randrange(8)
        scene.restore()
        scene.path.write_bytes(data)
        try:
            told = told_of(scene.path)
        except StoreError as error:
            assert re.search(r"is damaged: keep it|does not have the tables|not a SQLite|is not the one", str(error)), (
                error
            )
            continue
        if not any(map(is_damage, told.values())):
            assert set(re.findall(VALUE, " ".join(told.values()))) <= values, f"byte {at}"
