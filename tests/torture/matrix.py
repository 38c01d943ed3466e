"""Agents of ADK under every strategy for their sessions, of every kind, ended at every point, in an order drawn from
the seed: one point of each strategy and kind in any case, all of them if there is time.

With credentials, and ``HOLDFAST_TEST_AGENT_ENGINE`` (projects/…/locations/…/reasoningEngines/…), Vertex AI is the real
one."""

from __future__ import annotations

import itertools
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

from holdfast.testing.crash import fast_folder

from . import grounds
from .case import Findings

sys.path.append(str(Path(__file__).resolve().parents[1] / "adk"))

from adk_lives import Host
from adk_matrix import IN_MEMORY, KILLED, KINDS, Matrix, cases


def run(seed: int, until: float, only: str | None = None) -> Findings:
    """``only``: a case as its failure names it, such as ``vertex, rounds, point 7``."""
    from adk_vertex import VertexServer

    logging.getLogger("google_adk").setLevel(logging.ERROR)
    began, findings = time.monotonic(), Findings()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-matrix-", dir=fast_folder()))
    numbers = itertools.count()
    try:
        with grounds.one_server() as server, VertexServer() as vertex, Host("sqlalchemy", "adk_vertex") as host:
            matrix = Matrix(host, folder, lambda: f"{server.url}?schema=m{next(numbers)}", vertex.url)
            for done, (strategy, kind, at) in enumerate([_named(only)] if only else cases(seed, matrix.points)):
                if done >= len(IN_MEMORY + KILLED) * len(KINDS) and time.monotonic() > until:
                    break
                findings.cases += 1
                findings.injected["tasks cancelled" if strategy in IN_MEMORY else "kills"] += 1
                if wrong := matrix.case(strategy, kind, at):
                    findings.wrong.append("\n".join([f"matrix {strategy}, {kind}, point {at}", *wrong]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    findings.seconds = time.monotonic() - began
    return findings


def _named(case: str) -> tuple[str, str, int]:
    strategy, kind, at = case.split(", ")
    return strategy, kind, int(at.removeprefix("point "))
