"""An app as ADK's tools load it: it does not say where its sessions are."""

from adk_scenes import sequence
from google.adk.apps import App, ResumabilityConfig

from holdfast.adapters.adk import HoldfastPlugin

app = App(
    name="app",
    root_agent=sequence(),
    plugins=[HoldfastPlugin()],
    resumability_config=ResumabilityConfig(is_resumable=True),
)
