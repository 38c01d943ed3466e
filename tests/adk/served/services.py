"""What ADK's servers import from the folder of agents, before they look for services."""

import holdfast.adapters.adk  # noqa: F401 - which makes them known
