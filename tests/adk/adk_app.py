"""``adk_app:app``, the app of the scene that the environment names, over our own sessions: for a worker."""

from __future__ import annotations

import os

import adk_scenes as scenes
from google.adk.apps import App, ResumabilityConfig

from holdfast.adapters.adk import HoldfastPlugin, HoldfastSessionService

sessions = HoldfastSessionService(os.environ["HOLDFAST_DB"])
store = sessions.holdfast._store
app = App(
    name="app",
    root_agent=scenes.SCENES[os.environ["SCENE"]](),
    plugins=[HoldfastPlugin(sessions)],
    resumability_config=ResumabilityConfig(is_resumable=True),
)
