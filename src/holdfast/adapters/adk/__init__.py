"""Google ADK: its agents resume where they stopped, with nothing finished done twice."""

from __future__ import annotations

from .plugin import HoldfastPlugin
from .resuming import resume
from .services import register_services
from .sessions import HoldfastSessionService

__all__ = ["HoldfastPlugin", "HoldfastSessionService", "resume"]

register_services()
