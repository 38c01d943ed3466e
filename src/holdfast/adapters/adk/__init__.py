"""Google ADK: its agents, with holdfast's durability."""

from __future__ import annotations

from .sessions import HoldfastSessionService

__all__ = ["HoldfastSessionService"]
