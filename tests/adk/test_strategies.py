"""A bounded part of ``python -m tests.torture --only matrix``: strategies for sessions, with agents of each kind."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adk_lives import Host
from adk_matrix import IN_MEMORY, KILLED, KINDS, Matrix

# Of agents that ADK 2 would rather have as graphs, and in the client library.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SEED = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.fixture
def matrix(host: Host, tmp_path: Path, new_schema: Callable[..., str]) -> Iterator[Matrix]:
    pytest.importorskip("agentplatform", reason="the client library of Vertex AI: pip install -e '.[dev]'")
    from adk_vertex import VertexServer

    print(f"HOLDFAST_SEED={SEED} draws the same again; of a failure, python -m tests.torture --replay 'matrix CASE'")
    with VertexServer() as vertex:
        yield Matrix(host, tmp_path, new_schema, vertex.url)


def test_sessions_in_memory(matrix: Matrix) -> None:
    """Every kind, ended at a point drawn from the seed."""
    chance = random.Random(f"{SEED} memory")
    wrong = [
        each
        for strategy, kind in itertools.product(IN_MEMORY, KINDS)
        for each in matrix.case(strategy, kind, chance.randint(1, matrix.points(kind)))
    ]
    assert wrong == []


@pytest.mark.crash
def test_sessions_that_outlive_a_process(matrix: Matrix) -> None:
    """One kind for each strategy, and a point of it, drawn from the seed."""
    chance = random.Random(f"{SEED} killed")
    kinds = chance.sample(KINDS, len(KILLED))
    wrong = [
        each
        for strategy, kind in zip(KILLED, kinds, strict=True)
        for each in matrix.case(strategy, kind, chance.randint(1, matrix.points(kind)))
    ]
    assert wrong == []
