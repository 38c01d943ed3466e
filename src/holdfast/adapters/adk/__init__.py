"""Google ADK: its agents resume where they stopped, with nothing finished done twice."""

from __future__ import annotations

from .plugin import HoldfastPlugin
from .resuming import resume
from .saving import checkpoints
from .services import register_services
from .sessions import HoldfastSessionService

__all__ = ["HoldfastPlugin", "HoldfastSessionService", "checkpoints", "resume"]

register_services()
