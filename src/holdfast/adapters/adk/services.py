"""Holdfast's sessions in ADK's own tools, by the URL of a store: ``adk web``, ``adk api_server``, ``adk run``."""

from __future__ import annotations

from typing import Any

from google.adk.cli.service_registry import get_service_registry

from holdfast.store.postgres_url import SCHEMES

from .sessions import HoldfastSessionService

_OURS = "holdfast+"  # ahead of what holdfast.open takes, since ADK has a service of its own for most schemes


def register_services() -> None:
    """Let ``--session_service_uri holdfast+sqlite:///…`` and ``holdfast+postgresql://…`` mean a
    ``HoldfastSessionService``.

    ``adk run`` has imported the agent, and so this package, before it looks for services; a server imports agents when
    they are asked for, and before it looks only ``services.py`` in the folder it is given."""
    for scheme in ("memory", "sqlite", *SCHEMES):
        get_service_registry().register_session_service(_OURS + scheme, _service)


def _service(uri: str, **options: Any) -> HoldfastSessionService:
    options.pop("agents_dir", None)  # told to every factory; ours needs none
    return HoldfastSessionService(uri[len(_OURS) :], **options)
