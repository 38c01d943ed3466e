"""Bugs planted for the campaign of generated programs, which must find each among those it draws."""

from __future__ import annotations

from .plant import Plant

GENERATED = "tests/torture/test_generated.py"

PLANTED = [
    Plant(
        "a call is recalled from another branch",
        "src/holdfast/recall.py",
        "        here = self._at.get((frame.scope, frame.branch, name, key, n))\n",
        """        for here in self._at.values():
            if (here.scope, here.name) == (frame.scope, name) and here.seq not in self._claimed:
                self._claimed.add(here.seq)
                return here
        here = None
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
