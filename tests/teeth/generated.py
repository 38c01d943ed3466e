"""Bugs planted for the campaign of generated programs, which must find each among those it draws."""

from __future__ import annotations

from .plant import Plant

GENERATED = "tests/torture/test_generated.py"

PLANTED = [
    Plant(
        "a call is recalled from another branch",
        "src/holdfast/recall.py",
        "        here = self._at.get((frame.scope, frame.branch, name, key, n))\n",
        """        here = None
        for (scope, _, *call), row in self._at.items():
            if (scope, *call) == (frame.scope, name, key, n) and row.seq not in self._claimed:
                here = here or row
""",
        [GENERATED],
    ),
    Plant(
        "an intent is not written",
        "src/holdfast/once.py",
        "        await self._intend()\n        try:\n",
        "        try:\n",
        [GENERATED],
    ),
    Plant(
        "a salvage forgets what was done once",
        "src/holdfast/salvage.py",
        "            if (place_of(row), row.fingerprint) in intents or sources.get(row.seq) in found:\n",
        "            if False:\n",
        [GENERATED],
    ),
]
