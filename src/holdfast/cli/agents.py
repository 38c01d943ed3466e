"""``holdfast worker --adk MODULE:APP``: the app of Google ADK whose abandoned invocations a worker resumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.app import Holdfast
from holdfast.cli.finding import module_named
from holdfast.cli.problems import Problem

if TYPE_CHECKING:
    from google.adk.runners import Runner

    from holdfast.worker import Adapted


class Agents(NamedTuple):
    """``queue`` is the one that their invocations are in."""

    runner: Runner
    hf: Holdfast
    adapted: dict[str, Adapted]
    queue: str

    @contextmanager
    def opened(self) -> Iterator[Holdfast]:
        """The store is that of the app's plugin."""
        try:
            yield self.hf
        finally:
            self.hf.close()


def agents_named(target: str) -> Agents:
    """``loan:app`` or ``jobs/loan.py:runner``. Raises ``Problem``, ``HoldfastError``."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise Problem(f"{target!r} names no app. Write MODULE:APP, such as loan:app or jobs/loan.py:runner.")
    found: Any = module_named(where)  # first: it says best what is missing of Google ADK
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise Problem(f"there is no {name!r} in {where}. Name an App or a Runner of google.adk that stands there.")
    try:
        from holdfast.adapters.adk import serving
    except ImportError as missing:
        raise Problem(f"Google ADK is not installed: pip install 'holdfast[adk]' ({missing}).") from None
    try:
        runner, plugin = serving.runner_of(found)
    except TypeError as unfit:
        raise Problem(f"{target} is {unfit}. Name what holds the agents.") from None
    return Agents(runner, plugin.home_of(runner), serving.adapted_to(runner, plugin), serving.QUEUE)
